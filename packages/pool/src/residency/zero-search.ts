import { pace } from '@spillway/core'
import { piece } from '../table/chunks.ts'
import type { ResidentSet } from './resident-set.ts'
import { isZero, leastZeroPages, mayHaveZeroRuns, zeroRuns } from './zero-content.ts'

/** Chunks on their way out, in their order: what has to be stored, and what holds only zeros. */
export interface SearchedChunks {
  readonly chunks: readonly number[]
  readonly zeroChunks: readonly number[]
}

export interface ZeroSearchOptions {
  /** Pages are handed over one by one: look for zeros within all chunks, and not only in pieces of larger ones. */
  readonly splitAlways?: boolean | undefined
  /** Chunks that the caller stores: of one that is split, its pieces are among them instead. */
  readonly own?: Set<number> | undefined
}

/**
 * Finds chunks on their way out that hold only zeros. A chunk that is a piece of a larger one already is split once more where a
 * part of it does. Nobody writes to a chunk on its way out, so what is found stays true until the chunk has left or stays.
 */
export class ZeroSearch {
  readonly #residents: ResidentSet

  constructor(residents: ResidentSet) {
    this.#residents = residents
  }

  /** No promise where nothing has to wait. */
  find(chunks: readonly number[], options: ZeroSearchOptions): SearchedChunks | Promise<SearchedChunks> {
    const zeroChunks = this.#findZeroChunks(chunks, 0, [])
    return zeroChunks instanceof Promise
      ? zeroChunks.then((found) => this.#findParts(chunks, found, options))
      : this.#findParts(chunks, zeroChunks, options)
  }

  /** Those that hold only zeros, from the `next`th on. */
  #findZeroChunks(
    chunks: readonly number[],
    next: number,
    found: readonly number[],
  ): readonly number[] | Promise<readonly number[]> {
    const zeroChunks = [...found]
    for (let index = next; index < chunks.length; index++) {
      const chunk = chunks[index]
      const memory = this.#memory(chunk)
      const answer = memory !== undefined && isZero(memory)
      if (typeof answer !== 'boolean') {
        return answer.then((is) =>
          this.#findZeroChunks(chunks, index + 1, is ? [...zeroChunks, chunk] : zeroChunks),
        )
      }
      if (answer) zeroChunks.push(chunk)
    }
    return zeroChunks
  }

  #findParts(
    all: readonly number[],
    zeroChunks: readonly number[],
    options: ZeroSearchOptions,
  ): SearchedChunks | Promise<SearchedChunks> {
    const chunks = zeroChunks.length === 0 ? all : all.filter((chunk) => !zeroChunks.includes(chunk))
    if (!chunks.some((chunk) => this.#mayHaveParts(chunk, options))) return { chunks, zeroChunks }
    return this.#splitAtZeros(chunks, zeroChunks, options)
  }

  #mayHaveParts(chunk: number, { splitAlways }: ZeroSearchOptions): boolean {
    const { chunks, pages } = this.#residents
    if (splitAlways !== true && !chunks.has(chunk, piece)) return false
    if (chunks.pageCount(chunk) <= leastZeroPages) return false
    const memory = this.#memory(chunk)
    return memory !== undefined && mayHaveZeroRuns(memory, pages.slabs.pageSizeBytes)
  }

  async #splitAtZeros(
    all: readonly number[],
    zeroChunks: readonly number[],
    options: ZeroSearchOptions,
  ): Promise<SearchedChunks> {
    const residents = this.#residents
    const found = { chunks: [] as number[], zeroChunks: [...zeroChunks] }
    const { pageSizeBytes } = residents.pages.slabs
    for (const chunk of all) {
      const mayHaveParts = this.#mayHaveParts(chunk, options)
      const turn = mayHaveParts ? pace(residents.chunks.pageCount(chunk) * pageSizeBytes) : undefined
      if (turn !== undefined) await turn
      const memory = mayHaveParts ? this.#memory(chunk) : undefined
      // A chunk that somebody pins by now stays as it is: he holds all of it.
      const isFixed = memory === undefined || residents.chunks.isPinned(chunk)
      const bounds = isFixed ? [] : zeroRuns(memory, pageSizeBytes)
      if (bounds.length === 0) {
        found.chunks.push(chunk)
        continue
      }
      const parts = residents.splitOnItsWayOut(chunk, bounds)
      options.own?.delete(chunk)
      for (const [index, pieces] of parts.entries()) {
        // Every other part is zeros. What lies before the first, or behind the last, may be nothing.
        const kind = index % 2 === 0 ? found.chunks : found.zeroChunks
        for (const each of pieces) {
          options.own?.add(each)
          kind.push(each)
        }
      }
    }
    return found
  }

  /** `undefined` where the application has taken the memory away: storing it says so. */
  #memory(chunk: number): Uint8Array | undefined {
    try {
      return this.#residents.bytes(chunk)
    } catch {
      return undefined
    }
  }
}
