import type { CopyDone } from './contract.ts'
import { afterThisCode } from './host/timers.ts'

/**
 * Tells the caller of `startCopy` that its copy is over. To be called last, when counters are right and the next call may
 * come. What `done` throws becomes an uncaught exception of its own, and never stops whoever else is to be told.
 */
export function tellCopied(done: CopyDone, copied: number, error?: Error): void {
  try {
    done(copied, error)
  } catch (thrown) {
    afterThisCode(() => {
      throw thrown
    })
  }
}
