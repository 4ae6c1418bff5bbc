import { afterThisCode, type HostTimer, nowMs, startTimer, stopTimer } from '@spillway/core'
import { pace } from '../ground/pace.ts'
import { trace } from '../ground/trace.ts'
import { cleanList, dirtyList, purgeableList } from '../table/chunks.ts'
import type { BackingStore } from './backing-store.ts'
import { FailingBackups } from './failing-backups.ts'
import { isFull } from './failures.ts'
import type { Claimant } from './limit.ts'
import type { PageOut } from './page-out.ts'
import { describePins, refusal } from './refusal.ts'
import type { ResidentSet } from './resident-set.ts'
import type { Destination } from './resident-set-options.ts'
import { StallWarning } from './stall-warning.ts'

/** Pages to give to the system between two looks at the clock: 2 MiB of pages of 4 KiB. */
const slicePages = 512

export interface ReclaimOptions {
  readonly whenFull: WhenFull
  /** Hand pages to backups one by one instead of whole chunks. */
  readonly splitAlways: boolean
  /** Told when a batch came back. */
  readonly onBatch: () => void
}

/** What waits when nothing can be evicted right now. */
export type WhenFull = 'wait' | 'fail'

/**
 * Makes room (T60–T62, T71–T77): purgeable chunks first, then clean ones of the cold end, then dirty ones of it, which are stored
 * in batches that go across buffers, several in flight.
 *
 *   short? ─▶ purge ─▶ evict clean ─▶ start batches ─▶ … a batch comes back ─▶ short? …
 *                                        └─ nothing to start, nothing in flight: refuse, or wait for a pin
 *
 * What comes to the cold end is decided by `EvictionOrder`.
 * After a failure the backup is left alone for a while and its chunks keep their places (B12): reclaim neither spins nor
 * loses pages, and is back when the backup is.
 */
export class Reclaim {
  readonly #residents: ResidentSet
  readonly #pageOut: PageOut
  readonly whenFull: WhenFull
  readonly splitAlways: boolean
  readonly #onBatch: () => void
  readonly stallWarning: StallWarning
  #pagesInFlight = 0
  #pagesBeingCleaned = 0
  readonly #batches = new Set<Promise<void>>()
  readonly #failing: FailingBackups
  #retry: HostTimer | undefined
  #retryAtMs = 0

  constructor(residents: ResidentSet, pageOut: PageOut, options: ReclaimOptions) {
    this.#residents = residents
    this.#pageOut = pageOut
    this.whenFull = options.whenFull
    this.splitAlways = options.splitAlways
    this.#onBatch = options.onBatch
    this.#failing = new FailingBackups(residents)
    this.stallWarning = new StallWarning(
      residents.limit,
      residents.poolName,
      () => this.#waitsForPins(),
      () => describePins(residents),
    )
  }

  /** A backup that failed last and holds up pages which could leave otherwise. */
  get failingBackup(): BackingStore | undefined {
    return this.#failing.inTheWay()[0]
  }

