import type { Options } from 'tsup'

/** What every package is built with; a package adds only the entries of its public subpaths. */
export const base: Options = {
  entry: ['src/index.ts'],
  format: ['esm'],
  target: 'node22',
  dts: true,
  sourcemap: true,
  clean: true,
  tsconfig: '../../tsconfig.build.json',
}
