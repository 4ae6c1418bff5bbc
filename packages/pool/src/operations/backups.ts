import { abortError, orAbort, type Reservation, SpillwayError } from '@spillway/core'
import { pace } from '../ground/pace.ts'
import { asError, type BackingStore } from '../residency/backing-store.ts'
import type { BufferState } from '../residency/buffer-state.ts'
import { findPage, looksPerStep } from '../residency/chunk-walk.ts'
import { closedBuffer } from '../residency/closed.ts'
import { isFull, located } from '../residency/failures.ts'
import type { PageOut, StoredBatch } from '../residency/page-out.ts'
import type { ResidentSet } from '../residency/resident-set.ts'
import { busy, dirty, unevictable } from '../table/chunks.ts'
import { type BackupOptions, CallProgress, pinnedError, type TransferResult } from './call-progress.ts'
import { assertMayLeave, unevictableError } from './discards.ts'

/** What to hand on of the next pages. */
interface WantedBatch {
  readonly batchPages: number
  /** Wait for a chunk that is busy instead of ending before it. */
  readonly mayWait: boolean
  /** Clean chunks on the way leave memory at once. */
  readonly evictClean: boolean
  /** Called with the chunks before anybody else can run. */
  readonly begin: (chunks: readonly number[]) => void
  /** Chunks that the caller stores already. */
  readonly own?: ReadonlySet<number>
}

/**
 * Backups of whole buffers. A call goes through the page table with a cursor and looks afresh after every wait, so that
 * reclaim, accesses and other such calls may run beside it.
 */
export class Backups {
  readonly #residents: ResidentSet
  readonly #pageOut: PageOut
  readonly #splitAlways: boolean
  readonly #atomicBackups = new WeakMap<BufferState, Promise<void>>()

  constructor(residents: ResidentSet, pageOut: PageOut, splitAlways: boolean) {
    this.#residents = residents
    this.#pageOut = pageOut
    this.#splitAlways = splitAlways
  }

  /** Stores what is dirty and gives all memory of a buffer to the system. */
  async backup(buffer: BufferState, options: BackupOptions): Promise<TransferResult> {
    let store = await this.#gate(buffer)
    if (options.signal?.aborted)
      return { pages: 0, error: abortError(options.signal, { buffer: buffer.label }) }
    if (options.atomic === true) return this.#backupAtomically(buffer, options)
    const run = new CallProgress(buffer, options.onProgress)
    const calls = new Set<Promise<void>>()
    for (let page = 0; page < buffer.table.pageCount && run.error === undefined; ) {
      if (options.signal?.aborted) run.stop(abortError(options.signal, { buffer: buffer.label, page }))
      if (buffer.closing) run.stop(closedBuffer(buffer))
      const begin = (chunks: readonly number[]) => {
        // The buffer may have been given another backup since the last batch: no page of it was stored then.
        if (buffer.store === undefined) return run.stop(noBackup(buffer))
        store = buffer.store
        const call = this.#pageOut
          .run(store, chunks, { ...options, destination: 'retained', splitAlways: this.#splitAlways })
          .then(({ evictedPages, error }) => {
            calls.delete(call)
            if (error !== undefined) run.stop(error)
            run.add(evictedPages)
          })
        calls.add(call)
      }
      const batch = await this.#nextBatch(buffer, page, run, {
        batchPages: store.batchPages,
        mayWait: calls.size === 0,
        evictClean: true,
        begin,
      })
      page = batch.nextPage
      if (calls.size >= store.callsInFlight || (batch.mustWait && calls.size > 0)) await Promise.race(calls)
      const turn = pace()
      if (turn !== undefined) await turn
    }
    await Promise.all(calls)
    return run.result(run.staying)
  }

