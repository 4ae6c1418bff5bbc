/** Adjacent handles `first`, `first + 1`, … `first + count − 1`, naming `count` pages in order. */
export interface HandleRun {
  readonly first: number
  readonly count: number
}

/**
 * Runs of handles in little memory, for there may be millions of them: 8 bytes for a run where each has one page, 16 where some are
 * longer.
 */
export class HandleRuns implements Iterable<HandleRun> {
  /** By run: its first handle. */
  readonly firsts: Float64Array
  /** By run: how many handles it has; not there where each has one. */
  readonly counts: Float64Array | undefined
  /** Handles of all runs together. */
  readonly handleCount: number

  constructor(firsts: Float64Array, counts: Float64Array | undefined) {
    this.firsts = firsts
    this.counts = counts
    this.handleCount = counts === undefined ? firsts.length : counts.reduce((sum, count) => sum + count, 0)
  }

  static of(runs: Iterable<HandleRun>): HandleRuns {
    if (runs instanceof HandleRuns) return runs
    const all = [...runs]
    const firsts = Float64Array.from(all, ({ first }) => first)
    const isOfPages = all.every(({ count }) => count === 1)
    return new HandleRuns(firsts, isOfPages ? undefined : Float64Array.from(all, ({ count }) => count))
  }

  /** How many runs there are. */
  get length(): number {
    return this.firsts.length
  }

  countOf(run: number): number {
    return this.counts === undefined ? 1 : this.counts[run]
  }

  *[Symbol.iterator](): Generator<HandleRun> {
    for (let run = 0; run < this.length; run++) yield { first: this.firsts[run], count: this.countOf(run) }
  }
}
