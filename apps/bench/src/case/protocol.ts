import type { S3Access } from '../s3/server.ts'
import type { LatencySummary } from '../statistics.ts'
import type { Shortened } from './case-budget.ts'

/** What the process of a case is told to do. */
export interface CaseOrder {
  /** A backend by its name, or `peer:` and the name of a peer. */
  readonly subject: string
  /** What results call it, where that is not the subject. */
  readonly label?: string
  readonly workload: string
  readonly limitBytes: number
  readonly pageSizeBytes: number
  readonly rounds: number
  readonly concurrency: number
  readonly directory: string
  readonly io: 'auto' | 'uring' | 'threads'
  readonly checksums: boolean
  /** Time for the case; undefined: as long as it takes. Rounds are shortened for it, verification never. */
  readonly budgetMs: number | undefined
  /** The service that the S3 backend talks to. */
  readonly s3?: S3Access | undefined
  /** File with the input plan. */
  readonly planPath: string
  /** Opens the dashboard while the case runs. */
  readonly live?: boolean
  /** Where the package of a peer is installed. */
  readonly packageDirectory?: string | undefined
  /** Whether the case waits for its turn before each round and everything else that takes the machine. */
  readonly takesTurns?: boolean
}

/** Figures of every round, in the order measured. */
export interface CaseRounds {
  readonly backupBytesPerSecond: readonly number[]
  readonly restoreBytesPerSecond: readonly number[]
  /** The same with a pool that gives memory back at once: backing up includes that, restoring takes new memory. */
  readonly backupGivingBackBytesPerSecond: readonly number[]
  readonly restoreIntoNewBytesPerSecond: readonly number[]
  readonly touchedBytesPerSecond: readonly number[]
  /** Single pages restored per second, through pins of one page, at a depth of 4 and of 32. */
  readonly pageRestoresPerSecondDepth4: readonly number[]
  readonly pageRestoresPerSecondDepth32: readonly number[]
}

export interface CaseLatencies {
  /** From asking for the pin of a touch to having its memory. */
  readonly touch: LatencySummary | undefined
  readonly pageRestoreDepth4: LatencySummary | undefined
  readonly pageRestoreDepth32: LatencySummary | undefined
  /** The touch latencies as [share, milliseconds]. */
  readonly touchCurve: readonly (readonly [number, number])[]
}

/** What the process of a case found out. The parent adds what is better seen from outside: memory. */
export interface CaseFindings {
  readonly rounds: CaseRounds
  readonly latencies: CaseLatencies
  readonly eventLoopDelayP99Ms: number
  readonly eventLoopDelayMaxMs: number
  /** User and system time of the measured rounds of the workload. */
  readonly cpuSeconds: number
  readonly cpuSecondsPerTouchedGiB: number
  readonly verifiedBytes: number
  readonly wrongBytes: number
  readonly lostPages: number
  /** Blocks that a touch saw with the wrong sum, and touches that failed, while the workload ran. */
  readonly mismatchedBlocks: number
  readonly failedTouches: number
  readonly wrongFiles: readonly string[]
  readonly errors: readonly string[]
  /** Milliseconds until the memory of a backed-up set was back with the system, and the share that came back. */
  readonly memoryReturn: { readonly ms: number; readonly share: number } | undefined
  readonly medium: string
  readonly backendStats: unknown
  readonly storeStats: unknown
  /** Phases whose rounds worked on less than all of their data to stay within the time, and on which share of it. */
  readonly shortened: Shortened
}

/** Phases of a case, in order. */
export const casePhases = [
  'start',
  'whole buffers',
  'single pages',
  'load',
  'warm-up',
  'rounds',
  'verify',
  'end',
] as const
export type CasePhase = (typeof casePhases)[number]

/** What the process of a case tells its parent. */
export type CaseMessage =
  | { readonly type: 'phase'; readonly phase: CasePhase; readonly detail?: string }
  | { readonly type: 'baseline'; readonly residentBytes: number }
  | { readonly type: 'progress'; readonly doneBytes: number; readonly totalBytes: number }
  /** The case ends its turn, if it has one, and wants the next; `quiet`: it measures then. */
  | { readonly type: 'turn'; readonly quiet: boolean }
  /** Where the dashboard of the case is. */
  | { readonly type: 'live'; readonly url: string }
  /** The backup did something, although no phase can tell how far it is. */
  | { readonly type: 'alive' }
  /** Figures that stay, whatever happens to the case from here on. */
  | { readonly type: 'figures'; readonly rounds: Partial<CaseRounds> }
  | { readonly type: 'findings'; readonly findings: CaseFindings }
  | { readonly type: 'failure'; readonly message: string; readonly stack: string | undefined }

/** A failure as plain data. */
export function toldFailure(failure: unknown): {
  readonly message: string
  readonly stack: string | undefined
} {
  const { message, stack } = failure instanceof Error ? failure : new Error(String(failure))
  return { message, stack }
}
