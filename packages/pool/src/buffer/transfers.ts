import type { TransferOptions } from '@spillway/core'
import { abortError, SpillwayError } from '@spillway/core'
import { pace } from '../pace.ts'
import type { BufferState } from '../residency/buffer-state.ts'
import { located } from '../residency/failures.ts'
import type { Holder } from '../residency/hold.ts'
import type { Destination, Residents } from '../residency/residents.ts'
import type { Store } from '../residency/store.ts'
import { asError } from '../residency/store.ts'
import type { StoredBatch, Writeback } from '../residency/writeback.ts'
import { busy, dirty, fixed, partial } from '../table/chunks.ts'
import type { Access } from './access.ts'
import { closedBuffer } from './closed.ts'

/** How far a long call is. */
export interface Progress {
  /** Pages done so far by this call. */
  readonly pages: number
  /** Pages of the buffer. */
  readonly totalPages: number
}

/** What a call did. A partial result is a value: the call can be made again and goes on. */
export interface TransferResult {
  /** Pages that left memory (`backup`), came into memory (`restore`) or were given up (`purge`). */
  readonly pages: number
  /** What stopped it; absent when all was done. */
  readonly error?: Error | undefined
}

export interface BackupOptions extends TransferOptions {
  /** Push the pages to stable storage before answering (T7). Default false. */
  readonly writeback?: boolean | undefined
  /** All or nothing: when one page cannot be stored, all stay in memory (T63). Default false. */
  readonly atomic?: boolean | undefined
  readonly onProgress?: ((progress: Progress) => void) | undefined
}

export interface RestoreOptions extends TransferOptions {
  readonly onProgress?: ((progress: Progress) => void) | undefined
}

/**
 * The calls that move a whole buffer. Each goes through the page table with a cursor and looks afresh after every wait,
 * so that reclaim, accesses and other such calls may run beside it.
 */
export class Transfers {
  readonly #residents: Residents
  readonly #holder: Holder
  readonly #writeback: Writeback
  readonly #access: Access
  readonly #splitAlways: boolean
  readonly #atomicBackups = new WeakMap<BufferState, Promise<void>>()

  constructor(
    residents: Residents,
    holder: Holder,
    writeback: Writeback,
    access: Access,
    splitAlways: boolean,
  ) {
    this.#residents = residents
    this.#holder = holder
    this.#writeback = writeback
    this.#access = access
    this.#splitAlways = splitAlways
  }

