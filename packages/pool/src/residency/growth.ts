import { abortError, orAbort } from '@spillway/core'

/** Bytes of a buffer that a pin of the application or a call under way is about. */
export interface HeldRange {
  readonly offsetBytes: number
  readonly length: number
}

/** A call whose turn it is. */
export interface Turn {
  /** Aborted by the caller, or because the buffer is freed. */
  readonly signal: AbortSignal
  /** Work that the call leaves behind and does not wait for: the next call does. It does not fail. */
  rest?: Promise<void>
}

/**
 * What a buffer that grows has beside others: how far it may grow, who holds which bytes of it, and the line of those that
 * change its length, one at a time in the order of the calls.
 *
 *   0 … sizeBytes        what everybody may reach
 *   sizeBytes … maxBytes what an append is writing, and nobody else can reach; whatever lies there from before, an append that
 *                        succeeds has written over all of it
 */
export class Growth {
  readonly maxBytes: number
  readonly #pageSizeBytes: number
  readonly #held = new Set<HeldRange>()
  readonly #stops = new Set<AbortController>()
  /** Settled when the last call of the line is over, with those before it. */
  #last: Promise<void> | undefined
  /** Why nobody has a turn any more. */
  #stopped: Error | undefined

  constructor(maxBytes: number, pageSizeBytes: number) {
    this.maxBytes = maxBytes
    this.#pageSizeBytes = pageSizeBytes
  }

  /** Pages of so many bytes. */
  pagesOf(bytes: number): number {
    return Math.ceil(bytes / this.#pageSizeBytes)
  }

  /** Whether nobody is in the line. */
  get isIdle(): boolean {
    return this.#last === undefined
  }

  hold(range: HeldRange): void {
    this.#held.add(range)
  }

  letGo(range: HeldRange): void {
    this.#held.delete(range)
  }

  /** Somebody who holds a byte at `bytes` or after it. */
  heldBeyond(bytes: number): HeldRange | undefined {
    for (const range of this.#held)
      if (range.length > 0 && range.offsetBytes + range.length > bytes) return range
    return undefined
  }

  /** Does `work` when the calls before it are over. Rejects with `EINTR` when aborted, and with the reason for `stop` after that. */
  async inTurn<Result>(
    signal: AbortSignal | undefined,
    work: (turn: Turn) => Result | Promise<Result>,
  ): Promise<Result> {
    const before = this.#last
    const line = Promise.withResolvers<void>()
    this.#last = line.promise
    const stop = new AbortController()
    const abort = () => stop.abort(signal?.reason)
    signal?.addEventListener('abort', abort)
    if (signal?.aborted) abort()
    this.#stops.add(stop)
    const turn: Turn = { signal: stop.signal }
    let hasBegun = false
    try {
      if (before !== undefined) await orAbort(before, stop.signal)
      if (stop.signal.aborted) throw abortError(stop.signal)
      hasBegun = true
      return await work(turn)
    } catch (failure) {
      throw this.#stopped ?? failure
    } finally {
      signal?.removeEventListener('abort', abort)
      this.#stops.delete(stop)
      // Whoever leaves the line early leaves those before him to those behind him.
      line.resolve(hasBegun ? turn.rest : before)
      void line.promise.then(() => {
        if (this.#last === line.promise) this.#last = undefined
      })
    }
  }

  /** The buffer is freed: whoever is in the line leaves it. */
  stop(reason: Error): void {
    this.#stopped = reason
    for (const stop of this.#stops) stop.abort(reason)
  }
}
