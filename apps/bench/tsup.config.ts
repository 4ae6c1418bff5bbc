import { defineConfig } from 'tsup'
import { base } from '../../tsup.base.ts'

export default defineConfig({
  ...base,
  entry: [
    'src/cli.ts',
    'src/case-process.ts',
    'src/ceilings-process.ts',
    'src/large-process.ts',
    'src/s3-process.ts',
  ],
  dts: false,
})
