// Not by name: a Node without it has to get as far as the message that it is too old.
import * as zlib from 'node:zlib'

/**
 * Every page has a CRC-32 that is seeded with the place it belongs to, so that the right bytes in the wrong place do
 * not match: `zlib.crc32(page, seed(epoch, segment, generation, slot))`. The CRC-32 of the whole object, which S3 checks on
 * upload, is combined from the pages' by arithmetic: every byte goes through one CRC only.
 *
 *   crc(data, a) xor crc(data, b) = advance(a xor b)      where advance() feeds as many zeros as data has bytes
 */

/** What the pages of one segment are bound to. */
export function segmentSeed(epoch: string, segmentNumber: number, generation: number): number {
  return zlib.crc32(`${epoch}/${segmentNumber}/${generation}`)
}

/** The seed of one page. */
export function pageSeed(seed: number, slot: number): number {
  return (seed + Math.imul(slot + 1, 0x9e3779b1)) >>> 0
}

/** The checksum of one page in its place. */
export function pageChecksum(page: Uint8Array, seed: number, slot: number): number {
  return zlib.crc32(page, pageSeed(seed, slot))
}

/** Feeds a fixed number of zero bytes to a CRC-32 in four table look-ups. */
export class ZeroAdvance {
  /** What each of the four bytes of a value becomes, one table of 256 after the other. */
  readonly #table = new Uint32Array(4 * 256)

  constructor(bytes: number) {
    // The operator is linear over bits: what it does to each single bit says what it does to every value.
    const zeros = new Uint8Array(bytes)
    const origin = zlib.crc32(zeros, 0)
    const column = new Uint32Array(32)
    for (let bit = 0; bit < 32; bit++) column[bit] = (zlib.crc32(zeros, (1 << bit) >>> 0) ^ origin) >>> 0
    for (let position = 0; position < 4; position++) {
      const table = this.#table.subarray(position * 256, (position + 1) * 256)
      for (let byte = 1; byte < 256; byte++) {
        const low = 31 - Math.clz32(byte & -byte)
        table[byte] = table[byte & (byte - 1)] ^ column[position * 8 + low]
      }
    }
  }

  /** The one for so many bytes; computed once, since every store with pages of that size needs it. */
  static of(bytes: number): ZeroAdvance {
    let known = knownAdvances.get(bytes)
    if (known === undefined) {
      known = new ZeroAdvance(bytes)
      knownAdvances.set(bytes, known)
    }
    return known
  }

  advance(value: number): number {
    const table = this.#table
    return (
      (table[value & 255] ^
        table[256 + ((value >>> 8) & 255)] ^
        table[512 + ((value >>> 16) & 255)] ^
        table[768 + (value >>> 24)]) >>>
      0
    )
  }
}

const knownAdvances = new Map<number, ZeroAdvance>()

/** Appends a page, of which only the seeded checksum is known, to the CRC-32 of what came before it. */
export function appendPage(running: number, checksum: number, seed: number, zeros: ZeroAdvance): number {
  return (checksum ^ zeros.advance((running ^ seed) >>> 0)) >>> 0
}

/** CRC-32 as S3 writes it: four bytes, big-endian, in base64. */
export function checksumHeader(value: number): string {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32BE(value)
  return bytes.toString('base64')
}
