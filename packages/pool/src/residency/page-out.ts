import type { BackupPagesOptions, HandleRun } from '@spillway/core'
import { trace } from '../ground/trace.ts'
import { busy, cleanList, partial, scattered, unevictable, writeback } from '../table/chunks.ts'
import { HandleCursor } from '../table/handle-cursor.ts'
import type { Store } from './backing-store.ts'
import type { BufferState } from './buffer-state.ts'
import { isFull, located } from './failures.ts'
import type { Residents, StoredDestination } from './resident-set.ts'

/** How a batch of chunks leaves memory. */
export interface WritebackOptions extends BackupPagesOptions {
  readonly destination: StoredDestination
  /** Hand pages over one by one instead of whole chunks. */
  readonly splitAlways?: boolean | undefined
}

/** What became of a batch. */
export interface WritebackResult {
  /** Pages that left memory. */
  readonly evictedPages: number
  /** Pages that were stored; more than left when somebody pinned a chunk meanwhile. */
  readonly storedPages: number
  readonly error: Error | undefined
}

/** Chunks that are stored but not yet taken out of memory. */
export interface StoredBatch {
  readonly store: Store
  readonly chunks: readonly number[]
  readonly handles: readonly HandleRun[]
  readonly storedPages: number
  readonly error: Error | undefined
}

/**
 * Stores dirty chunks and takes them out of memory: the one way in which bytes leave (T32–T38).
 *
 *   begin: mark writeback ─▶ backupPages(whole chunks) ─▶ commit: handles of a prefix of the pages
 *                                                          │
 *        chunk wholly stored ── pinned meanwhile ──▶ stays, clean, with its handles (also when asked to: `stay`)
 *                            └─ else ─────────────▶ evicted
 *        stopped inside a chunk ─────────────────▶ split; the stored pages leave, the others stay (T38)
 *        not reached ────────────────────────────▶ stays where it is in its list (B12)
 */
export class Writeback {
  readonly #residents: Residents
  /** Batches that are being stored, whoever asked for it: their memory may be free in a moment. */
  inFlight = 0
  /** Told when a batch was settled, and its memory is free or stays. */
  onSettled: () => void = () => {}

  constructor(residents: Residents) {
    this.#residents = residents
  }

  /** Stores chunks that are dirty, idle and not pinned, and evicts them. All belong to buffers of this store. */
  async run(store: Store, chunks: readonly number[], options: WritebackOptions): Promise<WritebackResult> {
    return this.commit(await this.store(store, chunks, options), options.destination)
  }

