/** Requests of at least so many bytes wait for each other on the wire: they are compared with their like. */
const largeBytes = 256 * 1024
/** Saved up at most: 128 requests, a GiB of segments, are 132 with their share and all of this. */
const mostTokens = 2
/** Less than one: the first requests after opening tell what is usual. */
const openingTokens = 0.5

/**
 * When a GET is slow enough to be asked for a second time: when nothing has come for longer than 98 of 100 answers to
 * requests of its kind took to begin. A bucket of tokens keeps the second requests to a share of all, also over short
 * times and whatever the service does: in any n requests of a kind there are at most 2 + n × share.
 */
export class HedgePolicy {
  hedges = 0
  readonly #share: number
  readonly #small = new Latencies()
  readonly #large = new Latencies()

  constructor(share: number) {
    this.#share = share
  }

  /** A first request goes out; it earns its share of a second one. */
  requested(bytes: number): void {
    const kind = this.#kindOf(bytes)
    kind.tokens = Math.min(mostTokens, kind.tokens + this.#share)
  }

  /** An answer began. */
  answered(bytes: number, latencyMs: number): void {
    this.#kindOf(bytes).add(latencyMs)
  }

  /** Silence after which to hedge; Infinity while too little is known. */
  thresholdMs(bytes: number): number {
    return this.#share === 0 ? Number.POSITIVE_INFINITY : this.#kindOf(bytes).thresholdMs
  }

  /** Whether a second request may go out now. */
  tryHedge(bytes: number): boolean {
    const kind = this.#kindOf(bytes)
    if (kind.tokens < 1) return false
    kind.tokens--
    this.hedges++
    return true
  }

  #kindOf(bytes: number): Latencies {
    return bytes < largeBytes ? this.#small : this.#large
  }
}

/** How long answers of one kind took to begin. */
class Latencies {
  tokens = openingTokens
  thresholdMs = Number.POSITIVE_INFINITY
  readonly #latest = new Float64Array(256)
  #samples = 0

  add(latencyMs: number): void {
    this.#latest[this.#samples++ % this.#latest.length] = latencyMs
    if (this.#samples % 16 !== 0) return
    const known = Math.min(this.#samples, this.#latest.length)
    const sorted = this.#latest.slice(0, known).sort()
    this.thresholdMs = sorted[Math.floor(known * 0.98)] + 1
  }
}
