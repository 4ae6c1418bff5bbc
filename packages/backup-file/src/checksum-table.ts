import { randomBytes } from 'node:crypto'
import type { HandleRuns } from '@spillway/core'
import { pageSum } from './page-sum.ts'

const blockSlots = 2 ** 16

/**
 * The sum of each stored page, in memory, 4 bytes a slot in blocks that come with the first slot used in them.
 *
 * Each is kept mixed with a number made of the backup's salt and the page's handle, which has slot and generation in
 * it, so a sum vouches for one page under one handle: what another slot holds, an earlier use of this one left, or another
 * backup wrote does not match, nor do zeros.
 */
export class ChecksumTable {
  readonly #salt: number
  readonly #blocks: (Int32Array | undefined)[] = []

  /** `salt` has 32 bits. Default: random. */
  constructor(salt = randomBytes(4).readUInt32LE()) {
    this.#salt = salt
  }

  /** What is kept of these pages, in order: sums that `restore` takes. */
  sumsOf(runs: HandleRuns, slotOf: (handle: number) => number): Int32Array {
    const sums = new Int32Array(runs.handleCount)
    let done = 0
    for (let run = 0; run < runs.length; run++) {
      const slot = slotOf(runs.firsts[run]!)
      for (let at = slot; at < slot + runs.countOf(run); at++)
        sums[done++] = this.#blockFor(at)[at % blockSlots]!
    }
    return sums
  }

  /** Takes over sums that `sumsOf` gave, as words of 32 bits with the lowest byte first. */
  restore(runs: HandleRuns, sums: Uint8Array, slotOf: (handle: number) => number): void {
    const words = new DataView(sums.buffer, sums.byteOffset, sums.byteLength)
    const { firsts } = runs
    let at = 0
    for (let run = 0; run < firsts.length; run++) {
      const slot = slotOf(firsts[run]!)
      at = this.#restoreRun(slot, runs.countOf(run), words, at)
    }
  }

  /** Says where the sums go on. */
  #restoreRun(firstSlot: number, count: number, words: DataView, start: number): number {
    let at = start
    for (let done = 0; done < count; ) {
      const slot = firstSlot + done
      const block = this.#blockFor(slot)
      const from = slot - Math.floor(slot / blockSlots) * blockSlots
      const to = Math.min(blockSlots, from + count - done)
      for (let inBlock = from; inBlock < to; inBlock++, at += 4) block[inBlock] = words.getInt32(at, true)
      done += to - from
    }
    return at
  }

  /** Notes the sums of `count` adjacent pages, the first of them in `slot` under `handle`. */
  record(handle: number, slot: number, pages: Uint8Array, pageSizeBytes: number, count: number): void {
    for (let page = 0; page < count; page++) {
      const block = this.#blockFor(slot + page)
      block[(slot + page) % blockSlots] = this.#keyedSum(handle, pages, page, pageSizeBytes)
    }
  }

  /** The first of `count` adjacent pages, from page `first` of them on, that does not match; `count` when all do. */
  firstMismatch(
    handle: number,
    slot: number,
    pages: Uint8Array,
    pageSizeBytes: number,
    first: number,
    count: number,
  ): number {
    for (let page = first; page < count; page++) {
      const block = this.#blocks[Math.floor((slot + page) / blockSlots)]
      const expected = block?.[(slot + page) % blockSlots]
      if (expected !== this.#keyedSum(handle, pages, page, pageSizeBytes)) return page
    }
    return count
  }

  /** Signed, as is all that it is made of: V8 has an object for each number of 2^31 and more that leaves a function. */
  #keyedSum(firstHandle: number, pages: Uint8Array, page: number, pageSizeBytes: number): number {
    return pageSum(pages, page * pageSizeBytes, pageSizeBytes) ^ this.#key(firstHandle + page)
  }

  #blockFor(slot: number): Int32Array {
    const number = Math.floor(slot / blockSlots)
    let block = this.#blocks[number]
    if (block === undefined) {
      block = new Int32Array(blockSlots)
      this.#blocks[number] = block
    }
    return block
  }

  #key(handle: number): number {
    const high = Math.floor(handle / 2 ** 32)
    // For one `high` this maps each `low` to a number of its own.
    const mixed = Math.imul((handle ^ this.#salt) >>> 0, 0x9e3779b1) ^ Math.imul(high + 1, 0x85ebca6b)
    return mixed ^ (mixed >>> 15)
  }
}
