import { type FoundRun, Region, regionSlots } from './region.ts'
import { Shelves, shelfOf, topShelf } from './shelves.ts'

// A call that is disappointed this often takes the best it saw: a longer run may exist, but not within O(1).
const disappointmentsPerCall = 8

/**
 * Where there is room, for a SlotAllocator. Space is divided into regions of 4096 slots; one that is wholly free, or
 * was never used, has no bookkeeping at all.
 *
 *   shelf 12   regions that are wholly free
 *   shelf k    regions whose longest free run has at most 2^(k+1) − 1 slots
 *   fresh      regions beyond all that were ever used
 *
 * A request of n slots takes the lowest region on the first shelf that fits, then fresh space, then what is longest on
 * the smaller shelves. A shelf is an upper bound: a search that disappoints moves its region down, and only a call that
 * took or freed something there can have made the bound wrong. So every disappointment is paid for by an earlier call,
 * and a call costs O(1) amortised plus a word per 32 slots; `inspectedWords` counts it.
 *
 * Fragmentation: freed neighbours join by themselves, since free space is bits. Small requests fill the most broken
 * regions first and leave whole ones whole. Runs longer than 4096 slots come only from a run of wholly free regions;
 * when every second page is live, runs have one page, whatever is asked for.
 */
export class FreeSpace {
  /** Length of the run that `take` returned last. */
  takenCount = 0
  readonly #capacitySlots: number
  readonly #regions: (Region | undefined)[] = []
  readonly #shelves = new Shelves()
  readonly #found: FoundRun = { slot: 0, count: 0 }
  // One block that became free is kept, so that a slot taken and freed in turn does not allocate each time.
  #spare: Region | undefined
  #inspectedWords = 0

  constructor(capacitySlots: number) {
    this.#capacitySlots = capacitySlots
  }

  get inspectedWords(): number {
    return this.#inspectedWords + this.#shelves.inspectedWords
  }

