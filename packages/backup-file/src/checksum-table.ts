import { randomBytes } from 'node:crypto'
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
  readonly #salt = randomBytes(4).readUInt32LE()
  readonly #blocks: (Uint32Array | undefined)[] = []

  record(handle: number, slot: number, page: Uint8Array): void {
    const number = Math.floor(slot / blockSlots)
    let block = this.#blocks[number]
    if (block === undefined) {
      block = new Uint32Array(blockSlots)
      this.#blocks[number] = block
    }
    block[slot % blockSlots] = (pageSum(page) ^ this.#key(handle)) >>> 0
  }

  matches(handle: number, slot: number, page: Uint8Array): boolean {
    const block = this.#blocks[Math.floor(slot / blockSlots)]
    return block !== undefined && block[slot % blockSlots] === (pageSum(page) ^ this.#key(handle)) >>> 0
  }

  #key(handle: number): number {
    const high = Math.floor(handle / 2 ** 32)
    // For one `high` this maps each `low` to a number of its own.
    let mixed = Math.imul((handle ^ this.#salt) >>> 0, 0x9e3779b1) ^ Math.imul(high + 1, 0x85ebca6b)
    mixed ^= mixed >>> 15
    return mixed >>> 0
  }
}