  /** Makes room for the claims that wait: as much as they want and, to fill a batch, a little more (T75). */
  pump(): void {
    const { limit } = this.#residents
    for (let pass = 0; pass < 2; pass++) {
      const short = limit.shortPages - this.#pagesInFlight - this.#pagesBeingCleaned
      if (short <= 0) break
      const freed = this.freeWithoutStoring(short, 'reuse')
      if (freed >= short) return
      if (trace.reclaim.hasSubscribers) {
        trace.reclaim.publish({ pool: this.#residents.poolName, pages: short - freed })
      }
      this.#startBatches(short - freed)
      // Nothing can be stored now: what is clean leaves, wanted or not.
      if (this.#batches.size === 0) this.freeWithoutStoring(short - freed, 'reuse', false)
    }
    if (limit.firstShortPages > 0 && this.#batches.size === 0) {
      if (this.#residents.applicationPins > 0 && this.whenFull === 'wait') this.stallWarning.note()
      this.#stalled()
    }
  }

  /**
   * Gives at least `wanted` pages to the system if it can: idle memory, then what needs no I/O, then cold dirty chunks.
   * Resolves to the pages given.
   */
  async shrink(wanted: number): Promise<number> {
    const { pages } = this.#residents
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
  async trim(wanted: number): Promise<number> {
    const { pages } = this.#residents
    let given = 0
    while (given < wanted) {
      const step = pages.shrinkStep()
      if (step === 0) break
      given += step
      const turn = pace()
      if (turn !== undefined) await turn
    }
    return given
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

  /** Tries no more on its own. */
  stop(): void {
    stopTimer(this.#retry)
    this.stallWarning.stop()
  }

  /**
   * Evicts what needs no I/O until `wanted` pages are free, in the order in which it is to leave; returns the pages freed.
   * `storesFirst`: stops where others are to be stored before more clean chunks leave.
   */
  freeWithoutStoring(wanted: number, destination: Destination, storesFirst = true): number {
    let freed = 0
    const { chunks, counters, order } = this.#residents
    while (freed < wanted) {
      const chunk = order.takePurgeable()
      if (chunk === 0) break
      freed += this.#purge(chunk, destination)
    }
    while (freed < wanted) {
      const chunk = order.takeClean(storesFirst)
      if (chunk === 0) break
      const pages = chunks.pageCount(chunk)
      this.#residents.evict(chunk, destination)
      counters.evictedCleanPages += pages
      freed += pages
    }
    return freed
  }

  /** The dirty chunks of one backup that are to leave next, up to a batch; they are stored at once. */
  pickBatch(wantedPages: number): { store: BackingStore; chunks: number[]; pages: number } | undefined {
    const { chunks, order, dirtyStores } = this.#residents
    // Thousands of claims come here while every backup has all the calls that it takes.
    if (![...dirtyStores].some((candidate) => this.#mayCall(candidate))) return undefined
    order.pickCold(order.coldCleanPages + wantedPages)
    const store = order.storeOfDirty((each) => this.#mayCall(each))
    if (store === undefined) return undefined
    let pages = 0
    const picked: number[] = []
    while (pages < Math.min(store.batchPages, wantedPages)) {
      const most = pages === 0 ? Number.POSITIVE_INFINITY : store.batchPages - pages
      const chunk = order.takeDirty(store, most)
      if (chunk === 0) break
      picked.push(chunk)
      pages += chunks.pageCount(chunk)
    }
    return pages === 0 ? undefined : { store, chunks: picked, pages }
  }

  #mayCall(store: BackingStore): boolean {
    return store.backoffMs === 0 && store.reclaimCalls < store.callsInFlight
  }

  #startBatches(short: number): void {
    const { limit } = this.#residents
    let left = short
    while (left > 0) {
      // A batch is worth filling, but not at the price of evicting much of what fits.
      const wanted = Math.max(left, Math.floor(limit.limitPages / 32))
      const batch = this.pickBatch(wanted)
      if (batch === undefined) return
      left -= batch.pages
      void this.#track(this.#runBatch(batch.store, batch.chunks, batch.pages))
    }
  }

  /** Counts a call as in flight; when it is back there may be more to do. */
  #track(call: Promise<unknown>): Promise<void> {
    const tracked: Promise<void> = call.then(() => {
      this.#batches.delete(tracked)
      // Claims that can be served now are served first; only what is still short then is pumped for.
      afterThisCode(() => {
        this.pump()
        this.#onBatch()
      })
    })
    this.#batches.add(tracked)
    return tracked
  }

  async #runBatch(store: BackingStore, chunks: number[], pages: number): Promise<void> {
    this.#pagesInFlight += pages
    store.reclaimCalls++
    const { splitAlways } = this
    const retryMayFail = this.#residents.limit.firstRetryMayFail
    const attempt = this.#failing.begin()
    const options = { destination: 'reuse', splitAlways, retryMayFail } as const
    const { error } = await this.#pageOut.run(store, chunks, options)
    store.reclaimCalls--
    this.#pagesInFlight -= pages
    this.#failing.note(store, error, attempt)
  }

  /**
   * Nothing is in flight and nothing can be started: what a claim waits for must come from others, or never comes.
   *
   *   a backup fails, and that may pass, or the claim came after its last attempt ─▶ wait for the next attempt
   *   a backup fails                                                              ─▶ refuse, with its failure
   *   somebody holds pins                                                         ─▶ wait, or refuse
   *   nothing can be evicted                                                      ─▶ refuse
   */
  #stalled(): void {
    const { limit, counters } = this.#residents
    if (!this.#nothingRuns()) return
    const failing = this.#failing.inTheWay()
    const failure = failing[0]?.failure
    const pins = this.#residents.applicationPins
    const refused = (claimant: Claimant | undefined) => {
      counters.refusals++
      return refusal(this.#residents, claimant, failure, pins > 0 ? describePins(this.#residents) : undefined)
    }
    if (failing.some((store) => store.worthRetrying || this.#isUntried(store))) {
      limit.refuseRetryMayFail(refused)
      if (limit.waiters > 0) this.#pumpAfter(Math.min(...failing.map(({ backoffMs }) => backoffMs)))
      return
    }
    if (failure === undefined && pins > 0 && this.whenFull === 'wait') return
    limit.refuseFirst(refused)
  }

  /** Whether the first claim can have no memory before somebody releases a pin, whatever else is under way. */
  #waitsForPins(): boolean {
    const { limit, chunks } = this.#residents
    const { listPages } = chunks
    const evictable = listPages[purgeableList]! + listPages[cleanList]! + listPages[dirtyList]!
    const isShort = limit.firstShortPages > 0 && evictable < limit.firstShortPages
    return isShort && this.#pageOut.inFlight === 0 && this.#residents.applicationPins > 0
  }

  /** The process is about to end, and a claim still waits: what it waits for never comes. */
  endDeadlock(): void {
    const { limit, counters } = this.#residents
    this.pump()
    if (limit.waiters === 0 || this.#pageOut.inFlight > 0) return
    this.stallWarning.tell()
    counters.refusals++
    limit.refuseFirst((claimant) =>
      refusal(this.#residents, claimant, undefined, describePins(this.#residents)),
    )
  }

  /** Whether no attempt with a backup has begun since the first claim came, and whoever claims is patient. */
  #isUntried(store: BackingStore): boolean {
    return this.whenFull === 'wait' && store.failedAttempt <= this.#residents.limit.firstArrivedAt
  }

  #nothingRuns(): boolean {
    return this.#residents.operations.count + this.#pageOut.inFlight + this.#residents.walksThatFree === 0
  }

  #pumpAfter(delayMs: number): void {
    const atMs = nowMs() + delayMs
    if (this.#retry !== undefined && this.#retryAtMs <= atMs) return
    stopTimer(this.#retry)
    this.#retryAtMs = atMs
    this.#retry = startTimer(() => {
      this.#retry = undefined
      this.pump()
    }, delayMs + 1)
  }

  #purge(chunk: number, destination: Destination): number {
    const buffer = this.#residents.bufferOf(chunk)
    const pages = this.#residents.chunks.pageCount(chunk)
    // The advice may have been taken back; then the chunk is on its way to another list.
    if (!buffer.purgeable) {
      this.#residents.relist(chunk)
      return 0
    }
    buffer.purged = true
    this.#residents.discard(chunk, destination)
    this.#residents.counters.purgedPages += pages
    return pages
  }
}
