import type { HandleRun } from '../contract.ts'
import { assertKnownOptions } from '../validation.ts'
import { FreeSpace, partLength } from './free-space.ts'
import { regionSlots } from './region.ts'

/**
 * Hands out the slots of one big address space (T84): a file, a memfd, a device.
 *
 *   free ── allocateRun ──▶ live ── retire ──▶ retired ── release ──▶ free
 *                             └───────── free = retire, then release ──┘
 *
 *   handle = generation × slotRange + slot
 *
 * Every run gets the next generation, so a handle whose slot was reused since is known to be stale. Generations have
 * 24 bits (fewer above 2^28 slots) and start at random: a stale handle can be mistaken only after exactly 16.7 million
 * further runs, and another allocator's handle with a chance of one in 16.7 million.
 *
 * Bookkeeping is 0.4 bytes per live slot when regions of 4096 slots are full of long runs, 3.4 when of short ones; 1.5 kB
 * for a region with a single live slot, one bit for a free slot beside live ones, and next to nothing for slots never used or
 * in wholly free regions.
 */
export interface SlotAllocatorOptions {
  /** Slots there are: 1 to 2^40. */
  readonly capacitySlots: number
  /** Fixes the first generation, for tests and replays. Default: random. */
  readonly generationSeed?: number | undefined
}

const generationBits = 24
const maxCapacitySlots = 2 ** 40

export class SlotAllocator {
  readonly capacitySlots: number
  /** Handles are `generation × slotRange + slot`; a power of two. */
  readonly slotRange: number
  readonly #maxGeneration: number
  readonly #space: FreeSpace
  #generation: number
  #live = 0
  #retired = 0
  #highWater = 0

