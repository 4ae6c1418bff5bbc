import { setImmediate as nextTurn } from 'node:timers/promises'
import type { LatencyHistogram } from '../statistics.ts'
import type { DataLedger } from './ledger.ts'
import type { BufferStore, Touch } from './store.ts'

/** What one round did. */
export interface RoundResult {
  readonly touches: number
  readonly touchedBytes: number
  readonly seconds: number
  /** Blocks of 4 KiB that did not have the right sum. */
  readonly mismatchedBlocks: number
  readonly failedTouches: number
  readonly errors: readonly string[]
}

/** How long one turn of the event loop may belong to the bench itself. */
const turnMs = 1

export interface RoundOptions {
  readonly store: BufferStore
  readonly ledger: DataLedger
  /** Where the touches come from; what is left in it belongs to the next round. */
  readonly queue: Iterator<Touch>
  /** How many touches are a round. */
  readonly touchCount: number
  /** No touch begins after this, on the clock of `performance`. */
  readonly untilMs: number
  readonly concurrency: number
  readonly latencies: LatencyHistogram | undefined
  readonly progress: (touchedBytes: number) => void
}

/** Runs the touches of one round, `concurrency` at a time, and checks what each of them sees. */
export async function runRound(options: RoundOptions): Promise<RoundResult> {
  const { store, ledger, queue, touchCount, untilMs, concurrency, latencies, progress } = options
  const errors: string[] = []
  let touches = 0
  let touchedBytes = 0
  let mismatchedBlocks = 0
  let failedTouches = 0
  let turnStart = performance.now()

  async function worker(): Promise<void> {
    while (touches < touchCount && (touches === 0 || performance.now() < untilMs)) {
      const next = queue.next()
      if (next.done) break
      touches++
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
  return { touches, touchedBytes, seconds, mismatchedBlocks, failedTouches, errors }
}
