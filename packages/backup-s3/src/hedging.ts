/**
 * When a GET is slow enough to be asked for a second time: when nothing has come for longer than 98 of 100 answers
 * took to begin. A bucket of tokens keeps the second requests to a share of all, whatever the service does.
 */
export class HedgePolicy {
  hedges = 0
  readonly #share: number
  readonly #latencies = new Float64Array(256)
  #samples = 0
  #tokens = 1
  #thresholdMs = Number.POSITIVE_INFINITY

  constructor(share: number) {
    this.#share = share
  }

  /** A first request goes out; it earns its share of a second one. */
  requested(): void {
    this.#tokens = Math.min(10, this.#tokens + this.#share)
  }

  /** An answer began. */
  answered(latencyMs: number): void {
    this.#latencies[this.#samples++ % this.#latencies.length] = latencyMs
    if (this.#samples % 16 !== 0) return
    const known = Math.min(this.#samples, this.#latencies.length)
    const sorted = this.#latencies.slice(0, known).sort()
    this.#thresholdMs = sorted[Math.floor(known * 0.98)] + 1
  }

  /** Silence after which to hedge; Infinity while too little is known. */
  get thresholdMs(): number {
    return this.#share === 0 ? Number.POSITIVE_INFINITY : this.#thresholdMs
  }

  /** Whether a second request may go out now. */
  tryHedge(): boolean {
    if (this.#tokens < 1) return false
    this.#tokens--
    this.hedges++
    return true
  }
}