  /** One after the other for each buffer: each holds what it stored, and must not wait for what the other holds. */
  #backupAtomically(buffer: BufferState, options: BackupOptions): Promise<TransferResult> {
    const before = this.#atomicBackups.get(buffer) ?? Promise.resolve()
    const result = this.#storeAfter(before, buffer, options)
    const over = () => {}
    // One that was aborted while it waited is over, and the one before it may not be.
    this.#atomicBackups.set(
      buffer,
      result.then(over, over).then(() => before),
    )
    return result
  }

  async #storeAfter(
    before: Promise<void>,
    buffer: BufferState,
    options: BackupOptions,
  ): Promise<TransferResult> {
    const { signal } = options
    await orAbort(before, signal).catch(() => {})
    if (signal?.aborted) return { pages: 0, error: abortError(signal, { buffer: buffer.label }) }
    return this.#storeWithPresentBackup(buffer, options)
  }

  /** Begins anew when the buffer was given another backup before the first batch; from that one on it keeps the one it has. */
  async #storeWithPresentBackup(buffer: BufferState, options: BackupOptions): Promise<TransferResult> {
    for (;;) {
      const { store } = buffer
      if (store === undefined) throw noBackup(buffer)
      const result = await this.#storeReserved(buffer, store, options)
      if (result !== undefined) return result
    }
  }

  /**
   * Where the backup can promise room, what could not be stored whole is not begun. Resolves to undefined when the buffer was
   * given another backup meanwhile, and nothing has begun.
   */
  async #storeReserved(
    buffer: BufferState,
    store: BackingStore,
    options: BackupOptions,
  ): Promise<TransferResult | undefined> {
    const bytes = buffer.dirtyPages * store.backup.capabilities.pageSizeBytes
    if (!store.backup.capabilities.reserves || bytes === 0)
      return this.#storeAllOrNothing(buffer, store, options)
    let reservation: Reservation
    try {
      reservation = await store.backup.reserve(bytes)
    } catch (thrown) {
      const failure = asError(thrown)
      // Copies of what is in memory anyway may be given up on the way; any other failure will show itself again there.
      if (!isFull(failure) || this.#pageOut.hasRedundant(store)) {
        return this.#storeAllOrNothing(buffer, store, options)
      }
      const fields = { buffer: buffer.label, backup: store.name }
      return { pages: 0, error: located(failure, 'reserving room for', fields) }
    }
    try {
      return await this.#storeAllOrNothing(buffer, store, options, reservation)
    } finally {
      // What became of the pages is settled by now; a reservation that cannot be given back is the backup's own matter.
      await reservation.release().catch(() => {})
    }
  }

  async #storeAllOrNothing(
    buffer: BufferState,
    store: BackingStore,
    options: BackupOptions,
    reservation?: Reservation,
  ): Promise<TransferResult | undefined> {
    if (buffer.store !== store) return undefined
    const run = new CallProgress(buffer, options.onProgress)
    const batches: StoredBatch[] = []
    const calls = new Set<Promise<void>>()
    const pinned = this.#firstPinned(buffer)
    if (pinned !== undefined) run.stop(pinned)
    const own = new Set<number>()
    let isReplaced = false
    const { pageCount } = buffer.table
    const splitAlways = this.#splitAlways
    const how = { ...options, destination: 'retained', splitAlways, reservation, own } as const
    const begin = (chunks: readonly number[]) => {
      isReplaced = buffer.store !== store
      if (isReplaced) return run.stop(noBackup(buffer))
      for (const chunk of chunks) own.add(chunk)
      const call = this.#pageOut.store(store, chunks, how).then((stored) => {
        calls.delete(call)
        batches.push(stored)
        if (stored.error !== undefined) run.stop(stored.error)
        // What is thrown here still ends the call as if it had not been made; nothing has left yet.
        run.add(stored.storedPages + stored.zeroPages)
      })
      calls.add(call)
    }
    for (let page = 0; page < pageCount && run.error === undefined; ) {
      if (options.signal?.aborted) run.stop(abortError(options.signal, { buffer: buffer.label, page }))
      if (buffer.closing) run.stop(closedBuffer(buffer))
      const { batchPages } = store
      const wanted = { batchPages, mayWait: calls.size === 0, evictClean: false, begin, own }
      const batch = await this.#nextBatch(buffer, page, run, wanted)
      page = batch.nextPage
      if (calls.size >= store.callsInFlight || (batch.mustWait && calls.size > 0)) await Promise.race(calls)
      const turn = pace()
      if (turn !== undefined) await turn
      if (page < pageCount || run.staying !== undefined) continue
      await Promise.all(calls)
      // Making room in a full backup makes clean chunks dirty, some of which were passed already.
      page = this.#firstUnstored(buffer, own) ?? pageCount
    }
    await Promise.all(calls)
    if (run.staying !== undefined) run.stop(run.staying)
    if (run.error === undefined) return this.#commitAll(buffer, run, batches)
    for (const batch of batches) {
      this.#pageOut.undo(batch)
      const turn = pace()
      if (turn !== undefined) await turn
    }
    await store.settled()
    return isReplaced ? undefined : { pages: 0, error: run.error }
  }

  /** From here on nothing can fail or be aborted: all of it leaves, batch by batch, and what waits stays marked. */
  async #commitAll(
    buffer: BufferState,
    run: CallProgress,
    batches: readonly StoredBatch[],
  ): Promise<TransferResult> {
    run.pages = 0
    for (const batch of batches) {
      run.pages += this.#pageOut.commit(batch, 'retained').evictedPages
      const turn = pace()
      if (turn !== undefined) await turn
    }
    // What needed no storing leaves last, so that nothing left when the rest could not.
    for (let page = 0; page < buffer.table.pageCount; ) {
      const wanted = { batchPages: 0, mayWait: true, evictClean: true, begin: () => {} }
      page = (await this.#nextBatch(buffer, page, run, wanted)).nextPage
    }
    return { pages: run.pages }
  }

  /**
   * Hands the next dirty chunks from `page` on, up to a batch, on. `mustWait`: the next chunk is busy, possibly in one of
   * the caller's own calls.
   */
  async #nextBatch(
    buffer: BufferState,
    page: number,
    run: CallProgress,
    { batchPages, mayWait, evictClean, begin, own }: WantedBatch,
  ): Promise<{ nextPage: number; mustWait: boolean }> {
    const { chunks, counters } = this.#residents
    const { table } = buffer
    const picked: number[] = []
    let pages = 0
    let next = page
    let mustWait = false
    let looks = 0
    while (next < table.pageCount) {
      table.look(next, table.pageCount)
      const count = table.foundPages
      const chunk = table.found === 'chunk' ? table.foundChunk : 0
      const flags = chunks.flagsOf(chunk)
      const isOwn = own?.has(chunk) === true
      if (chunk !== 0 && !isOwn && (flags & busy) !== 0) {
        mustWait = pages > 0 || !mayWait
        if (mustWait) break
        await chunks.whenSettled(chunk)
        continue
      }
      if (chunk === 0 || isOwn) {
        // Empty, stored, or about to be: nothing to do.
      } else if (chunks.isPinned(chunk)) {
        run.staying ??= pinnedError(buffer, next)
      } else if ((flags & unevictable) !== 0) {
        // Came while this call waited, from a provider that was set meanwhile.
        run.staying ??= unevictableError(buffer, next)
      } else if (!this.#residents.isIntact(chunk)) {
        run.staying ??= tamperedError(buffer, next)
      } else if ((flags & dirty) === 0) {
        if (evictClean) {
          this.#residents.evict(chunk, 'retained')
          counters.evictedCleanPages += count
          run.pages += count
        }
      } else if (batchPages > 0) {
        if (pages > 0 && pages + count > batchPages) break
        picked.push(chunk)
        pages += count
      }
      next += count
      // Looking costs little, but a large buffer has many blocks; what was picked must not change while we wait, so it
      // is handed over when much is looked at after it.
      if (pages > 0 && ++looks === looksPerStep) break
      const turn = pages === 0 ? pace() : undefined
      if (turn !== undefined) await turn
    }
    if (picked.length > 0) begin(picked)
    return { nextPage: next, mustWait }
  }

  /** Refuses before any side effect (T34): no backup, a provider whose pages may not leave, a backup without room. */
  async #gate(buffer: BufferState): Promise<BackingStore> {
    for (;;) {
      const { store } = buffer
      if (store === undefined) throw noBackup(buffer)
      assertMayLeave(this.#residents, buffer)
      await store.settled()
      const mustStore = buffer.dirtyPages > 0 && !this.#pageOut.hasRedundant(store)
      const isFull = mustStore && (await store.backup.bytesAvailable()) <= 0
      // Another call may have given the buffer another backup while this one was asked.
      if (buffer.store !== store) continue
      if (!isFull) return store
      const fields = { buffer: buffer.label, backup: store.name }
      throw new SpillwayError('EBUSY', `backup ${store.name} has no room`, fields)
    }
  }

  #firstUnstored(buffer: BufferState, own: ReadonlySet<number>): number | undefined {
    return findPage(
      this.#residents,
      buffer,
      (chunk) => this.#residents.chunks.has(chunk, dirty) && !own.has(chunk),
    )
  }

  #firstPinned(buffer: BufferState): Error | undefined {
    if (this.#residents.pinnedPages === 0) return undefined
    const page = findPage(
      this.#residents,
      buffer,
      (chunk) => this.#residents.chunks.isPinned(chunk) && !this.#residents.chunks.has(chunk, busy),
    )
    return page === undefined ? undefined : pinnedError(buffer, page)
  }
}

/** `EFAULT` for a page whose memory the application has taken away from the pool. */
function tamperedError({ label }: BufferState, page: number): SpillwayError {
  const message = `the memory of buffer ${label} page ${page} was resized or detached outside of the pool`
  return new SpillwayError('EFAULT', message, { buffer: label, page })
}

function noBackup({ label }: BufferState): SpillwayError {
  const message = `buffer ${label} has no backup; give the pool or the buffer one`
  return new SpillwayError('EINVAL', message, { buffer: label })
}
