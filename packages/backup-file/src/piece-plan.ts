import type { HandleRun } from '@spillway/core'

/** Pages that travel as one request: adjacent in the file. */
export interface Piece {
  /** Place of the first page in the call. */
  readonly page: number
  readonly pageCount: number
  /** Handle of the first page; those of the others follow it. */
  readonly handle: number
  /** Their memory in order. A single part that the engine takes travels as it is; others are staged. */
  readonly parts: readonly Uint8Array[]
  readonly staged: boolean
}

export interface PlanLimits {
  readonly pageSizeBytes: number
  /** No request is larger; none that is staged is larger than `stagedBytes`. */
  readonly requestBytes: number
  readonly stagedBytes: number
  /** Memory of at least this size travels by itself; smaller parts are gathered. */
  readonly directBytes: number
  readonly takes: (memory: Uint8Array) => boolean
}

/**
 * Cuts pages, given as runs of handles and spans of memory, into requests:
 *
 *   runs    ├──────── file-adjacent ────────┤├─┤├─┤
 *   spans   ├────────────┤├┤├┤├┤├───────────┤├────┤
 *   pieces  │ as it is   ││staged││ as it is ││ ││ │
 *
 * Cut one at a time, so that a call of a million pages plans no further ahead than it has requests under way.
 */
export class PiecePlan {
  readonly #limits: PlanLimits
  readonly #spans: readonly Uint8Array[]
  readonly #runs: readonly HandleRun[]
  #page = 0
  #runIndex = 0
  #runOffset = 0
  #spanIndex = 0
  #spanOffset = 0
  #checkedSpan = -1
  #spanTaken = false

  constructor(limits: PlanLimits, runs: readonly HandleRun[], spans: readonly Uint8Array[]) {
    this.#limits = limits
    this.#runs = runs
    this.#spans = spans
  }

  /** Place in the call of the first page not cut yet. */
  get page(): number {
    return this.#page
  }

  get isDone(): boolean {
    return this.#runIndex === this.#runs.length
  }

  /** Cuts the next piece; not to be called when it is done. */
  next(): Piece {
    const { pageSizeBytes, requestBytes, stagedBytes, directBytes } = this.#limits
    const handle = this.#runs[this.#runIndex].first + this.#runOffset
    const inFile = Math.min(requestBytes, this.#adjacentPages(requestBytes / pageSizeBytes) * pageSizeBytes)
    const alone = Math.min(this.#spanRestBytes(), inFile) >= Math.min(inFile, directBytes)
    const staged = !alone || !this.#spanIsTaken()
    const adjacentBytes = staged ? Math.min(inFile, stagedBytes) : inFile
    const parts: Uint8Array[] = []
    let bytes = 0
    do {
      const length = Math.min(this.#spanRestBytes(), adjacentBytes - bytes)
      parts.push(this.#part(length))
      bytes += length
      if (bytes === adjacentBytes || !staged) break
      // Stop gathering before memory that is worth a request of its own.
    } while (this.#spanRestBytes() < directBytes || !this.#spanIsTaken())
    const piece = { page: this.#page, pageCount: bytes / pageSizeBytes, handle, parts, staged }
    this.#advanceRuns(piece.pageCount)
    return piece
  }

  /** Pages from here on whose handles follow one another, across runs too; no more than asked for. */
  #adjacentPages(wanted: number): number {
    let index = this.#runIndex
    let pages = this.#runs[index].count - this.#runOffset
    while (pages < wanted && index + 1 < this.#runs.length) {
      const { first, count } = this.#runs[index]
      if (this.#runs[index + 1].first !== first + count) break
      pages += this.#runs[++index].count
    }
    return pages
  }

  #spanRestBytes(): number {
    return this.#spans[this.#spanIndex].byteLength - this.#spanOffset
  }

  #spanIsTaken(): boolean {
    if (this.#checkedSpan !== this.#spanIndex) {
      this.#checkedSpan = this.#spanIndex
      this.#spanTaken = this.#limits.takes(this.#spans[this.#spanIndex])
    }
    return this.#spanTaken
  }

  #part(length: number): Uint8Array {
    const span = this.#spans[this.#spanIndex]
    const part =
      length === span.byteLength ? span : span.subarray(this.#spanOffset, this.#spanOffset + length)
    this.#advanceSpan(length)
    return part
  }

  #advanceSpan(bytes: number): void {
    this.#spanOffset += bytes
    if (this.#spanOffset === this.#spans[this.#spanIndex].byteLength) {
      this.#spanIndex++
      this.#spanOffset = 0
    }
  }

  #advanceRuns(pages: number): void {
    this.#page += pages
    let left = pages
    while (left > 0) {
      const rest = this.#runs[this.#runIndex].count - this.#runOffset
      if (left < rest) {
        this.#runOffset += left
        return
      }
      left -= rest
      this.#runIndex++
      this.#runOffset = 0
    }
  }
}
