import { fileURLToPath } from 'node:url'

/** The programs that measure in a process of their own. */
export type ProgramName = 'case-process' | 'ceilings-process' | 'large-process' | 's3-process'

/**
 * Path of a built program of this package, to be run in a process of its own. Built files lie side by side; code that runs
 * from the sources (tests) starts the built ones too, because the packages it imports resolve to their builds.
 */
export function programPath(name: ProgramName): string {
  const fromSources = import.meta.url.endsWith('.ts')
  return fileURLToPath(new URL(fromSources ? `../dist/${name}.js` : `./${name}.js`, import.meta.url))
}
