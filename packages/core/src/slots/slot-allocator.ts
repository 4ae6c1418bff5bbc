import type { HandleRun } from '../contract.ts'
import { assertKnownOptions } from '../validation.ts'
import { BitTree } from './bit-tree.ts'
import { lowestBit } from './bits.ts'
import { type FoundRun, Region, regionSlots } from './region.ts'

/**
 * Hands out the slots of one big address space (T84): a file, a memfd, a device.
 *
 *   free ── allocateRun ──▶ live ── retire ──▶ retired ── release ──▶ free
 *     ▲                       │                                        ▲
 *     └─────────────────── free(runs) = retire, then release at once ──┘
 *
 *   handle = generation × 2^slotBits + slot
 *
 * Every run gets the next generation, so a handle whose slot was reused since is known to be stale. Generations have
 * 24 bits (fewer above 2^28 slots) and start at random: a stale handle can be mistaken only after exactly 16.7 million
 * further runs, and another allocator's handle with a chance of one in 16.7 million.
 *
 * Space is divided into regions of 4096 slots. A region in use has a block of 12.8 kB: 3.125 bytes per live slot when
 * it is full, 3.3 with its objects. A region that is wholly free or was never used has none, so that free slots cost
 * at most one bit beside live neighbours and next to nothing elsewhere.
 *
 *   shelf 12   regions that are wholly free                       each shelf is a BitTree of region numbers
 *   shelf k    regions whose longest free run is at most 2^(k+1) − 1
 *   fresh      regions beyond the high-water mark
 *
 * A request of n slots takes the lowest region on the first shelf that fits, then fresh space, then whatever is
 * longest on the smaller shelves. The shelf is an upper bound: a search that disappoints moves the region down, and
 * only an allocation or a free in that region can have made the bound wrong. So every search is paid for by one
 * earlier call, and a call costs O(1) amortised plus a thirty-second of a word per slot.
 *
 * Fragmentation: freed neighbours join by themselves, since free space is bits; small requests fill the most broken
 * regions first and leave whole ones whole; runs longer than 4096 slots come only out of wholly free regions.
 */
export interface SlotAllocatorOptions {
  /** Slots there are: 1 to 2^40. */
  readonly capacitySlots: number
  /** Fixes the first generation, for tests and replays. Default: random. */
  readonly generationSeed?: number | undefined
}

const generationBits = 24
const shelfCount = Math.log2(regionSlots) + 1
const maxCapacitySlots = 2 ** 40

