import { max, median, min } from 'simple-statistics'

/** The figures of one quantity over the measured rounds. */
export interface Spread {
  readonly min: number
  readonly median: number
  readonly max: number
}

/** Median, least and greatest; `undefined` when nothing was measured. */
export function spreadOf(values: readonly number[]): Spread | undefined {
  if (values.length === 0) return undefined
  const figures = [...values]
  return { min: min(figures), median: median(figures), max: max(figures) }
}

/** The interval in which the true median lies 19 times in 20, from the ranks of the values: nothing is assumed of them. */
export function medianInterval(values: readonly number[]): { readonly low: number; readonly high: number } {
  const sorted = [...values].sort((one, other) => one - other)
  const reach = 0.98 * Math.sqrt(sorted.length)
  const low = Math.max(0, Math.floor(sorted.length / 2 - reach))
  return { low: sorted[low], high: sorted[sorted.length - 1 - low] }
}

/** How far the rounds lie apart, as a share of the median: 0.1 is ±5 % or so. */
export function relativeSpread(spread: Spread): number {
  return spread.median === 0 ? 0 : (spread.max - spread.min) / spread.median
}

/** Percentiles of latencies in milliseconds. */
export interface LatencySummary {
  readonly count: number
  readonly p50Ms: number
  readonly p90Ms: number
  readonly p99Ms: number
  readonly p999Ms: number
  readonly maxMs: number
}

/**
 * Collects latencies in a fixed number of logarithmic buckets (64 per power of two, so within 1.1 %), because a list of
 * them would grow the memory that the bench is there to measure.
 */
export class LatencyHistogram {
  static readonly #bucketsPerDoubling = 64
  static readonly #smallestMs = 1 / 1024
  readonly #counts = new Uint32Array(LatencyHistogram.#bucketsPerDoubling * 26)
  #count = 0
  #maxMs = 0

  record(ms: number): void {
    const doublings = Math.log2(Math.max(ms, LatencyHistogram.#smallestMs) / LatencyHistogram.#smallestMs)
    const bucket = Math.floor(doublings * LatencyHistogram.#bucketsPerDoubling)
    this.#counts[Math.min(bucket, this.#counts.length - 1)]++
    this.#count++
    if (ms > this.#maxMs) this.#maxMs = ms
  }

  get count(): number {
    return this.#count
  }

  /** The latency that `share` (0 … 1) of all stay at or below. */
  quantileMs(share: number): number {
    if (this.#count === 0) return Number.NaN
    const wanted = Math.max(1, Math.ceil(share * this.#count))
    let seen = 0
    for (let bucket = 0; bucket < this.#counts.length; bucket++) {
      seen += this.#counts[bucket]
      if (seen >= wanted) {
        const upperMs =
          LatencyHistogram.#smallestMs * 2 ** ((bucket + 1) / LatencyHistogram.#bucketsPerDoubling)
        return Math.min(upperMs, this.#maxMs)
      }
    }
    return this.#maxMs
  }

  summary(): LatencySummary | undefined {
    if (this.#count === 0) return undefined
    return {
      count: this.#count,
      p50Ms: this.quantileMs(0.5),
      p90Ms: this.quantileMs(0.9),
      p99Ms: this.quantileMs(0.99),
      p999Ms: this.quantileMs(0.999),
      maxMs: this.#maxMs,
    }
  }

  /** Points of the cumulative curve, as [share, milliseconds], for a chart. */
  curve(): [number, number][] {
    const shares = [0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.995, 0.999, 1]
    return this.#count === 0 ? [] : shares.map((share) => [share, this.quantileMs(share)])
  }
}
