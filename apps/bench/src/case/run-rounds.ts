import { LatencyHistogram } from '../statistics.ts'
import { affordableShare } from './case-budget.ts'
import type { DataLedger } from './ledger.ts'
import { runRound } from './run-workload.ts'
import type { BufferStore, Touch } from './store.ts'
import type { Workload, WorkloadShape } from './workloads.ts'

export interface RoundsOptions {
  readonly store: BufferStore
  readonly ledger: DataLedger
  readonly workload: Workload
  readonly shape: WorkloadShape
  readonly rounds: number
  readonly concurrency: number
  /** Time for all rounds: each touches less when it is short. */
  readonly allowedMs: number
  /** Called when the warm-up is over. */
  readonly onRounds: () => void
  readonly progress: (touchedBytes: number, totalBytes: number) => void
  readonly measured: (running: boolean) => void
  /** Waits until the next round may begin; resolves to the milliseconds that this took. */
  readonly turn: () => Promise<number>
}

/** What the measured rounds of a workload came to. */
export interface RoundsFigures {
  readonly touchedBytesPerSecond: readonly number[]
  readonly touchLatencies: LatencyHistogram
  readonly touchedBytes: number
  readonly cpuSeconds: number
  readonly mismatchedBlocks: number
  readonly failedTouches: number
  readonly errors: readonly string[]
  /** Share of a whole round that each round was. */
  readonly share: number
}

/** Share of the allowed time that the warm-up may take, and what it may take in any case. */
const warmUpShare = 0.25
const leastWarmUpMs = 250

/**
 * One round to warm up, then the measured ones. A shortened round goes on where the last one ended, so that a sweep still
 * passes over all of the data and does not stay in what fits into memory.
 */
export async function runRounds(options: RoundsOptions): Promise<RoundsFigures> {
  const { store, ledger, workload, shape, rounds, concurrency, allowedMs } = options
  const touchesPerRound = workload.touchesPerRound(shape)
  const queue = touchesOf(workload, shape, rounds)
  const touchLatencies = new LatencyHistogram()
  const touchedBytesPerSecond: number[] = []
  const errors: string[] = []
  const sums = { touchedBytes: 0, cpuSeconds: 0, mismatchedBlocks: 0, failedTouches: 0 }
  let share = 1
  let touchCount = touchesPerRound
  let startMs = performance.now()
  for (let round = 0; round <= rounds; round++) {
    const counts = round > 0
    startMs += await options.turn()
    if (round === 1) options.onRounds()
    const cpuBefore = process.cpuUsage()
    options.measured(counts)
    const result = await runRound({
      store,
      ledger,
      queue,
      touchCount,
      untilMs: counts ? Number.POSITIVE_INFINITY : startMs + Math.max(leastWarmUpMs, allowedMs * warmUpShare),
      concurrency,
      latencies: counts ? touchLatencies : undefined,
      progress: (done) => options.progress(sums.touchedBytes + done, ledger.plan.dataBytes * rounds * share),
    })
    options.measured(false)
    sums.mismatchedBlocks += result.mismatchedBlocks
    sums.failedTouches += result.failedTouches
    errors.push(...result.errors)
    // The gate: from here on every figure would be of a store that returns wrong bytes.
    if (sums.mismatchedBlocks > 0 || sums.failedTouches > 0) break
    if (!counts) {
      const wholeRoundMs = (result.seconds * 1000 * touchesPerRound) / result.touches
      share = affordableShare(allowedMs - (performance.now() - startMs), wholeRoundMs * rounds)
      touchCount = Math.max(1, Math.round(share * touchesPerRound))
      continue
    }
    const cpu = process.cpuUsage(cpuBefore)
    sums.cpuSeconds += (cpu.user + cpu.system) / 1e6
    sums.touchedBytes += result.touchedBytes
    touchedBytesPerSecond.push(result.touchedBytes / result.seconds)
  }
  return { ...sums, touchedBytesPerSecond, touchLatencies, errors, share }
}

/** The touches of all rounds, one after the other. */
function* touchesOf(workload: Workload, shape: WorkloadShape, rounds: number): Generator<Touch> {
  for (let round = 0; round <= rounds; round++) yield* workload.touches(shape, round)
}
