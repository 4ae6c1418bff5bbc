import { defineConfig } from 'tsup'
import { base, declarationsWithNode } from '../../tsup.base.ts'

export default defineConfig({ ...base, dts: declarationsWithNode })