  /** Stores what is dirty and gives all memory of a buffer to the system. */
  async backup(buffer: BufferState, options: BackupOptions): Promise<TransferResult> {
    const store = await this.#gate(buffer)
    if (options.signal?.aborted)
      return { pages: 0, error: abortError(options.signal, { buffer: buffer.label }) }
    if (options.atomic === true) return this.#backupAtomically(buffer, store, options)
    const run = new Run(buffer, options.onProgress)
    const calls = new Set<Promise<void>>()
    for (let page = 0; page < buffer.table.pageCount && run.error === undefined; ) {
      if (options.signal?.aborted) run.stop(abortError(options.signal, { buffer: buffer.label, page }))
      const begin = (chunks: readonly number[]) => {
        const call = this.#writeback
          .run(store, chunks, { ...options, destination: 'system', splitAlways: this.#splitAlways })
          .then(({ evictedPages, error }) => {
            calls.delete(call)
            if (error !== undefined) run.stop(error)
            run.add(evictedPages)
          })
        calls.add(call)
      }
      const batch = await this.#nextBatch(buffer, page, store.batchPages, run, calls.size === 0, true, begin)
      page = batch.nextPage
      if (calls.size >= store.callsInFlight || (batch.mustWait && calls.size > 0)) await Promise.race(calls)
      const turn = pace()
      if (turn !== undefined) await turn
    }
    await Promise.all(calls)
    return run.result(this.#pinnedError(buffer, run))
  }

  /** Brings all stored pages of a buffer into memory. */
  async restore(buffer: BufferState, options: RestoreOptions): Promise<TransferResult> {
    const { table } = buffer
    const { limitPages } = this.#residents.limit
    if (table.residentPages + table.storedPages > limitPages) {
      throw new SpillwayError(
        'ENOMEM',
        `buffer ${buffer.label} has ${table.residentPages + table.storedPages} pages; the limit is ${limitPages}`,
        { buffer: buffer.label, retryable: false },
      )
    }
    const run = new Run(buffer, options.onProgress)
    let failed: Error | undefined
    if (buffer.purged) {
      buffer.purged = false
      run.stop(
        new SpillwayError(
          'ENOENT',
          `content of buffer ${buffer.label} was purged; what is gone reads as zeros`,
          {
            buffer: buffer.label,
          },
        ),
      )
    }
    for (let page = 0; page < table.pageCount && failed === undefined; ) {
      if (buffer.closing) throw closedBuffer(buffer)
      const first = await this.#firstMissing(buffer, page)
      if (first >= table.pageCount) break
      const end = this.#missingEnd(buffer, first, this.#access.windowEnd(buffer, first))
      const before = this.#missingPages(buffer, first, end)
      try {
        this.#holder.letGo(buffer, await this.#holder.hold(buffer, first, end, { ...options, write: false }))
        run.add(before)
      } catch (failure) {
        failed = asError(failure)
        run.add(Math.max(0, before - this.#missingPages(buffer, first, end)))
      }
      page = end
    }
    const error = failed ?? run.error
    return error === undefined ? { pages: run.pages } : { pages: run.pages, error }
  }

  /**
   * Gives up the content of a buffer without storing it (T36). Rejects with `EBUSY` when somebody pins it meanwhile; what
   * was given up by then stays so. Resolves to the pages given up.
   */
  async purge(buffer: BufferState): Promise<number> {
    const { counters } = this.#residents
    const purged = { pages: 0 }
    try {
      await this.giveUp(buffer, 'system', purged)
    } finally {
      if (purged.pages > 0) buffer.purged = true
      counters.purgedPages += purged.pages
    }
    return purged.pages
  }

  /** Gives up the content of a buffer; memory goes to `destination`, the pages are counted in `progress`. */
  async giveUp(buffer: BufferState, destination: Destination, progress = { pages: 0 }): Promise<void> {
    const { chunks } = this.#residents
    const { table } = buffer
    for (let page = 0; page < table.pageCount; ) {
      table.look(page, table.pageCount)
      const count = table.foundPages
      if (table.found === 'chunk') {
        const chunk = table.foundChunk
        if ((chunks.flags[chunk]! & busy) !== 0 || chunks.pins[chunk]! > 0) {
          if (buffer.userPins > 0) throw pinnedError(buffer, page)
          // What holds it is an operation, and it ends.
          await this.#whenFree(chunk)
          continue
        }
        this.#residents.discard(chunk, destination)
        progress.pages += count
      } else if (table.found === 'handle') {
        buffer.store!.drop(table.foundHandle, count)
        table.setEmpty(page, count)
        progress.pages += count
      }
      page += count
      const turn = pace()
      if (turn !== undefined) await turn
    }
  }

  /** One after the other for each buffer: each holds what it stored, and must not wait for what the other holds. */
  #backupAtomically(buffer: BufferState, store: Store, options: BackupOptions): Promise<TransferResult> {
    const before = this.#atomicBackups.get(buffer) ?? Promise.resolve()
    const result = before.then(() => this.#storeAllOrNothing(buffer, store, options))
    this.#atomicBackups.set(
      buffer,
      result.then(
        () => {},
        () => {},
      ),
    )
    return result
  }

  async #storeAllOrNothing(
    buffer: BufferState,
    store: Store,
    options: BackupOptions,
  ): Promise<TransferResult> {
    const run = new Run(buffer, options.onProgress)
    const batches: StoredBatch[] = []
    const calls = new Set<Promise<void>>()
    const pinned = this.#firstPinned(buffer)
    if (pinned !== undefined) run.stop(pinned)
    const own = new Set<number>()
    const begin = (chunks: readonly number[]) => {
      for (const chunk of chunks) own.add(chunk)
      const call = this.#writeback
        .store(store, chunks, { ...options, destination: 'system', splitAlways: this.#splitAlways })
        .then((stored) => {
          calls.delete(call)
          batches.push(stored)
          if (stored.error !== undefined) run.stop(stored.error)
        })
      calls.add(call)
    }
    const { pageCount } = buffer.table
    for (let page = 0; page < pageCount && run.error === undefined; ) {
      if (options.signal?.aborted) run.stop(abortError(options.signal, { buffer: buffer.label, page }))
      const mayWait = calls.size === 0
      const batch = await this.#nextBatch(buffer, page, store.batchPages, run, mayWait, false, begin, own)
      page = batch.nextPage
      if (calls.size >= store.callsInFlight || (batch.mustWait && calls.size > 0)) await Promise.race(calls)
      if (page < pageCount || run.pinnedPage !== undefined) continue
      await Promise.all(calls)
      // Making room in a full backup makes clean chunks dirty, some of which were passed already.
      page = this.#firstUnstored(buffer, own) ?? pageCount
    }
    await Promise.all(calls)
    if (run.pinnedPage !== undefined) run.stop(this.#pinnedError(buffer, run)!)
    if (run.error !== undefined) {
      for (const batch of batches) this.#writeback.undo(batch)
      await store.settled()
      return { pages: 0, error: run.error }
    }
    for (const batch of batches) run.add(this.#writeback.commit(batch, 'system').evictedPages)
    // What needed no storing leaves last, so that nothing left when the rest could not.
    for (let page = 0; page < buffer.table.pageCount; ) {
      page = (await this.#nextBatch(buffer, page, 0, run, true, true, () => {})).nextPage
    }
    return run.result()
  }

  /**
   * Hands the next dirty chunks from `page` on, up to a batch, to `begin`, which is called before anybody else can run.
   * Clean chunks on the way leave memory at once if `evictClean`. `mustWait`: the next chunk is busy, possibly in one of
   * the caller's own calls, unless it is one of `own`.
   */
  async #nextBatch(
    buffer: BufferState,
    page: number,
    batchPages: number,
    run: Run,
    mayWait: boolean,
    evictClean: boolean,
    begin: (chunks: readonly number[]) => void,
    own?: ReadonlySet<number>,
  ): Promise<{ nextPage: number; mustWait: boolean }> {
    const { chunks, counters } = this.#residents
    const { table } = buffer
    const picked: number[] = []
    let pages = 0
    let next = page
    let mustWait = false
    while (next < table.pageCount) {
      table.look(next, table.pageCount)
      const count = table.foundPages
      const chunk = table.found === 'chunk' ? table.foundChunk : 0
      const flags = chunks.flags[chunk]!
      const isOwn = own?.has(chunk) === true
      if (chunk !== 0 && !isOwn && (flags & busy) !== 0) {
        mustWait = pages > 0 || !mayWait
        if (mustWait) break
        await chunks.whenSettled(chunk)
        continue
      }
      if (chunk === 0 || isOwn) {
        // Empty, stored, or about to be: nothing to do.
      } else if (chunks.pins[chunk]! > 0) {
        run.pinnedPage ??= next
      } else if ((flags & dirty) === 0) {
        if (evictClean) {
          this.#residents.evict(chunk, 'system')
          counters.evictedCleanPages += count
          run.pages += count
        }
      } else if (batchPages > 0) {
        if (pages > 0 && pages + count > batchPages) break
        picked.push(chunk)
        pages += count
      }
      next += count
      // Looking costs little, but a large buffer has many blocks; what was picked must not change while we wait.
      const turn = pages === 0 ? pace() : undefined
      if (turn !== undefined) await turn
    }
    if (picked.length > 0) begin(picked)
    return { nextPage: next, mustWait }
  }

  /** Refuses before any side effect (T34): no backup, a provider whose pages may not leave, a backup without room. */
  async #gate(buffer: BufferState): Promise<Store> {
    const { store } = buffer
    const fields = { buffer: buffer.label, backup: store?.name }
    if (store === undefined) {
      throw new SpillwayError(
        'EINVAL',
        `buffer ${buffer.label} has no backup; give the pool or the buffer one`,
        fields,
      )
    }
    this.assertMayLeave(buffer)
    await store.settled()
    const mustStore = this.#hasDirty(buffer) && !this.#writeback.hasRedundant(store)
    if (mustStore && (await store.backup.bytesAvailable()) <= 0) {
      throw new SpillwayError('EBUSY', `backup ${store.name} has no room`, fields)
    }
    return store
  }

  /** Throws `EBUSY` when a page is in memory that it may not leave (T34). */
  assertMayLeave(buffer: BufferState): void {
    const page = this.#someChunk(buffer, (chunk) => (this.#residents.chunks.flags[chunk]! & fixed) !== 0)
    if (page === undefined) return
    throw new SpillwayError('EBUSY', `the page provider of buffer ${buffer.label} does not let pages leave`, {
      buffer: buffer.label,
      page,
    })
  }

  #hasDirty(buffer: BufferState): boolean {
    return (
      this.#someChunk(buffer, (chunk) => (this.#residents.chunks.flags[chunk]! & dirty) !== 0) !== undefined
    )
  }

  #firstUnstored(buffer: BufferState, own: ReadonlySet<number>): number | undefined {
    return this.#someChunk(
      buffer,
      (chunk) => (this.#residents.chunks.flags[chunk]! & dirty) !== 0 && !own.has(chunk),
    )
  }

  #firstPinned(buffer: BufferState): Error | undefined {
    const page = this.#someChunk(
      buffer,
      (chunk) =>
        this.#residents.chunks.pins[chunk]! > 0 && (this.#residents.chunks.flags[chunk]! & busy) === 0,
    )
    return page === undefined ? undefined : pinnedError(buffer, page)
  }

  /** The first page of a chunk of the buffer that passes the test; goes through the buffer or through all chunks. */
  #someChunk(buffer: BufferState, test: (chunk: number) => boolean): number | undefined {
    const { table } = buffer
    const { chunks } = this.#residents
    if (table.residentPages === 0) return undefined
    if (table.pageCount / table.blockPages > chunks.count) {
      const chunk = chunks.find(buffer.id, test)
      return chunk === 0 ? undefined : chunks.firstPage[chunk]!
    }
    for (let page = 0; page < table.pageCount; page += table.foundPages) {
      table.look(page, table.pageCount)
      if (table.found === 'chunk' && test(table.foundChunk)) return page
    }
    return undefined
  }

  #pinnedError(buffer: BufferState, run: Run): Error | undefined {
    return run.pinnedPage === undefined ? undefined : pinnedError(buffer, run.pinnedPage)
  }

