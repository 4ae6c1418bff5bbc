import type { BackupPagesOptions, HandleRun } from '@spillway/core'
import { trace } from '../ground/trace.ts'
import { tracing } from '../ground/tracing.ts'
import { firstChunk } from '../table/chunk-records.ts'
import { busy, partial, purgeableList } from '../table/chunks.ts'
import { HandleCursor } from '../table/handle-cursor.ts'
import { asError, type BackingStore } from './backing-store.ts'
import type { BufferState } from './buffer-state.ts'
import { isFull, located } from './failures.ts'
import type { ResidentSet } from './resident-set.ts'
import type { StoredDestination } from './resident-set-options.ts'
import { ZeroSearch } from './zero-search.ts'

/** How a batch of chunks leaves memory. */
export interface PageOutOptions extends BackupPagesOptions {
  readonly destination: StoredDestination
  /** Hand pages over one by one instead of whole chunks. */
  readonly splitAlways?: boolean | undefined
  /** `beginPageOut` was told already. */
  readonly isMarked?: boolean | undefined
  /** Chunks that the caller stores: of one that is split at zeros, its pieces are among them instead. */
  readonly own?: Set<number> | undefined
}

/** What became of a batch. */
export interface PageOutResult {
  /** Pages that left memory. */
  readonly evictedPages: number
  /** Pages that were stored; more than left when somebody pinned a chunk meanwhile. */
  readonly storedPages: number
  readonly error: Error | undefined
}

/** Chunks that are stored but not yet taken out of memory. */
export interface StoredBatch {
  readonly store: BackingStore
  readonly chunks: readonly number[]
  /** Chunks of zeros: their pages become empty instead of stored. */
  readonly zeroChunks: readonly number[]
  readonly handles: readonly HandleRun[]
  /** Pages that have handles. */
  readonly storedPages: number
  /** Pages of the chunks of zeros. */
  readonly zeroPages: number
  readonly error: Error | undefined
}

/**
 * Stores dirty chunks and takes them out of memory: the one way in which bytes leave (T32–T38).
 *
 *   begin: mark writeback ─▶ chunks of zeros, and such parts of pieces: no I/O, their pages become empty
 *                         └▶ backupPages(whole chunks) ─▶ commit: handles of a prefix of the pages
 *                                                          │
 *        chunk wholly stored ── pinned meanwhile ──▶ stays, clean, with its handles (also when asked to: `stay`)
 *                            └─ else ─────────────▶ evicted
 *        stopped inside a chunk ─────────────────▶ split; the stored pages leave, the others stay (T38)
 *        not reached ────────────────────────────▶ stays where it is in its list (B12)
 */
export class PageOut {
  readonly #residents: ResidentSet
  readonly #zeros: ZeroSearch
  /** Batches that are being stored, whoever asked for it: their memory may be free in a moment. */
  inFlight = 0
  /** The chunk at which the last search for redundant copies ended: the next goes on there. */
  #lookedAt = firstChunk
  readonly #onSettled: () => void

  /** `onSettled` is told when a batch was settled, and its memory is free or stays. */
  constructor(residents: ResidentSet, onSettled: () => void) {
    this.#residents = residents
    this.#zeros = new ZeroSearch(residents)
    this.#onSettled = onSettled
  }

  /** Stores chunks that are dirty, idle and not pinned, and evicts them. All belong to buffers of this store. */
  async run(store: BackingStore, chunks: readonly number[], options: PageOutOptions): Promise<PageOutResult> {
    return this.commit(await this.store(store, chunks, options), options.destination)
  }

