import { setImmediate as nextTurn } from 'node:timers/promises'
import type { LatencyHistogram } from '../statistics.ts'
import type { DataLedger } from './ledger.ts'
import type { BufferStore, Touch } from './store.ts'

/** What one round did. */
export interface RoundResult {
  readonly touchedBytes: number
  readonly seconds: number
  /** Blocks of 4 KiB that did not have the right sum. */
  readonly mismatchedBlocks: number
  readonly failedTouches: number
  readonly errors: readonly string[]
}

/** How long one turn of the event loop may belong to the bench itself. */
const turnMs = 1

/** Runs the touches of one round, `concurrency` at a time, and checks what each of them sees. */
export async function runRound(
  store: BufferStore,
  ledger: DataLedger,
  touches: Iterable<Touch>,
  concurrency: number,
  latencies: LatencyHistogram | undefined,
  progress: (touchedBytes: number) => void,
): Promise<RoundResult> {
  const queue = touches[Symbol.iterator]()
  const errors: string[] = []
  let touchedBytes = 0
  let mismatchedBlocks = 0
  let failedTouches = 0
  let turnStart = performance.now()

  async function worker(): Promise<void> {
    for (let next = queue.next(); !next.done; next = queue.next()) {
      const touch = next.value
      const position = touch.buffer * ledger.plan.bufferBytes + touch.offsetBytes
      const start = performance.now()
      try {
        await store.touch(touch, (memory) => {
          latencies?.record(performance.now() - start)
          mismatchedBlocks += ledger.countMismatches(position, memory)
          if (touch.write) ledger.rewrite(position, memory)
        })
        touchedBytes += touch.lengthBytes
      } catch (failure) {
        failedTouches++
        if (errors.length < 5) errors.push(String(failure))
      }
      progress(touchedBytes)
      // Touches of resident memory settle in microtasks: without this the loop would starve, and measure only us.
      if (performance.now() - turnStart > turnMs) {
        await nextTurn()
        turnStart = performance.now()
      }
    }
  }

  const start = performance.now()
  await Promise.all(Array.from({ length: concurrency }, worker))
  const seconds = (performance.now() - start) / 1000
  return { touchedBytes, seconds, mismatchedBlocks, failedTouches, errors }
}
