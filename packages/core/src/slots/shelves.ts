import { BitTree } from './bit-tree.ts'
import { lowestBit } from './bits.ts'
import { regionSlots } from './region.ts'

/** The highest shelf: regions that are wholly free. */
export const topShelf = Math.log2(regionSlots)

/** The shelf for a longest free run; −1 for a region without any. */
export function shelfOf(longest: number): number {
  return longest === 0 ? -1 : 31 - Math.clz32(longest)
}

/** Region numbers sorted by how long a run they may have: shelf k holds those of 2^k to 2^(k+1) − 1 slots. */
export class Shelves {
  readonly #shelves: BitTree[] = Array.from({ length: topShelf + 1 }, () => new BitTree())
  // Bit k: shelf k is not empty.
  #stocked = 0

  get inspectedWords(): number {
    return this.#shelves.reduce((words, shelf) => words + shelf.inspectedWords, 0)
  }

  /** The lowest shelf from `least` up that has a region, or −1. */
  lowestFrom(least: number): number {
    const fitting = this.#stocked & (-1 << least)
    return fitting === 0 ? -1 : lowestBit(fitting)
  }

  /** The highest shelf that has a region, or −1. */
  highest(): number {
    return shelfOf(this.#stocked)
  }

  /** The lowest region on a shelf that has one. */
  firstOn(shelf: number): number {
    return this.#shelves[shelf].least()
  }

  /** Moves a region from one shelf to another; −1 is no shelf. */
  move(region: number, from: number, to: number): void {
    if (from === to) return
    if (from >= 0) {
      this.#shelves[from].delete(region)
      if (this.#shelves[from].isEmpty) this.#stocked &= ~(1 << from)
    }
    if (to >= 0) {
      this.#shelves[to].add(region)
      this.#stocked |= 1 << to
    }
  }
}
