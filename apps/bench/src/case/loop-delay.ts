import { LatencyHistogram } from '../statistics.ts'

const intervalMs = 1

/**
 * Measures event-loop delay as `monitorEventLoopDelay({ resolution: 1 })` does, the time between two ticks of a timer of
 * one millisecond, that millisecond included. Node's own monitor counts the pause between `disable` and `enable` as one
 * huge delay, and this bench must leave out what is not measured.
 */
export class LoopDelayMeter {
  readonly histogram = new LatencyHistogram()
  #timer: NodeJS.Timeout | undefined
  #lastTickMs = 0

  start(): void {
    if (this.#timer !== undefined) return
    this.#lastTickMs = performance.now()
    this.#timer = setInterval(() => this.#tick(), intervalMs)
  }

  stop(): void {
    if (this.#timer === undefined) return
    clearInterval(this.#timer)
    this.#timer = undefined
    // What came after the last tick is only a delay if a tick is overdue, or if it is all there is to tell.
    const overdue = performance.now() - this.#lastTickMs > 2 * intervalMs
    if (overdue || this.histogram.count === 0) this.#tick()
  }

  #tick(): void {
    const now = performance.now()
    this.histogram.record(now - this.#lastTickMs)
    this.#lastTickMs = now
  }
}
