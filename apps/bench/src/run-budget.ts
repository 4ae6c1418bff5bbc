import type { CaseResult } from './results.ts'

/** What a case takes besides measuring, and what misjudgement costs: the pieces aim at so much less. */
const aimedShare = 0.9

/**
 * Shares the time of a run out to its pieces (the ceilings, then each case), each in turn: a piece gets an equal share of what
 * is left, so that one that took longer than it should makes those after it shorter, not the run longer.
 */
export class RunBudget {
  readonly #endMs: number
  #pieces: number

  /** @param budgetSeconds undefined: as long as it takes */
  constructor(budgetSeconds: number | undefined, pieces: number, startMs: number) {
    this.#endMs = startMs + (budgetSeconds ?? Number.POSITIVE_INFINITY) * aimedShare * 1000
    this.#pieces = pieces
  }

  /** Milliseconds for the next piece; undefined: as long as it takes. */
  next(): number | undefined {
    const leftMs = Math.max(0, this.#endMs - performance.now())
    const allottedMs = leftMs / Math.max(1, this.#pieces--)
    return Number.isFinite(allottedMs) ? allottedMs : undefined
  }
}

/** One line for each case that was shortened: what, and how much of its data each round moved. */
export function shortenedLines(cases: readonly CaseResult[], budgetSeconds: number | null): string[] {
  return cases.flatMap(({ backend, workload, shortened }) => {
    const parts = Object.entries(shortened).map(([phase, share]) => `${phase} ${Math.ceil(share * 100)} %`)
    if (parts.length === 0) return []
    return [
      `${backend} · ${workload}: each round moved less to stay within ${budgetSeconds} s (--budget): ${parts.join(', ')}`,
    ]
  })
}
