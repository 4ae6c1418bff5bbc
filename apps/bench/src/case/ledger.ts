import type { InputPlan } from '../input/plan.ts'
import { changeSalt, sectorBytes, wordsOf } from '../input/salt.ts'
import { VersionTable, versionedBytes } from '../input/salted-input.ts'

/** Bytes that share one quick sum. */
export const blockBytes = 4096

const wordsPerSector = sectorBytes / 4
const wordsPerBlock = blockBytes / 4

/**
 * What the data must be at this moment: the version of every piece, and a sum for every 4 KiB of the salted words, one in
 * 512 bytes. A workload compares the sums at every touch, which costs next to nothing and shows a wrong page where it
 * happens; the SHA-256 of every file comes at the end.
 */
export class DataLedger {
  readonly plan: InputPlan
  readonly versions: VersionTable
  readonly #sums: Uint32Array

  constructor(plan: InputPlan) {
    this.plan = plan
    this.versions = new VersionTable(plan.dataBytes)
    this.#sums = new Uint32Array(plan.dataBytes / blockBytes)
  }

  /** Notes the sums of data that is right by definition: it was just made. */
  record(position: number, memory: Uint8Array): void {
    const words = wordsOf(memory)
    let block = position / blockBytes
    for (let start = 0; start < words.length; start += wordsPerBlock) {
      this.#sums[block++] = blockSum(words, start)
    }
  }

  /** How many 4 KiB blocks do not have the sum they should have. */
  countMismatches(position: number, pieces: readonly Uint8Array[]): number {
    let mismatches = 0
    let block = position / blockBytes
    for (const piece of pieces) {
      const words = wordsOf(piece)
      for (let start = 0; start < words.length; start += wordsPerBlock) {
        if (this.#sums[block++] !== blockSum(words, start)) mismatches++
      }
    }
    return mismatches
  }

  /** Takes whole versioned pieces one version further, in place, and notes their new sums. */
  rewrite(position: number, pieces: readonly Uint8Array[]): void {
    let reached = position
    for (const piece of pieces) {
      for (let start = 0; start < piece.byteLength; ) {
        const length = Math.min(piece.byteLength - start, versionedBytes - (reached % versionedBytes))
        const part = piece.subarray(start, start + length)
        const version = this.versions.versionAt(reached)
        changeSalt(part, reached, version, version + 1, this.plan.seed)
        this.record(reached, part)
        reached += length
        start += length
        if (reached % versionedBytes === 0) this.versions.advance(reached - versionedBytes)
      }
    }
  }
}

function blockSum(words: Uint32Array, start: number): number {
  let sum = 0
  for (let word = start; word < start + wordsPerBlock; word += wordsPerSector) {
    sum = (Math.imul(sum, 31) + words[word]) >>> 0
  }
  return sum
}
