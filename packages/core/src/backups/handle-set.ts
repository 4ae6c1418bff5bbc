import { firstClearBit, setBits } from '../slots/bits.ts'

const blockHandles = 2 ** 16
/** As many as a group has bits for. */
const groupBlocks = 32

interface Group {
  /** A bit for each block all of whose handles are live. */
  whole: number
  /** The blocks some of whose handles are live, by their place in the group. */
  readonly broken: Map<number, Block>
}

interface Block {
  live: number
  /** A bit for each handle. */
  readonly bits: Uint32Array
}

/**
 * A set of handles that are given out in rising order and never again.
 *
 *   group of 2 million handles ─▶ 32 blocks: all live, none, or broken ─▶ a bit for each handle of a broken block
 *
 * Whatever is wholly live costs one map entry for every 2 million handles, so that finding one of a great many is no
 * slower than finding one of a few: all that has to be looked at stays in the processor's cache. Blocks that are wholly
 * dropped cost nothing.
 */
export class HandleSet {
  readonly #groups = new Map<number, Group>()

  add(first: number, count: number): void {
    const end = first + count
    for (let at = first; at < end; at = nextBlock(at)) {
      const [number, place, offset] = [groupOf(at), placeOf(at), at % blockHandles]
      let group = this.#groups.get(number)
      if (group === undefined) {
        group = { whole: 0, broken: new Map() }
        this.#groups.set(number, group)
      }
      let block = group.broken.get(place)
      if (block === undefined) {
        block = { live: 0, bits: new Uint32Array(blockHandles / 32) }
        group.broken.set(place, block)
      }
      const length = Math.min(blockHandles - offset, end - at)
      setBits(block.bits, offset, length, true)
      block.live += length
      if (block.live < blockHandles) continue
      group.whole |= 1 << place
      group.broken.delete(place)
    }
  }

  /** Removes these handles, all of which are in the set. */
  delete(first: number, count: number): void {
    const end = first + count
    for (let at = first; at < end; at = nextBlock(at)) {
      const [number, place, offset] = [groupOf(at), placeOf(at), at % blockHandles]
      const group = this.#groups.get(number)!
      let block = group.broken.get(place)
      if (block === undefined) {
        block = { live: blockHandles, bits: new Uint32Array(blockHandles / 32).fill(0xffffffff) }
        group.broken.set(place, block)
        group.whole &= ~(1 << place)
      }
      const length = Math.min(blockHandles - offset, end - at)
      setBits(block.bits, offset, length, false)
      block.live -= length
      if (block.live > 0) continue
      group.broken.delete(place)
      if (group.whole === 0 && group.broken.size === 0) this.#groups.delete(number)
    }
  }

  /** The first of these handles that is not in the set, or `undefined`. */
  firstMissing(first: number, count: number): number | undefined {
    const end = first + count
    for (let at = first; at < end; at = nextBlock(at)) {
      const group = this.#groups.get(groupOf(at))
      if (group === undefined) return at
      const place = placeOf(at)
      if ((group.whole & (1 << place)) !== 0) continue
      const block = group.broken.get(place)
      if (block === undefined) return at
      const offset = at % blockHandles
      const clear = firstClearBit(block.bits, offset, Math.min(blockHandles - offset, end - at))
      if (clear >= 0) return at - offset + clear
    }
    return undefined
  }

  clear(): void {
    this.#groups.clear()
  }
}

function groupOf(handle: number): number {
  return Math.floor(handle / (blockHandles * groupBlocks))
}

function placeOf(handle: number): number {
  return Math.floor(handle / blockHandles) % groupBlocks
}

/** The first handle of the block after this one's. */
function nextBlock(handle: number): number {
  return (Math.floor(handle / blockHandles) + 1) * blockHandles
}
