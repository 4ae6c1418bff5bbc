import type { Backup, CopyResult, HandleRun, TransferOptions } from '@spillway/core'
import type { Pool } from '../../src/index.ts'

/**
 * Sees that no stored page is copied in twice (T43, B2): once a page is in memory, or in a chunk that waits for the rest of
 * its pages, it is not asked for again before something left memory.
 *
 * What left is not known here, only that something did, or that something was read without being copied in: then everything counts as
 * not copied.
 */
export class CopyLedger {
  #copied = new Set<string>()
  #twice: string | undefined
  #evicted = 0

  /** Watches a backup; returns it. */
  watch<Watched extends Backup>(backup: Watched): Watched {
    const copyPages = backup.copyPages.bind(backup)
    let hasFailed = false
    backup.copyPages = async (
      handles: readonly HandleRun[],
      spans: readonly Uint8Array[],
      options?: TransferOptions,
    ): Promise<CopyResult> => {
      const mayBeProbe = hasFailed && handles.length === 1 && handles[0]!.count === 1
      const result = await copyPages(handles, spans, options)
      hasFailed = (result.error as { code?: unknown } | undefined)?.code === 'EIO'
      // After EIO the pool asks for some other page to learn whether the backup fails or the page is bad; it keeps none of it.
      let left = mayBeProbe ? 0 : result.copied
      for (const { first, count } of handles) {
        for (let index = 0; index < count && left > 0; index++, left--) this.#note(backup.name, first + index)
      }
      return result
    }
    const startCopy = backup.startCopy?.bind(backup)
    if (startCopy !== undefined) {
      backup.startCopy = (first, span, done) =>
        startCopy(first, span, (copied, error) => {
          hasFailed = (error as { code?: unknown } | undefined)?.code === 'EIO'
          for (let index = 0; index < copied; index++) this.#note(backup.name, first + index)
          if (error === undefined) done(copied)
          else done(copied, error)
        })
    }
    return backup
  }

  /** A step is over; `isPlain` says that none of its calls may give memory up without counting it as evicted. */
  endStep(pools: readonly Pool[], isPlain: boolean): void {
    let evicted = 0
    for (const pool of pools) {
      const { evictedCleanPages, evictedDirtyPages, purgedPages, bypassedPages } = pool.stats()
      evicted += evictedCleanPages + evictedDirtyPages + purgedPages + bypassedPages
    }
    const twice = this.#twice
    this.#twice = undefined
    if (!isPlain || evicted !== this.#evicted) {
      this.#evicted = evicted
      this.#copied.clear()
    } else if (twice !== undefined) {
      throw new Error(`T43: ${twice} was copied in twice, and nothing had left memory`)
    }
  }

  #note(backup: string, handle: number): void {
    const name = `page ${handle} of backup ${backup}`
    if (this.#copied.has(name)) this.#twice = name
    this.#copied.add(name)
  }
}
