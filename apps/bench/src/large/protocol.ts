/** What the process of `large` is told to do. */
export interface LargeOrder {
  readonly backend: string
  readonly sizeBytes: number
  readonly limitBytes: number
  readonly seed: number
  readonly directory: string
}

export type LargePhase = 'write' | 'random' | 'verify'

/** What it found out. Its memory is better seen from outside, by its parent. */
export interface LargeFindings {
  /** Bytes of the buffer that were compared one by one, and those that were not what was written. */
  readonly verifiedBytes: number
  readonly wrongBytes: number
  readonly randomReads: number
  readonly secondsByPhase: Readonly<Record<LargePhase, number>>
  readonly eventLoopDelayP99Ms: number
  readonly eventLoopDelayMaxMs: number
  readonly poolStats: unknown
}

/** What it says to its parent, which answers a baseline and an end with `held`. */
export type LargeMessage =
  | { readonly type: 'baseline' | 'end' }
  | { readonly type: 'progress'; readonly phase: LargePhase; readonly doneBytes: number }
  | { readonly type: 'findings'; readonly findings: LargeFindings }
  | { readonly type: 'failure'; readonly message: string }
