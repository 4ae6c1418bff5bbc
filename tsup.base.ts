import type { Options } from 'tsup'

/**
 * A bundled class that names itself becomes `var Pool = class _Pool`, and shows up as `_Pool` in stacks and inspections. It gets
 * its own name back: within the class the inner name hides the outer one, and both are the class. (`keepNames` of esbuild
 * would do it at run time, for every function each time that it is made: microseconds on the hot paths.)
 */
const namedClasses: NonNullable<Options['plugins']>[number] = {
  name: 'named-classes',
  renderChunk(code, { map }) {
    let named = code
    for (const [, name] of code.matchAll(/\bclass _([A-Z]\w*)\b/g)) {
      named = named.replaceAll(new RegExp(`\\b_${name}\\b`, 'g'), name)
    }
    return map === undefined ? { code: named } : { code: named, map }
  },
}

/** How declarations are made: types with `AsyncDisposable` compile in projects that name no libraries of their own. */
export const declarations = { banner: '/// <reference lib="esnext.disposable" />' }

/** The same where types of Node are named: TypeScript 6 and 7 load none that nobody asks for. */
export const declarationsWithNode = { banner: `${declarations.banner}\n/// <reference types="node" />` }

/** What every package is built with; a package adds only the entries of its public subpaths. */
export const base: Options = {
  entry: ['src/index.ts'],
  format: ['esm'],
  target: 'node22',
  dts: declarations,
  sourcemap: true,
  clean: true,
  tsconfig: '../../tsconfig.build.json',
  plugins: [namedClasses],
}
