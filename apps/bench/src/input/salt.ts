import { mix32 } from '../random.ts'

/**
 * Salting: in every 512 bytes of the data one 32-bit word is XORed with a number made of the seed, the position and the
 * version. So no two sectors of a run are alike, however often a file is repeated, and a page that came from the wrong
 * place, or is older than it should be, cannot pass for the right one. Rewriting is the step from one version to the next;
 * since XOR is its own inverse it works in place, without the original.
 */
export const sectorBytes = 512
const wordsPerSector = sectorBytes / 4

/** The number that sector `sector` (position / 512) carries in version `version`. */
export function saltOf(seed: number, sector: number, version: number): number {
  return mix32((mix32(sector ^ Math.imul(version, 0x85ebca6b)) + seed) >>> 0)
}

/** The memory as 32-bit words; its start and length are multiples of four. */
export function wordsOf(memory: Uint8Array): Uint32Array {
  return new Uint32Array(memory.buffer, memory.byteOffset, memory.byteLength >>> 2)
}

/** Salts memory that holds the data from `position` on, a multiple of 512. */
export function applySalt(memory: Uint8Array, position: number, version: number, seed: number): void {
  const words = wordsOf(memory)
  let sector = position / sectorBytes
  for (let word = 0; word < words.length; word += wordsPerSector) {
    words[word] ^= saltOf(seed, sector++, version)
  }
}

/** Takes salted memory from version `from` to version `to`, in place. */
export function changeSalt(
  memory: Uint8Array,
  position: number,
  from: number,
  to: number,
  seed: number,
): void {
  const words = wordsOf(memory)
  let sector = position / sectorBytes
  for (let word = 0; word < words.length; word += wordsPerSector) {
    words[word] ^= saltOf(seed, sector, from) ^ saltOf(seed, sector, to)
    sector++
  }
}
