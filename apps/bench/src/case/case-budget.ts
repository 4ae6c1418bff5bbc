/** Share of its data that a phase works on in each round at the least, however little time there is. */
const leastShare = 1 / 8

/** What a phase of a case may be allotted of the time that is not taken by loading and verifying. */
const weights = { 'whole buffers': 0.5, 'single pages': 0.2, rounds: 0.3 } as const
export type ShortenedPhase = keyof typeof weights

/** Share of the data per round that a phase worked on, for phases that were shortened. */
export type Shortened = Readonly<Partial<Record<ShortenedPhase, number>>>

/**
 * The time that a case may take. The rounds are as many as were asked for and everything is verified; what gives way is
 * how much data each round moves:
 *
 *   start ── whole buffers ── single pages ── load ── rounds ── verify
 *            └── shortened ─────────────┘     whole   shortened  whole
 */
export class CaseBudget {
  #endMs: number
  readonly #shares: Partial<Record<ShortenedPhase, number>> = {}

  /** @param budgetMs undefined: as long as it takes */
  constructor(budgetMs: number | undefined) {
    this.#endMs = performance.now() + (budgetMs ?? Number.POSITIVE_INFINITY)
  }

  /** Milliseconds for a phase, if afterwards `wholeMs` go to what is not shortened. */
  allot(phase: ShortenedPhase, wholeMs: number): number {
    const leftMs = Math.max(0, this.#endMs - performance.now() - wholeMs)
    if (phase === 'rounds') return leftMs
    const laterWeights = phase === 'single pages' ? weights.rounds : weights.rounds + weights['single pages']
    return (leftMs * weights[phase]) / (weights[phase] + laterWeights)
  }

  /** The case waited for others: that is not its own time. */
  extend(waitedMs: number): void {
    this.#endMs += waitedMs
  }

  /** Notes the share of its data that a phase worked on. */
  note(phase: ShortenedPhase, share: number): void {
    if (share < 1) this.#shares[phase] = Math.min(share, this.#shares[phase] ?? 1)
  }

  get shortened(): Shortened {
    return this.#shares
  }
}

/** The share of the data that fits into `allowedMs`, when all rounds with all of it would take `wholeMs`. */
export function affordableShare(allowedMs: number, wholeMs: number): number {
  if (!(wholeMs > allowedMs)) return 1
  return Math.max(leastShare, allowedMs / wholeMs)
}