  /** The first half: the chunks are stored and stay marked until `commit` or `undo`. */
  async store(store: BackingStore, all: readonly number[], options: PageOutOptions): Promise<StoredBatch> {
    const { counters } = this.#residents
    for (const chunk of all) {
      if (this.#residents.bufferOf(chunk).store !== store)
        throw new Error(`chunk ${chunk} is to be stored in a backup that its buffer does not have`)
    }
    this.inFlight++
    if (options.isMarked !== true) for (const chunk of all) this.#residents.beginPageOut(chunk)
    const search =
      options.destination === 'stay' ? { chunks: all, zeroChunks: [] } : this.#zeros.find(all, options)
    // Not awaited where nothing has to wait: then the first call is made at once.
    const { chunks, zeroChunks } = search instanceof Promise ? await search : search
    const zeroPages = this.#pageCount(zeroChunks)
    const pageCount = this.#pageCount(chunks)
    const end = tracing.pageOut.isHeard ? tracing.pageOut.begin(this.#call(store, pageCount)) : undefined
    const { signal, retryMayFail, writeback: durable, splitAlways = false, reservation } = options
    const handles: HandleRun[] = []
    let storedPages = 0
    let error: Error | undefined
    while (storedPages < pageCount) {
      counters.backupCalls++
      const left = pageCount - storedPages
      const spans = this.#intactSpans(chunks, storedPages, splitAlways)
      const result = Array.isArray(spans)
        ? await store.backupPages(spans, left, { signal, retryMayFail, writeback: durable, reservation })
        : { handles: [], error: spans }
      for (const run of result.handles) {
        handles.push(run)
        storedPages += run.count
        counters.backedUpPages += run.count
      }
      error = result.error
      if (error !== undefined) counters.backupFailures++
      // To clean one chunk at the price of another gains nothing.
      if (options.destination === 'stay') break
      if (!isFull(error) || !(await this.#makeRoom(store, pageCount - storedPages))) break
    }
    if (error !== undefined) error = this.#locate(store, chunks, storedPages, error)
    end?.(storedPages, error)
    if (trace.backup.hasSubscribers) {
      trace.backup.publish({ pool: this.#residents.poolName, backup: store.name, pages: storedPages, error })
    }
    return { store, chunks, zeroChunks, handles, storedPages, zeroPages, error }
  }

  #pageCount(chunks: readonly number[]): number {
    const { chunks: table } = this.#residents
    return chunks.reduce((pages, chunk) => pages + table.pageCount(chunk), 0)
  }

  #call({ name, backup }: BackingStore, pages: number) {
    const { poolName } = this.#residents
    return { pool: poolName, backup: name, pages, bytes: pages * backup.capabilities.pageSizeBytes }
  }

  /** The second half: what is stored leaves memory. Synchronous. */
  commit(batch: StoredBatch, destination: StoredDestination): PageOutResult {
    const { chunks, counters } = this.#residents
    const handles = new HandleCursor(batch.handles)
    let left = batch.storedPages
    let evictedPages = 0
    for (const chunk of batch.chunks) {
      const count = chunks.pageCount(chunk)
      const stored = Math.min(left, count)
      left -= stored
      if (stored === count) {
        this.#residents.keepStored(chunk, handles)
        if (chunks.isPinned(chunk)) continue
        if (destination === 'stay') {
          this.#residents.order.stored(chunk)
        } else {
          this.#residents.evict(chunk, destination)
          evictedPages += count
        }
      } else if (stored > 0) {
        evictedPages += this.#leavePartly(batch.store, chunk, stored, handles)
      } else {
        this.#residents.pageOutFailed(chunk)
      }
    }
    for (const chunk of batch.zeroChunks) {
      if (destination === 'stay' || chunks.isPinned(chunk)) {
        this.#residents.pageOutFailed(chunk)
        continue
      }
      evictedPages += chunks.pageCount(chunk)
      this.#residents.leftEmpty(chunk, destination)
    }
    counters.evictedDirtyPages += evictedPages
    this.settled()
    return { evictedPages, storedPages: batch.storedPages, error: batch.error }
  }

  /** Instead of `commit`: what was stored is dropped, the chunks are as they were (T63). */
  undo(batch: StoredBatch): void {
    batch.store.dropRuns(batch.handles)
    for (const chunk of batch.chunks) this.#residents.pageOutFailed(chunk)
    for (const chunk of batch.zeroChunks) this.#residents.pageOutFailed(chunk)
    this.settled()
  }

  /** Chunks are marked that are to be stored: as batches that are being stored, they end by themselves. Ends with `settled`. */
  begins(): void {
    this.inFlight++
  }

  settled(): void {
    this.inFlight--
    this.#onSettled()
  }

  /** Whether memory has pages that are stored too, so that a full backup could be made room in. */
  hasRedundant(store: BackingStore): boolean {
    return this.#eachRedundant(store, () => false)
  }

  /** A full backup: whether it is worth trying again, after what was given up is released or more is given up. */
  async #makeRoom(store: BackingStore, wanted: number): Promise<boolean> {
    const isAny = store.isDropping || this.#dropRedundant(store, wanted) > 0
    // Only then there is room: whoever asked before would be refused again, and could not tell.
    if (isAny) await store.settled()
    return isAny
  }

  /**
   * A full backup: copies of what is in memory anyway, unchanged, are given up until `wanted` pages are (those of the cold
   * end last, since they leave next). Those chunks are dirty then. Returns the pages given up.
   */
  #dropRedundant(store: BackingStore, wanted: number): number {
    const residents = this.#residents
    let dropped = 0
    this.#eachRedundant(store, (chunk) => {
      dropped += residents.chunks.pageCount(chunk)
      residents.giveUpStored(chunk)
      return dropped < wanted
    })
    return dropped
  }