  constructor(options: SlotAllocatorOptions) {
    assertKnownOptions(options, ['capacitySlots', 'generationSeed'], 'SlotAllocator')
    const { capacitySlots, generationSeed } = options
    if (!Number.isInteger(capacitySlots) || capacitySlots < 1 || capacitySlots > maxCapacitySlots) {
      throw new RangeError(`capacitySlots is ${capacitySlots}; it must be an integer from 1 to 2^40`)
    }
    if (generationSeed !== undefined && (!Number.isSafeInteger(generationSeed) || generationSeed < 0)) {
      throw new RangeError(`generationSeed is ${generationSeed}; it must be an integer of 0 or more`)
    }
    this.capacitySlots = capacitySlots
    // At least one number of each generation is never a handle: so handles of two generations are never adjacent, and a
    // caller may join runs whose numbers are.
    this.slotRange = 2 ** Math.ceil(Math.log2(capacitySlots + 1))
    this.#space = new FreeSpace(capacitySlots)
    this.#maxGeneration = Math.min(2 ** generationBits, 2 ** 52 / this.slotRange) - 1
    this.#generation =
      (generationSeed ?? Math.floor(Math.random() * this.#maxGeneration)) % this.#maxGeneration
  }

  get liveSlots(): number {
    return this.#live
  }

  /** Slots that could be handed out now: neither live nor retired. */
  get freeSlots(): number {
    return this.capacitySlots - this.#live - this.#retired
  }

  /** No slot at or beyond this one was ever handed out. */
  get highWaterSlots(): number {
    return this.#highWater
  }

  /** Words of bookkeeping that searches have read so far: what a test counts instead of time. */
  get inspectedWords(): number {
    return this.#space.inspectedWords
  }

  /** Bytes of bookkeeping held now, objects not counted. */
  get metadataBytes(): number {
    return this.#space.metadataBytes
  }

  /**
   * Takes up to `wantedSlots` adjacent slots: the run is shorter when no such run is found quickly, `undefined` when
   * every slot is in use. The slots are live at once.
   */
  allocateRun(wantedSlots: number): HandleRun | undefined {
    assertWantedSlots(wantedSlots)
    const generation = this.#nextGeneration()
    return this.#taken(this.#space.take(wantedSlots, generation), generation)
  }

  /**
   * Takes the free slots from `firstSlot` on, at most `wantedSlots` of them: for a caller that knows which free slots have
   * storage. The run may be shorter; `undefined` when `firstSlot` is not free or was never handed out.
   */
  allocateAt(firstSlot: number, wantedSlots: number): HandleRun | undefined {
    if (!Number.isInteger(firstSlot) || firstSlot < 0 || firstSlot >= this.capacitySlots) {
      throw new RangeError(`firstSlot is ${firstSlot}; it must be an integer below ${this.capacitySlots}`)
    }
    assertWantedSlots(wantedSlots)
    const generation = this.#nextGeneration()
    return this.#taken(this.#space.takeAt(firstSlot, wantedSlots, generation), generation)
  }

  /** Generation of the run that was handed out last; an allocator with it as `generationSeed` goes on after it. */
  get generation(): number {
    return this.#generation
  }

  /**
   * Makes these handles live again, as they were in another allocator of the same capacity; those that are stay so. Throws
   * `RangeError` for what can be no handle, and for a slot that is in use under another one.
   */
  adopt(first: number, count: number): void {
    const generation = Math.floor(first / this.slotRange)
    const firstSlot = this.slotOf(first)
    const isHandle = generation >= 1 && generation <= this.#maxGeneration
    if (!isHandle || firstSlot + count > this.capacitySlots)
      throw new RangeError(`${count} handles from ${first} on are not of this allocator`)
    if (this.#space.takeExactly(firstSlot, count, generation)) {
      this.#live += count
      this.#highWater = Math.max(this.#highWater, firstSlot + count)
    } else if (count > 1) {
      // Some of them are in use.
      for (let handle = first; handle < first + count; handle++) this.adopt(handle, 1)
    } else if (!this.isLive(first)) {
      throw new RangeError(`the slot of handle ${first} is in use under another one`)
    }
  }

  /** The slot of a handle; meaningful for handles that are live. */
  slotOf(handle: number): number {
    return handle - Math.floor(handle / this.slotRange) * this.slotRange
  }

  /** Whether `count` adjacent handles from this one on are live. */
  isLive(handle: number, count = 1): boolean {
    return this.#firstNotLiveOf(handle, count) === undefined
  }

  /** The first handle that is not live, or `undefined` when all are. Allocates nothing. */
  firstNotLive(runs: readonly HandleRun[]): number | undefined {
    for (let index = 0; index < runs.length; index++) {
      const stale = this.#firstNotLiveOf(runs[index].first, runs[index].count)
      if (stale !== undefined) return stale
    }
    return undefined
  }

  /** Retires and releases in one step: all the runs, or none when one handle is not live; returns that handle. */
  free(runs: readonly HandleRun[], onFreed?: (firstSlot: number, count: number) => void): number | undefined {
    const stale = this.retire(runs)
    if (stale !== undefined) return stale
    let first = 0
    let count = 0
    for (const run of runs) {
      const slot = this.slotOf(run.first)
      this.#retired -= run.count
      this.#space.release(slot, run.count)
      if (count > 0 && slot === first + count) {
        count += run.count
        continue
      }
      if (count > 0) onFreed?.(first, count)
      first = slot
      count = run.count
    }
    if (count > 0) onFreed?.(first, count)
    return undefined
  }

  /** `free` for one run. */
  freeRun(run: HandleRun): number | undefined {
    return this.free([run])
  }

  /**
   * Makes these handles stale, all of them or none: returns the first that is not live, a repeated one included.
   * Their slots stay taken until `release`, for backends that still read or punch there.
   */
  retire(runs: readonly HandleRun[]): number | undefined {
    for (let index = 0; index < runs.length; index++) {
      const { first, count } = runs[index]
      const stale = this.#firstNotLiveOf(first, count)
      if (stale !== undefined) {
        // The handles carry the generation, so that what was cleared can be written again.
        for (const run of runs.slice(0, index))
          this.#setGeneration(run, Math.floor(run.first / this.slotRange))
        return stale
      }
      this.#setGeneration(runs[index], 0)
    }
    for (const run of runs) {
      this.#live -= run.count
      this.#retired += run.count
    }
    return undefined
  }

  /** Makes retired slots free again. Throws `RangeError`, and frees none, when one of them is not retired. */
  release(firstSlot: number, count: number): void {
    if (!this.#space.isRetired(firstSlot, count)) {
      throw new RangeError(`slots ${firstSlot} to ${firstSlot + count - 1} are not all retired`)
    }
    this.#retired -= count
    this.#space.release(firstSlot, count)
  }

  /**
   * Live runs from the lowest slot on, each of one generation. Slots may be taken and freed while it runs: each is
   * told as it is when its region is reached.
   */
  *liveRuns(): Generator<HandleRun> {
    let first = 0
    let count = 0
    for (let start = 0; start < this.#highWater; start += regionSlots) {
      const region = this.#space.regionAt(start)
      if (region === undefined) continue
      for (let slot = region.nextLive(0); slot < regionSlots; slot = region.nextLive(slot + 1)) {
        const generation = region.generationOf(slot)
        const handle = generation * this.slotRange + start + slot
        const end = region.firstNotOf(generation, slot, regionSlots - slot)
        const length = (end < 0 ? regionSlots : end) - slot
        if (count > 0 && handle === first + count) {
          count += length
        } else {
          if (count > 0) yield { first, count }
          first = handle
          count = length
        }
        slot += length - 1
      }
    }
    if (count > 0) yield { first, count }
  }

  #nextGeneration(): number {
    return (this.#generation % this.#maxGeneration) + 1
  }

  /** Counts what the free space gave, and names it; `slot` is −1 when it gave nothing. */
  #taken(slot: number, generation: number): HandleRun | undefined {
    if (slot < 0) return undefined
    const count = this.#space.takenCount
    this.#generation = generation
    this.#live += count
    this.#highWater = Math.max(this.#highWater, slot + count)
    return { first: generation * this.slotRange + slot, count }
  }

  #firstNotLiveOf(first: number, count: number): number | undefined {
    const generation = Math.floor(first / this.slotRange)
    if (generation < 1 || generation > this.#maxGeneration) return first
    const firstSlot = first - generation * this.slotRange
    let slot = firstSlot
    while (slot < firstSlot + count) {
      const region = this.#space.regionAt(slot)
      if (region === undefined) return first + slot - firstSlot
      const local = slot % regionSlots
      const length = partLength(slot, firstSlot + count)
      const wrong = region.firstNotOf(generation, local, length)
      if (wrong >= 0) return first + slot - firstSlot + wrong - local
      slot += length
    }
    return undefined
  }

  #setGeneration(run: HandleRun, generation: number): void {
    const firstSlot = this.slotOf(run.first)
    let slot = firstSlot
    while (slot < firstSlot + run.count) {
      const length = partLength(slot, firstSlot + run.count)
      this.#space.regionAt(slot)!.setGeneration(generation, slot % regionSlots, length)
      slot += length
    }
  }
}

function assertWantedSlots(wantedSlots: number): void {
  if (!Number.isInteger(wantedSlots) || wantedSlots < 1) {
    throw new RangeError(`wantedSlots is ${wantedSlots}; it must be an integer of 1 or more`)
  }
}
