import { afterThisCode } from '@spillway/core'
import { pace } from '../ground/pace.ts'
import { trace } from '../ground/trace.ts'
import { cleanList, dirtyList, purgeableList } from '../table/chunks.ts'
import type { BackingStore } from './backing-store.ts'
import { FailingBackups } from './failing-backups.ts'
import { isFull } from './failures.ts'
import type { PageOut } from './page-out.ts'
import type { PoolLimit } from './pool-limit.ts'
import type { ResidentSet } from './resident-set.ts'
import type { Destination } from './resident-set-options.ts'

/** Pages to give to the system between two looks at the clock: 2 MiB of pages of 4 KiB. */
const slicePages = 512

export interface ReclaimOptions {
  readonly whenFull: WhenFull
  /** Hand pages to backups one by one instead of whole chunks. */
  readonly splitAlways: boolean
  /** Told when a batch came back. */
  readonly onBatch: () => void
  /** Makes room for the claims that wait. */
  readonly pump: () => void
  /** Frees memory for this pool at once and without I/O, wherever it is; returns the pages. */
  readonly freeAtOnce: (pages: number) => number
  readonly largestChunkPages: number
}

/** Dirty chunks of one backup. */
interface Batch {
  readonly store: BackingStore
  readonly chunks: number[]
  readonly pages: number
}

/** What waits when nothing can be evicted right now. */
export type WhenFull = 'wait' | 'fail'

/**
 * Makes room in one pool (T60–T62, T71–T77): purgeable chunks first, then clean ones of the cold end, then dirty ones of it, which are stored
 * in batches that go across buffers, several in flight.
 *
 *   short? ─▶ purge ─▶ evict clean ─▶ start batches ─▶ … a batch comes back ─▶ short? …
 *
 * How much a pool is to give, and what happens when it cannot, is decided for all pools of a budget (`SharedReclaim`).
 * What comes to the cold end is decided by `EvictionOrder`.
 * After a failure the backup is left alone for a while and its chunks keep their places (B12): reclaim neither spins nor
 * loses pages, and is back when the backup is.
 */
export class Reclaim {
  readonly residents: ResidentSet
  readonly #pageOut: PageOut
  readonly whenFull: WhenFull
  readonly splitAlways: boolean
  readonly #onBatch: () => void
  readonly largestChunkPages: number
  /** Frees memory for this pool at once and without I/O, in this pool or another of its budget; returns the pages. */
  readonly freeAtOnce: (pages: number) => number
  readonly #pump: () => void
  #pagesInFlight = 0
  #pagesBeingCleaned = 0
  readonly #batches = new Set<Promise<void>>()
  readonly #failing: FailingBackups

  constructor(residents: ResidentSet, pageOut: PageOut, options: ReclaimOptions) {
    this.residents = residents
    this.#pageOut = pageOut
    this.whenFull = options.whenFull
    this.splitAlways = options.splitAlways
    this.#onBatch = options.onBatch
    this.#failing = new FailingBackups(residents)
    this.#pump = options.pump
    this.freeAtOnce = options.freeAtOnce
    this.largestChunkPages = options.largestChunkPages
  }

  get limit(): PoolLimit {
    return this.residents.limit
  }

  get poolName(): string {
    return this.residents.poolName
  }

  /** Pages that are being stored, so that they will leave or be clean. */
  get pagesUnderWay(): number {
    return this.#pagesInFlight + this.#pagesBeingCleaned
  }

  /** Whether a batch is in flight. */
  get isStoring(): boolean {
    return this.#batches.size > 0
  }

  /** Whether pages are being stored that leave when that is done. */
  get isEvicting(): boolean {
    return this.#pagesInFlight > 0
  }

  get isPagingOut(): boolean {
    return this.#pageOut.inFlight > 0
  }

  /** Whether anything runs that lets go of memory by itself. */
  get isRunning(): boolean {
    return this.residents.operations.count + this.#pageOut.inFlight + this.residents.walksThatFree > 0
  }

  /** Whether the application pins anything. */
  get hasPins(): boolean {
    return this.residents.applicationPins > 0
  }

  /** Pages that nothing keeps in memory. */
  get evictablePages(): number {
    const { listPages } = this.residents.chunks
    return listPages[purgeableList]! + listPages[cleanList]! + listPages[dirtyList]!
  }

  countRefusal(): void {
    this.residents.counters.refusals++
  }