  /** Shows chunks that are stored as well, those of the cold end last, until `visit` says that it is enough; then true. */
  #eachRedundant(store: BackingStore, visit: (chunk: number) => boolean): boolean {
    const { chunks, order } = this.#residents
    for (const areCold of [false, true]) {
      for (let looks = firstChunk; looks < chunks.end; looks++) {
        if (++this.#lookedAt >= chunks.end) this.#lookedAt = firstChunk
        const chunk = this.#lookedAt
        if (chunks.ownerOf(chunk) === 0 || chunks.storedAt(chunk) === 0) continue
        if (chunks.has(chunk, busy | partial) || chunks.listOf(chunk) === purgeableList) continue
        if (order.isCold(chunk) !== areCold || this.#residents.bufferOf(chunk).store !== store) continue
        if (!visit(chunk)) return true
      }
    }
    return false
  }

  /** The same, or why not: the application may have taken memory away. */
  #intactSpans(chunks: readonly number[], from: number, pageByPage: boolean): Uint8Array[] | Error {
    try {
      return this.#spans(chunks, from, pageByPage)
    } catch (failure) {
      return asError(failure)
    }
  }

  /** The memory of the pages of chunks from page `from` of all of them on. */
  #spans(chunks: readonly number[], from: number, pageByPage: boolean): Uint8Array[] {
    const { chunks: table, pages } = this.#residents
    const spans: Uint8Array[] = []
    let skip = from
    for (const chunk of chunks) {
      const count = table.pageCount(chunk)
      const first = Math.min(skip, count)
      skip -= first
      const frame = table.frameOf(chunk)
      if (!pageByPage) {
        if (first < count) spans.push(pages.slabs.bytes(frame + first, count - first))
        continue
      }
      for (let index = first; index < count; index++) spans.push(pages.slabs.bytes(frame + index, 1))
    }
    return spans
  }

  #leavePartly(store: BackingStore, chunk: number, stored: number, handles: HandleCursor): number {
    const residents = this.#residents
    const { chunks } = residents
    if (chunks.isPinned(chunk)) {
      // Somebody holds all of it: nothing may move, so the part that was stored is given up.
      for (let index = 0; index < stored; index++) store.drop(handles.takeOne(), 1)
      residents.pageOutFailed(chunk)
      return 0
    }
    residents.pagesLeft(chunk, stored, handles)
    return stored
  }

  #locate(store: BackingStore, chunks: readonly number[], storedPages: number, failure: Error): Error {
    let left = storedPages
    for (const chunk of chunks) {
      const count = this.#residents.chunks.pageCount(chunk)
      if (left < count) {
        const buffer: BufferState = this.#residents.bufferOf(chunk)
        const page = this.#residents.chunks.firstPageOf(chunk) + left
        return located(failure, 'backing up', { buffer: buffer.label, page, backup: store.name })
      }
      left -= count
    }
    return located(failure, 'backing up', { backup: store.name })
  }
}
