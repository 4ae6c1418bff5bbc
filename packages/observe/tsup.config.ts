import { defineConfig } from 'tsup'
import { base, declarations } from '../../tsup.base.ts'

// What only the package itself asks of its classes.
export default defineConfig({ ...base, dts: { ...declarations, compilerOptions: { stripInternal: true } } })