  /** A backup that failed last and holds up pages which could leave otherwise. */
  get failingBackup(): BackingStore | undefined {
    return this.#failing.inTheWay()[0]
  }

  /** Whether something is being stored, or could be. */
  get canStore(): boolean {
    if (this.isStoring) return true
    for (const { backoffMs } of this.residents.dirtyStores) if (backoffMs === 0) return true
    return false
  }

  /** What a backup with dirty pages said when it failed last. */
  get storeFailure(): Error | undefined {
    for (const { failure } of this.residents.dirtyStores) if (failure !== undefined) return failure
    return undefined
  }

  /** Backups that failed last and hold up pages which could leave otherwise. */
  failingInTheWay(): BackingStore[] {
    return this.#failing.inTheWay()
  }

  /**
   * Frees pages or begins to store some so that they leave: as many as are wanted and, to fill a batch, more, up to `most`
   * (T75). Returns how many.
   */
  makeRoom(wanted: number, most: number, retryMayFail: boolean): number {
    const freed = this.freeWithoutStoring(wanted, 'reuse')
    if (freed >= wanted) return freed
    if (trace.reclaim.hasSubscribers) {
      trace.reclaim.publish({ pool: this.poolName, pages: wanted - freed })
    }
    const begun = this.#startBatches(wanted - freed, most - freed, retryMayFail)
    // Nothing can be stored now: what is clean leaves, wanted or not.
    if (this.#batches.size > 0) return freed + begun
    return freed + this.freeWithoutStoring(wanted - freed, 'reuse', false)
  }

  /**
   * Gives at least `wanted` pages to the system if it can: idle memory, then what needs no I/O, then cold dirty chunks.
   * Resolves to the pages given.
   */
  async shrink(wanted: number): Promise<number> {
    const { pages } = this.residents
    const unreleased = pages.unreleasedPages
    let given = await this.trim(wanted)
    while (given < wanted) {
      given += await this.#freeSliced(wanted - given, true)
      if (given >= wanted) break
      const batch = this.pickBatch(wanted - given)
      if (batch === undefined) {
        given += await this.#freeSliced(wanted - given, false)
        break
      }
      const attempt = this.#failing.begin()
      const options = { destination: 'system', splitAlways: this.splitAlways } as const
      const result = await this.#pageOut.run(batch.store, batch.chunks, options)
      given += result.evictedPages
      this.#failing.note(batch.store, result.error, attempt)
    }
    // What its provider did not take has left its buffers, but not memory.
    return Math.max(0, given - (pages.unreleasedPages - unreleased))
  }

  /** Gives idle memory to the system, at least `wanted` pages if there are as many, without blocking the event loop. */
  trim(wanted: number): Promise<number> {
    return this.residents.pages.trimPaced(wanted)
  }

  /** `freeWithoutStoring` to the system: what takes longest is giving memory back, so a few chunks at a time. */
  async #freeSliced(wanted: number, storesFirst: boolean): Promise<number> {
    let freed = 0
    while (freed < wanted) {
      const step = this.freeWithoutStoring(Math.min(wanted - freed, slicePages), 'system', storesFirst)
      if (step === 0) break
      freed += step
      const turn = pace()
      if (turn !== undefined) await turn
    }
    return freed
  }

  /** Stores the coldest dirty chunks of one backup and leaves them in memory, clean; resolves to the pages stored. */
  async clean(wantedPages: number): Promise<number> {
    const batch = this.pickBatch(wantedPages)
    if (batch === undefined) return 0
    const { splitAlways } = this
    const attempt = this.#failing.begin()
    const running = this.#pageOut.run(batch.store, batch.chunks, { destination: 'stay', splitAlways })
    const tracked = this.#track(running)
    this.#pagesBeingCleaned += batch.pages
    const { storedPages, error } = await running
    this.#pagesBeingCleaned -= batch.pages
    // A full backup is no failing one: direct reclaim can still make room in it.
    if (!isFull(error)) this.#failing.note(batch.store, error, attempt)
    await tracked
    return storedPages
  }

