import { abortError, type TransferOptions, yieldToEventLoop } from '@spillway/core'
import { notReady, pageIn } from '../table/chunks.ts'
import type { BufferState } from './buffer-state.ts'
import type { ResidentSet } from './resident-set.ts'

/** What of a page-in that failed is needed, and how it was asked for. */
export interface FailedPageIn extends TransferOptions {
  readonly failure: Error
  /** First and end of the pages that the call needs; a damaged page outside of it is none of its business. */
  readonly first: number
  readonly end: number
  /** Pages of those that are about to be written over whole, and so need not come in. */
  readonly overwriteFrom?: number | undefined
  readonly overwriteEnd?: number | undefined
}

/**
 * A page that its backup cannot give costs itself, and not the others of its chunk:
 *
 *   page-in stops at a page that nobody asked for ─▶ the page is remembered, what of its chunk has arrived stays, the rest leaves again
 *                                                  ─▶ from now on chunks are made around it, and it has one of its own
 *
 * Each access to it tries again. Writing over it whole, or giving it up, heals it.
 */
export class DamagedPages {
  readonly #residents: ResidentSet

  constructor(residents: ResidentSet) {
    this.#residents = residents
  }

  /**
   * Whether the call can go on without the page that stopped it, and must look at its range afresh. The caller lets go of
   * everything when it was so.
   */
  async isAvoidable(buffer: BufferState, failed: FailedPageIn): Promise<boolean> {
    const { code, page } = failed.failure as { code?: unknown; page?: number }
    if (page === undefined || (code !== 'EBADMSG' && code !== 'EIO')) return false
    const { first, end, overwriteFrom = 0, overwriteEnd = 0 } = failed
    const isNeeded = page >= first && page < end && !(page >= overwriteFrom && page < overwriteEnd)
    if (isNeeded || !this.#hasNeighbours(buffer, page)) return false
    // A backup that fails altogether has no bad pages.
    return code === 'EBADMSG' || this.#givesAnother(buffer, page, failed)
  }

  /**
   * Remembers a page, and has its chunk leave memory; whoever else waits for that chunk meets the same failure and lets go of it.
   * Rejects with `EINTR` when aborted.
   */
  async setAside(buffer: BufferState, page: number, signal: AbortSignal | undefined): Promise<void> {
    const { chunks, operations } = this.#residents
    buffer.addDamaged(page)
    for (;;) {
      const chunk = buffer.table.chunkAt(page)
      if (chunk === 0 || chunks.pageCount(chunk) === 1 || !chunks.has(chunk, notReady)) return
      if (!chunks.isPinned(chunk) && !chunks.has(chunk, pageIn)) {
        this.#residents.keepArrived(chunk)
        return
      }
      if (operations.release(chunk)) continue
      if (signal?.aborted) throw abortError(signal, { buffer: buffer.label })
      await yieldToEventLoop()
    }
  }

  #hasNeighbours(buffer: BufferState, page: number): boolean {
    const chunk = buffer.table.chunkAt(page)
    return chunk !== 0 && this.#residents.chunks.pageCount(chunk) > 1
  }

  /** Whether the backup gives another page of the same chunk, rather one that the call needs. */
  async #givesAnother(buffer: BufferState, page: number, failed: FailedPageIn): Promise<boolean> {
    const { chunks, pages } = this.#residents
    const chunk = buffer.table.chunkAt(page)
    // Pages of the chunk that have come are answer enough: none is copied a second time to find out (T43).
    if (chunks.restoredOf(chunk) > 0) return true
    const from = chunks.firstPageOf(chunk)
    const count = chunks.pageCount(chunk)
    const needed = Math.max(0, failed.first - from)
    let handle = 0
    for (let step = 0; step < count && handle === 0; step++) {
      const index = (needed + step) % count
      if (from + index !== page) handle = chunks.storedHandle(chunk, index)
    }
    if (handle === 0 || buffer.store === undefined) return true
    const { signal, retryMayFail } = failed
    const spans = [new Uint8Array(pages.slabs.pageSizeBytes)]
    const { copied } = await buffer.store.copyPages([{ first: handle, count: 1 }], spans, 1, {
      signal,
      retryMayFail,
    })
    return copied === 1
  }
}
