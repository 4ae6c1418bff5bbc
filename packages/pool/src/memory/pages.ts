import { pace } from '../ground/pace.ts'
import { warn } from '../ground/trace.ts'
import { cachings, type PageProvider } from '../providers/provider.ts'
import { FrameStack } from './frame-stack.ts'
import type { ResidentLimit } from './resident-limit.ts'
import { Slabs } from './slabs.ts'

/**
 * The pool's pages: free lists per (caching, order) over the slabs (T14–T21).
 *
 *   allocate ◀── free list ◀── free (up to idleLimitPages stay, warm)
 *      ▲                          │
 *      └──────── slabs ◀──────────┘ trim, release
 *
 * Resident pages — in use, idle in a free list, stranded in a slab — never exceed the limit, alone or with other memories of
 * one budget: whoever takes memory from the system first has idle memory of other kinds given back, and gets a lower order
 * when even that leaves no room.
 * What a provider does not take back stays idle, counted and usable as what it is, and is offered again later.
 *
 * No page is handed out with old bytes in it (T16): every taken chunk says whether it is all zeros, and whoever hands it
 * on zeroes it unless it overwrites the whole. So memory that goes from an eviction straight into a restore is not
 * cleared in between, and 2 MiB chunks move at the speed of the lists.
 */
export class Pages {
  readonly slabs: Slabs
  readonly limit: ResidentLimit
  idleLimitPages: number
  /** Told of memory that is to go to the system unless somebody takes it soon. */
  onUnwanted: () => void = () => {}
  /** Pages in chunks that are handed out. */
  inUsePages = 0
  /** Pages in free lists. */
  idlePages = 0
  /** Of these, pages that were freed a moment ago and may be wanted again at once: else they go to the system. */
  retainedPages = 0
  /** Order worth reclaiming for; 0 means none (T23, B10). */
  beneficialOrder = 0
  /** Set while somebody takes memory who would rather fail than have the provider try hard (T45, B11). */
  retryMayFail = false
  /** Calls in which a provider failed to take memory back or to end a mapping. */
  providerFailures = 0
  /** Pages that should have gone to the system at once (`release`) and stayed idle. */
  unreleasedPages = 0
  /** What the last `allocate` gave. */
  takenOrder = 0
  takenZero = false
  /** Whether the chunk has the caching asked for already, because it was idle; else it is `cached` (T24). */
  takenConverted = false
  /** By caching × order: frame × 2 + 1 when the chunk is known to be all zeros. */
  readonly #lists: FrameStack[]
  /** Providers that failed last: each failure is counted, the first told. */
  readonly #failing = new Set<PageProvider>()
  #rotation = 0
  #pacedTrims = 0
  /** How few pages have been idle, and how few of these retained, since `watchIdle`. */
  #leastIdlePages = 0
  #leastRetainedPages = 0

  constructor(pageSizeBytes: number, maxOrder: number, limit: ResidentLimit, idleLimitPages: number) {
    this.slabs = new Slabs(pageSizeBytes, maxOrder === 0 ? singlesSlabOrder : maxOrder)
    this.limit = limit
    limit.add(this)
    this.idleLimitPages = idleLimitPages
    this.#lists = Array.from({ length: cachings.length * (this.slabs.maxOrder + 1) }, () => new FrameStack())
  }

  /** Pages that hold memory: what the limit is about. */
  get residentPages(): number {
    return this.inUsePages + this.idlePages + this.slabs.strandedPages
  }

  get residentBytes(): number {
    return this.residentPages * this.slabs.pageSizeBytes
  }

  /**
   * Takes a chunk of at most 2^order pages: of this order if it can be had, else of the next lower (T20, T21). Returns
   * its frame and leaves the order in `takenOrder`, and in `takenZero` whether it is all zeros; −1 when there is no page.
   */
  allocate(order: number, caching = 0): number {
    for (let wanted = order; wanted >= 0; wanted--) {
      const entry = this.#list(caching, wanted).pop()
      if (entry >= 0) {
        this.#idleTaken(1 << wanted)
        this.inUsePages += 1 << wanted
        this.takenOrder = wanted
        this.takenZero = (entry & 1) === 1
        this.takenConverted = true
        return entry >> 1
      }
      const frame = this.#takeFromSystem(wanted)
      if (frame >= 0) {
        this.inUsePages += 1 << wanted
        this.takenOrder = wanted
        this.takenConverted = caching === 0
        return frame
      }
    }
    return -1
  }