  /** The first page from `page` on that is stored, or whose chunk was only filled in part. */
  async #firstMissing(buffer: BufferState, page: number): Promise<number> {
    const { table } = buffer
    let next = page
    while (next < table.pageCount) {
      table.look(next, table.pageCount)
      if (this.#isMissing(buffer)) return next
      next += table.foundPages
      const turn = pace()
      if (turn !== undefined) await turn
    }
    return next
  }

  #missingEnd(buffer: BufferState, first: number, end: number): number {
    const { table } = buffer
    let next = first
    while (next < end) {
      table.look(next, end)
      if (!this.#isMissing(buffer)) break
      next += table.foundPages
    }
    return next
  }

  #missingPages(buffer: BufferState, first: number, end: number): number {
    const { table } = buffer
    let missing = 0
    for (let page = first; page < end; page += table.foundPages) {
      table.look(page, end)
      if (!this.#isMissing(buffer)) continue
      missing += table.foundPages
      if (table.found === 'chunk') missing -= this.#residents.chunks.restored[table.foundChunk]!
    }
    return missing
  }

  #isMissing(buffer: BufferState): boolean {
    const { table } = buffer
    if (table.found === 'handle') return true
    return table.found === 'chunk' && (this.#residents.chunks.flags[table.foundChunk]! & partial) !== 0
  }

