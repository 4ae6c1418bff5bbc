import { defineConfig } from 'tsup'
import { base, declarations } from '../../tsup.base.ts'

// Constructors that only a pool calls would bring the declarations of everything inside it along.
export default defineConfig({ ...base, dts: { ...declarations, compilerOptions: { stripInternal: true } } })