  /** Takes a chunk back into its free list (T16), or gives it to the system when enough pages are idle. */
  free(frame: number, order: number, zero: boolean, caching = 0): void {
    const idlePages = this.idlePages - this.retainedPages + (1 << order)
    if (idlePages > this.idleLimitPages || !this.slabs.isIntact(frame)) {
      this.release(frame, order, caching)
      return
    }
    this.keep(frame, order, zero, caching)
  }

  /** Takes a chunk back into its free list although enough pages are idle: somebody is about to take it. */
  keep(frame: number, order: number, zero: boolean, caching = 0): void {
    if (!this.slabs.isIntact(frame)) {
      this.release(frame, order, caching)
      return
    }
    this.inUsePages -= 1 << order
    this.idlePages += 1 << order
    this.#list(caching, order).push(frame * 2 + (zero ? 1 : 0))
  }

  /** Takes a chunk back that may be wanted again in a moment; if it is not, it goes to the system. */
  retain(frame: number, order: number, zero: boolean, caching = 0): void {
    // Memory of a former provider goes back to it.
    if (this.slabs.providerOf(frame) !== this.slabs.provider) {
      this.release(frame, order, caching)
      return
    }
    const before = this.idlePages
    this.keep(frame, order, zero, caching)
    if (this.idlePages > before) this.retainedPages += 1 << order
    this.onUnwanted()
  }

  /** Begins to notice how much stays idle, and how much of that is retained. */
  watchIdle(): void {
    this.#leastIdlePages = this.idlePages
    this.#leastRetainedPages = this.retainedPages
  }