  /** The first half: the chunks are stored and stay marked until `commit` or `undo`. */
  async store(store: Store, chunks: readonly number[], options: WritebackOptions): Promise<StoredBatch> {
    const { chunks: table, counters } = this.#residents
    let pageCount = 0
    this.inFlight++
    for (const chunk of chunks) {
      // A device must not write to what is being stored; whoever pins the chunk has it mapped again (T35).
      this.#residents.mappings.unmap(chunk)
      table.setFlags(chunk, writeback)
      pageCount += table.pageCount(chunk)
    }
    const { signal, retryMayFail, writeback: durable, splitAlways = false, reservation } = options
    const handles: HandleRun[] = []
    let storedPages = 0
    let error: Error | undefined
    do {
      counters.backupCalls++
      const spans = this.#spans(chunks, storedPages, splitAlways)
      const left = pageCount - storedPages
      const result = await store.backupPages(spans, left, {
        signal,
        retryMayFail,
        writeback: durable,
        reservation,
      })
      for (const run of result.handles) {
        handles.push(run)
        storedPages += run.count
        counters.backedUpPages += run.count
      }
      error = result.error
      if (error !== undefined) counters.backupFailures++
      // To clean one chunk at the price of another gains nothing.
      if (options.destination === 'stay') break
    } while (isFull(error) && (await this.#makeRoom(store, pageCount - storedPages)))
    if (error !== undefined) error = this.#locate(store, chunks, storedPages, error)
    if (trace.backup.hasSubscribers) {
      trace.backup.publish({ pool: this.#residents.poolName, backup: store.name, pages: storedPages, error })
    }
    return { store, chunks, handles, storedPages, error }
  }

  /** The second half: what is stored leaves memory. Synchronous. */
  commit(batch: StoredBatch, destination: StoredDestination): WritebackResult {
    const { chunks, counters } = this.#residents
    const handles = new HandleCursor(batch.handles)
    let left = batch.storedPages
    let evictedPages = 0
    const staying: number[] = []
    for (const chunk of batch.chunks) {
      const count = chunks.pageCount(chunk)
      const stored = Math.min(left, count)
      left -= stored
      if (stored === count) {
        this.#keep(chunk, count, handles)
        if (this.#leave(chunk, destination)) evictedPages += count
        else if (!chunks.isPinned(chunk)) staying.push(chunk)
      } else if (stored > 0) {
        evictedPages += this.#leavePartly(batch.store, chunk, stored, handles)
      } else {
        this.#settle(chunk)
      }
    }
    // At the cold end, in the order that they had.
    for (const chunk of staying.reverse()) chunks.moveToCold(chunk, this.#residents.listOf(chunk))
    counters.evictedDirtyPages += evictedPages
    this.#settled()
    return { evictedPages, storedPages: batch.storedPages, error: batch.error }
  }

  /** Instead of `commit`: what was stored is dropped, the chunks are as they were (T63). */
  undo(batch: StoredBatch): void {
    batch.store.dropRuns(batch.handles)
    for (const chunk of batch.chunks) this.#settle(chunk)
    this.#settled()
  }

  #settled(): void {
    this.inFlight--
    this.onSettled()
  }

  /** Whether memory has pages that are stored too, so that a full backup could be made room in. */
  hasRedundant(store: Store): boolean {
    return this.#eachRedundant(store, () => false)
  }

  /** A full backup: whether it is worth trying again, after what was given up is released or more is given up. */
  async #makeRoom(store: Store, wanted: number): Promise<boolean> {
    const waits = store.isDropping
    if (waits) await store.settled()
    return waits || this.#dropRedundant(store, wanted) > 0
  }

  /**
   * A full backup: copies of what is in memory anyway, unchanged, are given up until `wanted` pages are (what was used
   * last first, since it will leave last). Those chunks are dirty then. Returns the pages given up.
   */
  #dropRedundant(store: Store, wanted: number): number {
    const residents = this.#residents
    let dropped = 0
    this.#eachRedundant(store, (chunk) => {
      dropped += residents.chunks.pageCount(chunk)
      residents.markDirty(residents.bufferOf(chunk), chunk)
      residents.relist(chunk)
      return dropped < wanted
    })
    return dropped
  }

  #eachRedundant(store: Store, visit: (chunk: number) => boolean): boolean {
    const { chunks } = this.#residents
    for (const list of [unevictable, cleanList]) {
      for (let chunk = chunks.previousOf(list); chunk !== list; ) {
        const colder = chunks.previousOf(chunk)
        const ready = !chunks.has(chunk, busy | partial)
        if (ready && chunks.keptOf(chunk) !== 0 && this.#residents.bufferOf(chunk).store === store) {
          if (!visit(chunk)) return true
        }
        chunk = colder
      }
    }
    return false
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

  #settle(chunk: number): void {
    const { chunks } = this.#residents
    chunks.clearFlags(chunk, writeback)
    chunks.wake(chunk)
  }

  /** The chunk is clean: its pages have these handles. */
  #keep(chunk: number, count: number, handles: HandleCursor): void {
    const { chunks } = this.#residents
    this.#residents.markClean(chunk)
    chunks.setKept(chunk, handles.takeAdjacent(count))
    if (chunks.keptOf(chunk) !== scattered) return
    const pages = new Float64Array(count)
    for (let index = 0; index < count; index++) pages[index] = handles.takeOne()
    chunks.keptPages.set(chunk, pages)
  }

  #leave(chunk: number, destination: StoredDestination): boolean {
    const { chunks } = this.#residents
    this.#settle(chunk)
    if (chunks.isPinned(chunk)) return false
    if (destination === 'stay') return false
    this.#residents.evict(chunk, destination)
    return true
  }

  #leavePartly(store: Store, chunk: number, stored: number, handles: HandleCursor): number {
    const residents = this.#residents
    const { chunks } = residents
    if (chunks.isPinned(chunk)) {
      // Somebody holds all of it: nothing may move, so the part that was stored is given up.
      for (let index = 0; index < stored; index++) store.drop(handles.takeOne(), 1)
      this.#settle(chunk)
      return 0
    }
    const { table } = residents.bufferOf(chunk)
    const first = chunks.firstPageOf(chunk)
    for (let index = 0; index < stored; index++) table.setHandles(first + index, 1, handles.takeOne())
    residents.split(chunk, stored)
    return stored
  }

  #locate(store: Store, chunks: readonly number[], storedPages: number, failure: Error): Error {
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