  async #whenFree(chunk: number): Promise<void> {
    const { chunks } = this.#residents
    if ((chunks.flags[chunk]! & busy) !== 0) await chunks.whenSettled(chunk)
    else await new Promise<void>((resolve) => setTimeout(resolve, 0))
  }
}

/** What one call has done so far. */
class Run {
  pages = 0
  error: Error | undefined
  pinnedPage: number | undefined
  readonly #buffer: BufferState
  readonly #onProgress: ((progress: Progress) => void) | undefined

  constructor(buffer: BufferState, onProgress: ((progress: Progress) => void) | undefined) {
    this.#buffer = buffer
    this.#onProgress = onProgress
  }

  add(pages: number): void {
    this.pages += pages
    if (pages === 0) return
    try {
      this.#onProgress?.({ pages: this.pages, totalPages: this.#buffer.table.pageCount })
    } catch (failure) {
      // The caller's own mistake ends the caller's call, and nothing else.
      this.stop(located(asError(failure), 'progress', { buffer: this.#buffer.label }))
    }
  }

  stop(error: Error): void {
    this.error ??= error
  }

  result(last?: Error): TransferResult {
    const error = this.error ?? last
    return error === undefined ? { pages: this.pages } : { pages: this.pages, error }
  }
}

function pinnedError(buffer: BufferState, page: number): SpillwayError {
  return new SpillwayError('EBUSY', `page ${page} of buffer ${buffer.label} is pinned`, {
    buffer: buffer.label,
    page,
  })
}