  /** Pages that stayed idle since `watchIdle` and should not: what is retained, and what is more than may be idle. */
  get unwantedPages(): number {
    return Math.max(this.#leastRetainedPages, this.#leastIdlePages - this.idleLimitPages, 0)
  }

  /** Whether there is memory that is to go to the system unless somebody takes it soon. */
  get hasUnwanted(): boolean {
    return this.retainedPages > 0 || this.idlePages > this.idleLimitPages
  }

  /** Gives a chunk to the system at once (T36), with its caching set back (T82, I5). */
  release(frame: number, order: number, caching = 0): void {
    this.inUsePages -= 1 << order
    if (!this.#give(frame, order, caching)) this.unreleasedPages += 1 << order
  }

  /** A provider failed at what must not fail: the pool goes on as it says where it asked, and tells of it. */
  noteProviderFailure(provider: PageProvider, what: string, failure: unknown): void {
    this.providerFailures++
    if (this.#failing.has(provider)) return
    this.#failing.add(provider)
    warn('SPILLWAY_PROVIDER_FAILED', `page provider ${provider.name} failed to ${what}`, String(failure))
  }

  /**
   * One step of the pool shrinker: gives one idle chunk to the system and turns to the next list (T29). Returns the pages
   * given, 0 when nothing is idle, or no provider takes any of it.
   */
  shrinkStep(): number {
    for (let tried = 0; tried < this.#lists.length; tried++) {
      const index = this.#rotation
      this.#rotation = (this.#rotation + 1) % this.#lists.length
      const order = index % (this.slabs.maxOrder + 1)
      const caching = Math.floor(index / (this.slabs.maxOrder + 1))
      // Each chunk once: what is not taken goes to the list's other end.
      for (let left = this.#lists[index]!.length; left > 0; left--) {
        const entry = this.#lists[index]!.pop()
        this.#idleTaken(1 << order)
        if (this.#give(entry >> 1, order, caching)) return 1 << order
      }
    }
    return 0
  }

  /** Gives idle chunks to the system until at most `idlePages` are left; returns the pages given (T28, T30). */
  trim(idlePages: number): number {
    let given = 0
    while (this.idlePages > idlePages) {
      const step = this.shrinkStep()
      if (step === 0) break
      given += step
    }
    return given
  }

  /** Gives idle chunks to the system, at least `wanted` pages if there are as many, without blocking the event loop. */
  async trimPaced(wanted: number): Promise<number> {
    this.#pacedTrims++
    let given = 0
    while (given < wanted) {
      const step = this.shrinkStep()
      if (step === 0) break
      given += step
      const turn = pace()
      if (turn !== undefined) await turn
    }
    this.#pacedTrims--
    return given
  }

  /** Whether somebody gives idle chunks to the system, and will say how many. */
  get isTrimmed(): boolean {
    return this.#pacedTrims > 0
  }

  /** Memory that nobody takes soon is to go to the system. */
  trimSoon(): void {
    if (this.hasUnwanted) this.onUnwanted()
  }

  /** The pool ends: gives all it can to the system, blocks without memory included. */
  end(): void {
    this.trim(0)
    this.slabs.closeUnused((provider, failure) =>
      this.noteProviderFailure(provider, 'take memory back', failure),
    )
  }

  /** Chunks in one free list. */
  listLength(caching: number, order: number): number {
    return this.#list(caching, order).length
  }

  #idleTaken(pages: number): void {
    this.idlePages -= pages
    this.retainedPages = Math.max(0, this.retainedPages - pages)
    this.#leastIdlePages = Math.min(this.#leastIdlePages, this.idlePages)
    this.#leastRetainedPages = Math.min(this.#leastRetainedPages, this.retainedPages)
  }

  /** Gives a chunk to the system; says false when its provider does not take it, and it is idle instead. */
  #give(frame: number, order: number, caching: number): boolean {
    const { slabs } = this
    const provider = slabs.providerOf(frame)
    let cachingNow = caching
    try {
      if (caching !== 0) provider.setCaching!([slabs.run(frame, 1 << order)], 'cached')
      cachingNow = 0
      slabs.give(frame, order)
    } catch (failure) {
      this.noteProviderFailure(provider, 'take memory back', failure)
      this.idlePages += 1 << order
      this.#list(cachingNow, order).putLast(frame * 2)
      return false
    }
    if (this.#failing.size > 0) this.#failing.delete(provider)
    return true
  }

  #list(caching: number, order: number): FrameStack {
    return this.#lists[caching * (this.slabs.maxOrder + 1) + order]!
  }

  #takeFromSystem(order: number): number {
    const { slabs } = this
    const piece = slabs.takePiece(order)
    const frame = piece < 0 ? -1 : this.#admit(piece, order)
    if (frame >= 0) return frame
    const room = this.#makeRoom(1 << order)
    // Idle memory that was given back for it may be just such a piece: resident still, and with old bytes in it.
    const givenBack = slabs.takePiece(order)
    if (givenBack >= 0) return this.#admit(givenBack, order)
    if (!room) return -1
    this.takenZero = true
    const retryMayFail = this.retryMayFail || (order > 0 && order !== this.beneficialOrder)
    if (order === slabs.maxOrder) return slabs.takeSlab(order, retryMayFail)
    return this.#carve(order, retryMayFail)
  }

  /** A free piece of a slab that exists, if it may be used: one of a page-exact slab holds no memory until it is. */
  #admit(piece: number, order: number): number {
    const { slabs } = this
    this.takenZero = slabs.isExact(piece)
    if (!this.takenZero || this.#makeRoom(1 << order)) return piece
    slabs.untake(piece, order)
    return -1
  }

  /** A new slab, as large as the room allows where free pieces count as resident, and the piece out of it. */
  #carve(order: number, retryMayFail: boolean): number {
    const { slabs } = this
    const exact = slabs.provider?.capabilities.pageExactRelease ?? false
    for (let slabOrder = slabs.maxOrder; slabOrder >= order; slabOrder--) {
      if (!exact && !this.limit.hasRoom(slabs.pageSizeBytes * 2 ** slabOrder)) continue
      if (slabs.addSlab(slabOrder, retryMayFail)) return slabs.takePiece(order)
    }
    return -1
  }

  #makeRoom(pages: number): boolean {
    return this.limit.makeRoom(pages * this.slabs.pageSizeBytes, this)
  }
}

/** Single pages are carved out of blocks of 64: a block takes two objects, 360 bytes, that single pages must not cost each. */
const singlesSlabOrder = 6
