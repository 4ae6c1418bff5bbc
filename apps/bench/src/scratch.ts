import { mkdtempSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { UsageError } from './usage-error.ts'

/**
 * A directory of its own in `parent`, which is gone at the end, also when what is to run in it does not start. Throws
 * `UsageError` when `parent` cannot be written.
 */
export function makeScratch(parent: string): { readonly path: string } & Disposable {
  let path: string
  try {
    path = mkdtempSync(join(parent, 'spillway-bench-'))
  } catch (failure) {
    const { code } = failure as NodeJS.ErrnoException
    throw new UsageError(`--directory '${parent}' cannot be written (${code}); give one that can`)
  }
  return { path, [Symbol.dispose]: () => rmSync(path, { recursive: true, force: true }) }
}