  /** Resolves when no batch is in flight. */
  async settled(): Promise<void> {
    while (this.#batches.size > 0) await Promise.race(this.#batches)
  }

  /**
   * Evicts what needs no I/O until `wanted` pages are free, in the order in which it is to leave; returns the pages freed.
   * `storesFirst`: stops where others are to be stored before more clean chunks leave.
   */
  freeWithoutStoring(wanted: number, destination: Destination, storesFirst = true): number {
    let freed = 0
    const { chunks, counters, order } = this.residents
    while (freed < wanted) {
      const chunk = order.takePurgeable()
      if (chunk === 0) break
      freed += this.#purge(chunk, destination)
    }
    while (freed < wanted) {
      const chunk = order.takeClean(storesFirst)
      if (chunk === 0) break
      const pages = chunks.pageCount(chunk)
      this.residents.evict(chunk, destination)
      counters.evictedCleanPages += pages
      freed += pages
    }
    return freed
  }

  /** The dirty chunks of one backup that are to leave next, up to a batch; they are stored at once. */
  pickBatch(wantedPages: number): Batch | undefined {
    // What was short is not any more: an empty batch would be picked for ever.
    if (wantedPages <= 0) return undefined
    const { order, dirtyStores } = this.residents
    // Thousands of claims come here while every backup has all the calls that it takes.
    if (![...dirtyStores].some((candidate) => this.#mayCall(candidate))) return undefined
    order.pickCold(order.coldCleanPages + wantedPages)
    // All that a queue has may have left it by other ways: then another backup has some.
    for (;;) {
      const store = order.storeOfDirty((each) => this.#mayCall(each))
      if (store === undefined) return undefined
      const batch = this.#takeBatch(store, wantedPages)
      if (batch.pages > 0) return batch
    }
  }

  #takeBatch(store: BackingStore, wantedPages: number): Batch {
    const { chunks, order } = this.residents
    let pages = 0
    const picked: number[] = []
    while (pages < Math.min(store.batchPages, wantedPages)) {
      const most = pages === 0 ? Number.POSITIVE_INFINITY : store.batchPages - pages
      const chunk = order.takeDirty(store, most)
      if (chunk === 0) break
      picked.push(chunk)
      pages += chunks.pageCount(chunk)
    }
    return { store, chunks: picked, pages }
  }

  #mayCall(store: BackingStore): boolean {
    return store.backoffMs === 0 && store.reclaimCalls < store.callsInFlight
  }

  /** Returns the pages of the batches that were started. */
  #startBatches(short: number, most: number, retryMayFail: boolean): number {
    const { limit } = this
    let begun = 0
    while (begun < short) {
      // A batch is worth filling, but not at the price of evicting much of what fits.
      const wanted = Math.max(short - begun, Math.min(most - begun, Math.floor(limit.sharePages / 32)))
      const batch = this.pickBatch(wanted)
      if (batch === undefined) break
      begun += batch.pages
      void this.#track(this.#runBatch(batch.store, batch.chunks, { pages: batch.pages, retryMayFail }))
    }
    return begun
  }

  /** Counts a call as in flight; when it is back there may be more to do. */
  #track(call: Promise<unknown>): Promise<void> {
    const tracked: Promise<void> = call.then(() => {
      this.#batches.delete(tracked)
      // Claims that can be served now are served first; only what is still short then is pumped for.
      afterThisCode(() => {
        this.#pump()
        this.#onBatch()
      })
    })
    this.#batches.add(tracked)
    return tracked
  }

  async #runBatch(
    store: BackingStore,
    chunks: number[],
    { pages, retryMayFail }: { readonly pages: number; readonly retryMayFail: boolean },
  ): Promise<void> {
    this.#pagesInFlight += pages
    store.reclaimCalls++
    const { splitAlways } = this
    const attempt = this.#failing.begin()
    const options = { destination: 'reuse', splitAlways, retryMayFail } as const
    const batch = await this.#pageOut.store(store, chunks, options)
    // Whoever wanted the memory may have it from elsewhere by now: then the chunks are clean, and worth more where they are.
    const isWanted = this.limit.shared.waiters > 0
    this.#pageOut.commit(batch, isWanted ? 'reuse' : 'stay')
    store.reclaimCalls--
    this.#pagesInFlight -= pages
    this.#failing.note(store, batch.error, attempt)
  }

  #purge(chunk: number, destination: Destination): number {
    const buffer = this.residents.bufferOf(chunk)
    const pages = this.residents.chunks.pageCount(chunk)
    // The advice may have been taken back; then the chunk is on its way to another list.
    if (!buffer.purgeable) {
      this.residents.relist(chunk)
      return 0
    }
    buffer.purged = true
    this.residents.discard(chunk, destination)
    this.residents.counters.purgedPages += pages
    return pages
  }
}