export class SlotAllocator {
  readonly capacitySlots: number
  /** Handles are `generation × slotRange + slot`; a power of two. */
  readonly slotRange: number
  readonly #maxGeneration: number
  readonly #regions: (Region | undefined)[] = []
  readonly #shelves: BitTree[] = Array.from({ length: shelfCount }, () => new BitTree())
  // Bit k: shelf k is not empty.
  #stocked = 0
  #generation: number
  #live = 0
  #retired = 0
  #highWater = 0
  #inspectedWords = 0
  // One block that became free is kept, so that a slot freed and taken in turn does not allocate each time.
  #spare: Region | undefined
  readonly #found: FoundRun = { slot: 0, count: 0, exhaustive: false }

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
    this.slotRange = 2 ** Math.ceil(Math.log2(capacitySlots))
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
    return this.#shelves.reduce((words, shelf) => words + shelf.inspectedWords, this.#inspectedWords)
  }

  /** Bytes of bookkeeping held now, objects not counted. */
  get metadataBytes(): number {
    let blocks = this.#spare === undefined ? 0 : 1
    for (const region of this.#regions) if (region !== undefined) blocks++
    return blocks * (regionSlots * 3 + regionSlots / 8) + this.#regions.length * 8
  }

  /**
   * Takes up to `wantedSlots` adjacent slots: the run is shorter when no such run is found quickly, `undefined` when
   * every slot is in use. The slots are live at once.
   */
  allocateRun(wantedSlots: number): HandleRun | undefined {
    if (!Number.isInteger(wantedSlots) || wantedSlots < 1) {
      throw new RangeError(`wantedSlots is ${wantedSlots}; it must be an integer of 1 or more`)
    }
    const slot = this.#findRun(wantedSlots)
    if (slot < 0) return undefined
    this.#generation = (this.#generation % this.#maxGeneration) + 1
    const count = this.#take(slot, Math.min(wantedSlots, this.#found.count), wantedSlots)
    this.#live += count
    this.#highWater = Math.max(this.#highWater, slot + count)
    return { first: this.#generation * this.slotRange + slot, count }
  }

  /** The slot of a handle; meaningful for handles that are live. */
  slotOf(handle: number): number {
    return handle - Math.floor(handle / this.slotRange) * this.slotRange
  }

  isLive(handle: number): boolean {
    return this.#firstNotLiveOf(handle, 1) === undefined
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
      this.release(slot, run.count)
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
    for (let slot = firstSlot; slot < firstSlot + count; slot += this.#partLength(slot, firstSlot + count)) {
      const length = this.#partLength(slot, firstSlot + count)
      const region = this.#regions[Math.floor(slot / regionSlots)]
      if (region === undefined || !region.isRetired(slot % regionSlots, length)) {
        throw new RangeError(`slots ${firstSlot} to ${firstSlot + count - 1} are not all retired`)
      }
    }
    this.#retired -= count
    let slot = firstSlot
    while (slot < firstSlot + count) {
      const length = this.#partLength(slot, firstSlot + count)
      this.#releasePart(Math.floor(slot / regionSlots), slot % regionSlots, length)
      slot += length
    }
  }

  /**
   * Live runs from the lowest slot on, each of one generation. Slots may be taken and freed while it runs: each is
   * told as it is when its region is reached.
   */
  *liveRuns(): Generator<HandleRun> {
    let first = 0
    let count = 0
    for (let number = 0; number < this.#regions.length; number++) {
      const region = this.#regions[number]
      if (region === undefined) continue
      for (let slot = 0; slot < regionSlots; slot++) {
        const generation = region.generationOf(slot)
        if (generation === 0) continue
        const handle = generation * this.slotRange + number * regionSlots + slot
        if (count > 0 && handle === first + count) {
          count++
          continue
        }
        if (count > 0) yield { first, count }
        first = handle
        count = 1
      }
    }
    if (count > 0) yield { first, count }
  }

  #firstNotLiveOf(first: number, count: number): number | undefined {
    const generation = Math.floor(first / this.slotRange)
    if (generation < 1 || generation > this.#maxGeneration) return first
    const firstSlot = first - generation * this.slotRange
    let slot = firstSlot
    while (slot < firstSlot + count) {
      const region = this.#regions[Math.floor(slot / regionSlots)]
      if (region === undefined) return first + slot - firstSlot
      const local = slot % regionSlots
      const length = this.#partLength(slot, firstSlot + count)
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
      const length = this.#partLength(slot, firstSlot + run.count)
      this.#regions[Math.floor(slot / regionSlots)]!.setGeneration(generation, slot % regionSlots, length)
      slot += length
    }
  }

  /** Slots from `slot` to the end of its region or to `end`, whichever comes first. */
  #partLength(slot: number, end: number): number {
    return Math.min(regionSlots - (slot % regionSlots), end - slot)
  }

  /** Where a run of at most `wanted` slots begins, its length in `#found`; −1 when there is none. */
  #findRun(wanted: number): number {
    const fit = Math.min(Math.ceil(Math.log2(wanted)), shelfCount - 1)
    const fitting = -1 << fit
    while ((this.#stocked & fitting) !== 0) {
      const slot = this.#search(lowestBit(this.#stocked & fitting), wanted)
      if (this.#found.count >= Math.min(wanted, 2 ** fit)) return slot
    }
    const fresh = this.#regions.length
    if (fresh * regionSlots < this.capacitySlots) {
      this.#found.count = this.#regionSize(fresh)
      return fresh * regionSlots
    }
    while (this.#stocked !== 0) {
      const shelf = 31 - Math.clz32(this.#stocked)
      const slot = this.#search(shelf, wanted)
      if (this.#found.count >= Math.min(wanted, 2 ** shelf)) return slot
    }
    return -1
  }

  /** Looks into the lowest region on a shelf, and moves it to a lower one when the shelf promised too much. */
  #search(shelf: number, wanted: number): number {
    const number = this.#shelves[shelf].least()
    const region = this.#regions[number]
    if (region === undefined) {
      this.#found.slot = 0
      this.#found.count = this.#regionSize(number)
    } else {
      this.#inspectedWords += region.find(wanted, this.#found)
      this.#reshelve(number, shelf, shelfOf(region.longestAtMost))
    }
    return number * regionSlots + this.#found.slot
  }

  /** Marks a found run live in the current generation; goes on into wholly free regions. Returns its length. */
  #take(firstSlot: number, count: number, wanted: number): number {
    let slot = firstSlot
    let length = count
    for (;;) {
      const number = Math.floor(slot / regionSlots)
      const region = this.#regions[number] ?? this.#open(number)
      const shelf = shelfOf(region.longestAtMost)
      region.markUsed(slot % regionSlots, length)
      region.setGeneration(this.#generation, slot % regionSlots, length)
      this.#reshelve(number, shelf, shelfOf(region.longestAtMost))
      slot += length
      const goesOn = slot % regionSlots === 0 && this.#regions[number + 1] === undefined
      length = goesOn ? Math.min(firstSlot + wanted - slot, this.#regionSize(number + 1)) : 0
      if (length <= 0) return slot - firstSlot
    }
  }

  #open(number: number): Region {
    const region = this.#spare ?? new Region()
    this.#spare = undefined
    const size = this.#regionSize(number)
    region.reset(size)
    if (number === this.#regions.length) {
      this.#regions.push(region)
      this.#reshelve(number, -1, shelfOf(size))
    } else {
      this.#regions[number] = region
    }
    return region
  }

  #releasePart(number: number, slot: number, count: number): void {
    const region = this.#regions[number]!
    const shelf = shelfOf(region.longestAtMost)
    region.markFree(slot, count)
    const size = this.#regionSize(number)
    if (region.freeCount === size) {
      this.#regions[number] = undefined
      this.#spare = region
    }
    this.#reshelve(number, shelf, shelfOf(region.freeCount === size ? size : region.longestAtMost))
  }

  #regionSize(number: number): number {
    return Math.min(regionSlots, this.capacitySlots - number * regionSlots)
  }

  #reshelve(number: number, from: number, to: number): void {
    if (from === to) return
    if (from >= 0) {
      this.#shelves[from].delete(number)
      if (this.#shelves[from].isEmpty) this.#stocked &= ~(1 << from)
    }
    if (to >= 0) {
      this.#shelves[to].add(number)
      this.#stocked |= 1 << to
    }
  }
}

/** The shelf for a longest free run; −1 for a region without any. */
function shelfOf(longest: number): number {
  return longest === 0 ? -1 : 31 - Math.clz32(longest)
}
