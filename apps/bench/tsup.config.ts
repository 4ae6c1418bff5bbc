import { defineConfig } from 'tsup'
import { base, declarations } from '../../tsup.base.ts'

export default defineConfig({
  ...base,
  entry: [
    'src/index.ts',
    'src/cli.ts',
    'src/case-process.ts',
    'src/ceilings-process.ts',
    'src/large-process.ts',
    'src/s3-process.ts',
  ],
  dts: { ...declarations, entry: 'src/index.ts' },
})
