import { readFileSync } from 'node:fs'
import type { MemorySample } from './case/memory-samples.ts'
import type { CaseFindings, CasePhase } from './case/protocol.ts'
import type { LoopsFindings } from './s3/loops.ts'
import type { MatrixFindings } from './s3/matrix.ts'
import type { Spread } from './statistics.ts'
import { UsageError } from './usage-error.ts'

/** Increased when a field changes its meaning, so that `compare` never compares apples with pears. */
export const resultVersion = 1

/** Bytes per second by what was measured; pages per second for the names that begin with `fioRandom`. */
export type Ceilings = Readonly<Record<string, number>>

/** Spreads of the figures of which the case fields are the medians. */
export interface CaseSpread {
  readonly backupBytesPerSecond?: Spread | undefined
  readonly restoreBytesPerSecond?: Spread | undefined
  readonly backupGivingBackBytesPerSecond?: Spread | undefined
  readonly restoreIntoNewBytesPerSecond?: Spread | undefined
  readonly touchedBytesPerSecond?: Spread | undefined
  readonly pageRestoresPerSecondDepth4?: Spread | undefined
  readonly pageRestoresPerSecondDepth32?: Spread | undefined
}

export interface CaseMemory {
  /** Shared memory of the backup that is mapped into the process; not part of `peakRssBytes`. */
  readonly peakSharedBytes: number
  readonly samples: readonly MemorySample[]
  readonly phases: readonly { readonly phase: CasePhase; readonly ms: number }[]
}

/** One backend (or peer) with one workload. Rates are medians over the rounds. */
export interface CaseResult extends CaseFindings {
  readonly backend: string
  /** The backend as `--backend` has it, where it got a label or a title. */
  readonly spec?: string | undefined
  readonly workload: string
  /** Whether this is not a backend but another way to do the job. */
  readonly peer: boolean
  readonly pageSizeBytes: number
  readonly limitBytes: number
  readonly dataBytes: number
  readonly bufferBytes: number
  readonly concurrency: number
  /** Whether the process ran in a memory control group. */
  readonly memoryGroup: boolean
  readonly backupBytesPerSecond: number | null
  readonly restoreBytesPerSecond: number | null
  readonly backupGivingBackBytesPerSecond: number | null
  readonly restoreIntoNewBytesPerSecond: number | null
  readonly touchedBytesPerSecond: number | null
  readonly pageRestoresPerSecondDepth4: number | null
  readonly pageRestoresPerSecondDepth32: number | null
  readonly spread: CaseSpread
  readonly ceilings: Ceilings
  /** Ordinary memory and mapped files at most; shared memory of the backup is apart. */
  readonly peakRssBytes: number
  readonly baselineRssBytes: number
  readonly memory: CaseMemory
  readonly seconds: number
}

/** A case that could not be run to its end. */
export interface FailedCase {
  readonly backend: string
  readonly workload: string
  readonly message: string
  /** Where it failed. */
  readonly phase?: CasePhase | undefined
  /** Medians of what had been measured before. */
  readonly measured?: Readonly<Record<string, number>> | undefined
}

export interface Machine {
  readonly processor: string
  readonly processors: number
  readonly memoryBytes: number
  readonly system: string
  readonly fileSystem: string
  readonly directory: string
}

export interface RunResult {
  readonly resultVersion: number
  readonly date: string
  readonly nodeVersion: string
  readonly commit: string
  readonly machine: Machine
  readonly settings: {
    readonly seed: number
    readonly rounds: number
    readonly overcommit: number
    readonly inputs: readonly string[]
    readonly inputFiles: number
    readonly inputBytes: number
    readonly io: string
    readonly checksums: boolean
    /** Time that the run was to take; `null`: as long as it takes. */
    readonly budgetSeconds: number | null
  }
  /** Loops of bare S3 calls and backup-s3 beside them; absent without the S3 backend. */
  readonly s3?: LoopsFindings | undefined
  /** The same with latency and errors; only where it was asked for. */
  readonly s3Matrix?: MatrixFindings | undefined
  readonly ceilings: Ceilings
  readonly ceilingSpreads: Readonly<Record<string, Spread>>
  readonly ceilingNotes: readonly string[]
  /** Peers that could not be measured here, and why. */
  readonly missingPeers?: readonly { readonly name: string; readonly reason: string }[]
  readonly cases: readonly CaseResult[]
  readonly failedCases: readonly FailedCase[]
  readonly seconds: number
}

/** Whether every case ran to its end and gave back every byte; of the peers, those that did not fail. */
export function isClean(run: Pick<RunResult, 'cases' | 'failedCases' | 's3' | 's3Matrix'>): boolean {
  const wrong = (run.s3?.wrongAnswers ?? 0) + (run.s3Matrix?.wrongAnswers ?? 0)
  const failed = run.failedCases.filter(({ backend }) => !backend.startsWith('peer:'))
  return wrong === 0 && failed.length === 0 && run.cases.every(isCleanCase)
}

export function isCleanCase(result: CaseResult): boolean {
  return (
    result.wrongBytes === 0 &&
    result.lostPages === 0 &&
    result.mismatchedBlocks === 0 &&
    result.failedTouches === 0 &&
    result.verifiedBytes === result.dataBytes
  )
}

/** Reads the JSON of an earlier run; throws `UsageError` that says what is wrong with it. */
export function readRunResult(path: string): RunResult {
  let text: string
  try {
    text = readFileSync(path, 'utf8')
  } catch (failure) {
    const { code } = failure as NodeJS.ErrnoException
    throw new UsageError(
      `'${path}' cannot be read (${code}); give a file that 'spillway-bench run --json' wrote`,
    )
  }
  let run: Partial<RunResult> | null
  try {
    run = JSON.parse(text) as Partial<RunResult> | null
  } catch {
    throw new UsageError(`'${path}' is not JSON; give a file that 'spillway-bench run --json' wrote`)
  }
  if (typeof run !== 'object' || run === null || !Array.isArray(run.cases)) {
    throw new UsageError(`'${path}' has no array 'cases'; give a file that 'spillway-bench run --json' wrote`)
  }
  if (run.resultVersion !== resultVersion) {
    throw new UsageError(
      `'${path}' has result version ${run.resultVersion}, this program reads ${resultVersion}; measure it again`,
    )
  }
  return run as RunResult
}
