import { defineConfig } from 'tsup'
import { base, declarationsWithNode } from '../../tsup.base.ts'

export default defineConfig({
  ...base,
  // The server is a program of its own, which the first entry starts.
  entry: ['src/index.ts', 'src/server/server.ts'],
  dts: { ...declarationsWithNode, entry: 'src/index.ts' },
})