  /** Bytes of all blocks, and eight for each region ever used. */
  get metadataBytes(): number {
    let blocks = this.#spare?.bytes ?? 0
    for (const region of this.#regions) blocks += region?.bytes ?? 0
    return blocks + this.#regions.length * 8
  }

  /** The region that a slot lies in; `undefined` when nothing in it is in use. */
  regionAt(slot: number): Region | undefined {
    return this.#regions[Math.floor(slot / regionSlots)]
  }

  /** Takes up to `wanted` adjacent slots for a generation: returns the first, −1 when there is none. */
  take(wanted: number, generation: number): number {
    const firstSlot = this.#findRun(wanted)
    if (firstSlot < 0) return -1
    let slot = firstSlot
    let length = Math.min(wanted, this.#found.count)
    while (length > 0) {
      this.#takePart(slot, length, generation)
      slot += length
      // A run that reaches the end of its region goes on into the next when that is wholly free.
      const goesOn = slot % regionSlots === 0 && this.#regions[slot / regionSlots] === undefined
      length = goesOn
        ? Math.min(firstSlot + wanted - slot, this.#regionSize(Math.floor(slot / regionSlots)))
        : 0
    }
    this.takenCount = slot - firstSlot
    return firstSlot
  }

  /** Takes the free slots from `firstSlot` on, at most `wanted`, up to the end of a region that was used before. */
  takeAt(firstSlot: number, wanted: number, generation: number): number {
    const number = Math.floor(firstSlot / regionSlots)
    this.takenCount = 0
    if (number >= this.#regions.length) return -1
    const local = firstSlot % regionSlots
    const length = Math.min(wanted, this.#regionSize(number) - local)
    const count = this.#regions[number]?.freeFrom(local, length) ?? length
    if (count <= 0) return -1
    this.#takePart(firstSlot, count, generation)
    this.takenCount = count
    return firstSlot
  }

  /** Takes exactly these slots, in regions that need not have been used before; false, and takes none, when one is not free. */
  takeExactly(firstSlot: number, count: number, generation: number): boolean {
    if (count === 1 && this.regionAt(firstSlot) !== undefined) return this.#takeOne(firstSlot, generation)
    const end = firstSlot + count
    for (let slot = firstSlot; slot < end; slot += partLength(slot, end)) {
      const length = partLength(slot, end)
      const region = this.regionAt(slot)
      if (region !== undefined && region.freeFrom(slot % regionSlots, length) < length) return false
    }
    for (let slot = firstSlot; slot < end; slot += partLength(slot, end)) {
      while (this.#regions.length <= Math.floor(slot / regionSlots)) {
        const fresh = this.#regions.length
        this.#regions.push(undefined)
        this.#shelves.move(fresh, -1, shelfOf(this.#regionSize(fresh)))
      }
      this.#takePart(slot, partLength(slot, end), generation)
    }
    return true
  }

  /** The same for one slot of a region in use: images of single pages have millions of them. */
  #takeOne(slot: number, generation: number): boolean {
    const number = Math.floor(slot / regionSlots)
    const region = this.#regions[number]!
    const longestBefore = region.longestAtMost
    if (!region.takeOne(slot - number * regionSlots, generation)) return false
    const longest = region.longestAtMost
    if (longest !== longestBefore) this.#shelves.move(number, shelfOf(longestBefore), shelfOf(longest))
    return true
  }

  /** Whether all these slots are taken, and none of them is live. */
  isRetired(firstSlot: number, count: number): boolean {
    const end = firstSlot + count
    for (let slot = firstSlot; slot < end; ) {
      const length = partLength(slot, end)
      if (this.regionAt(slot)?.isRetired(slot % regionSlots, length) !== true) return false
      slot += length
    }
    return true
  }

  /** Makes retired slots free. */
  release(firstSlot: number, count: number): void {
    const end = firstSlot + count
    for (let slot = firstSlot; slot < end; ) {
      const length = partLength(slot, end)
      this.#releasePart(Math.floor(slot / regionSlots), slot % regionSlots, length)
      slot += length
    }
  }

  /** Where a run of at most `wanted` slots begins, its length in `#found`; −1 when there is none. */
  #findRun(wanted: number): number {
    const found = this.#found
    const fit = Math.min(Math.ceil(Math.log2(wanted)), topShelf)
    let best = -1
    let bestCount = 0
    for (let disappointments = 0; disappointments <= disappointmentsPerCall; disappointments++) {
      let shelf = this.#shelves.lowestFrom(fit)
      if (shelf < 0) {
        if (this.#findFresh()) return this.#regions.length * regionSlots
        shelf = this.#shelves.highest()
        if (shelf < 0) return -1
      }
      const slot = this.#search(shelf, wanted)
      if (found.count >= Math.min(wanted, 2 ** Math.min(fit, shelf))) return slot
      if (found.count > bestCount) {
        best = slot
        bestCount = found.count
      }
    }
    if (this.#findFresh()) return this.#regions.length * regionSlots
    found.count = bestCount
    return best
  }

  #findFresh(): boolean {
    this.#found.count = this.#regionSize(this.#regions.length)
    return this.#found.count > 0
  }

  /** Looks into the lowest region on a shelf, and moves it to a lower one when the shelf promised too much. */
  #search(shelf: number, wanted: number): number {
    const number = this.#shelves.firstOn(shelf)
    const region = this.#regions[number]
    if (region === undefined) {
      this.#found.slot = 0
      this.#found.count = this.#regionSize(number)
    } else {
      this.#inspectedWords += region.find(wanted, this.#found)
      this.#shelves.move(number, shelf, shelfOf(region.longestAtMost))
    }
    return number * regionSlots + this.#found.slot
  }

  #open(number: number): Region {
    const region = this.#spare ?? new Region()
    this.#spare = undefined
    const size = this.#regionSize(number)
    region.reset(size)
    if (number === this.#regions.length) {
      this.#regions.push(region)
      this.#shelves.move(number, -1, shelfOf(size))
    } else {
      this.#regions[number] = region
    }
    return region
  }

  /** Marks free slots of one region as live. */
  #takePart(slot: number, count: number, generation: number): void {
    const number = Math.floor(slot / regionSlots)
    const region = this.#regions[number] ?? this.#open(number)
    const shelf = shelfOf(region.longestAtMost)
    region.markUsed(slot % regionSlots, count)
    region.setGeneration(generation, slot % regionSlots, count)
    this.#shelves.move(number, shelf, shelfOf(region.longestAtMost))
  }

  #releasePart(number: number, slot: number, count: number): void {
    const region = this.#regions[number]!
    const shelf = shelfOf(region.longestAtMost)
    region.markFree(slot, count)
    if (region.freeCount === this.#regionSize(number)) {
      this.#regions[number] = undefined
      this.#spare = region
    }
    this.#shelves.move(number, shelf, shelfOf(region.longestAtMost))
  }

  #regionSize(number: number): number {
    return Math.max(0, Math.min(regionSlots, this.#capacitySlots - number * regionSlots))
  }
}

/** Slots from `slot` to the end of its region or to `end`, whichever comes first. */
export function partLength(slot: number, end: number): number {
  return Math.min(regionSlots - (slot % regionSlots), end - slot)
}
