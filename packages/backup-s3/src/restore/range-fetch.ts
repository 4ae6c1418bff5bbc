import { isSpillwayError, nowMs, SpillwayError } from '@spillway/core'
import { type Deadline, notWatched, unwatch, watch } from '../http/deadlines.ts'
import type { RangeAttempt } from '../service/range-requests.ts'
import type { S3Service } from '../service/service.ts'
import type { HedgePolicy } from './hedging.ts'
import { type AttemptAtRange, RangeSink, type RangeTarget } from './range-target.ts'

/** What a fetch needs of the backup. */
export interface FetchMeans {
  readonly service: S3Service
  readonly hedging: HedgePolicy
  readonly counters: { resumes: number }
}

/** What an attempt is stopped with when the memory it writes into is wanted back; the others' bytes are fetched on. */
export class Interrupted extends Error {}

/**
 * Fills a target, whatever it takes:
 *
 *   round: first attempt ──(silent for longer than usual)──▶ second attempt; the first to answer writes, the other ends
 *   broke off, fell silent, 5xx ─▶ pause ─▶ next round, from the byte that was reached
 *
 * The pages' own checksums tell whether the bytes are of the object that was written: ETags change with some services.
 * It ends with an error when the retry policy gives up or it is aborted; the target then holds what has come.
 */
export class RangeFetch implements Deadline {
  /** When to ask for a second time. */
  dueAt = Number.POSITIVE_INFINITY
  place = notWatched
  readonly key: string
  readonly target: RangeTarget
  readonly means: FetchMeans
  /** When bytes last came, as far as the least rate goes: a body that trickles is slow, too. */
  progressAt = 0
  readonly #retryMayFail: boolean
  readonly #end: (error: unknown) => void
  readonly #startedAt = nowMs()
  #first: FetchAttempt | undefined
  #second: FetchAttempt | undefined
  #positionBefore = 0
  #failures = 0
  #roundError: unknown
  /** Ends the pause between two rounds. */
  #pausing: AbortController | undefined
  #isOver = false

  /** @param end is told once, when the target is complete or what stopped it */
  constructor(
    request: { readonly key: string; readonly target: RangeTarget; readonly retryMayFail: boolean },
    means: FetchMeans,
    end: (error: unknown) => void,
  ) {
    this.key = request.key
    this.target = request.target
    this.#retryMayFail = request.retryMayFail
    this.means = means
    this.#end = end
    this.target.fetch = this
  }

  /** Begins a round. */
  start(): void {
    const { hedging } = this.means
    const { bytes, position } = this.target
    this.#positionBefore = position
    this.#roundError = undefined
    this.progressAt = nowMs()
    hedging.requested(bytes)
    const thresholdMs = this.#retryMayFail ? Number.POSITIVE_INFINITY : hedging.thresholdMs(bytes)
    this.#first = new FetchAttempt(this)
    this.#first.start()
    if (thresholdMs === Number.POSITIVE_INFINITY || this.#first === undefined || this.#isOver) return
    this.dueAt = this.progressAt + thresholdMs
    watch(this)
  }

  /** Ends it at once: nothing touches the memory afterwards. */
  abort(reason: Error): void {
    if (this.#isOver) return
    this.#isOver = true
    this.#stopAttempts(reason)
    this.#pausing?.abort(reason)
    this.#end(reason)
  }

  /** It is silent for longer than usual, or slow. */
  onDue(): void {
    const { hedging } = this.means
    const { bytes } = this.target
    this.dueAt = this.progressAt + hedging.thresholdMs(bytes)
    if (this.dueAt > nowMs()) {
      watch(this)
      return
    }
    if (this.#second !== undefined || this.#first === undefined || !hedging.tryHedge(bytes)) return
    this.#second = new FetchAttempt(this)
    this.#second.start()
  }

  /** Bytes came. */
  received(bytes: number): void {
    const worthMs = (bytes / this.means.service.limits.minDownloadBytesPerSecond) * 1000
    this.progressAt = Math.min(nowMs(), this.progressAt + worthMs)
  }

  /** An attempt of this round has ended. */
  attemptEnded(attempt: FetchAttempt, error: unknown): void {
    if (attempt === this.#first) this.#first = this.#second
    this.#second = undefined
    if (this.#isOver) return
    if (error === undefined) {
      this.#isOver = true
      if (this.#first === undefined) unwatch(this)
      else this.#stopAttempts(new SpillwayError('EINTR', 'another request for the same bytes was faster'))
      this.means.service.retry.succeeded()
      this.#end(undefined)
      return
    }
    const isLoser = isSpillwayError(error) && error.code === 'EINTR'
    if (this.#roundError === undefined || !isLoser) this.#roundError = error
    if (this.#first !== undefined) return
    unwatch(this)
    void this.#nextRound(this.#roundError)
  }

  #stopAttempts(reason: Error): void {
    unwatch(this)
    const [first, second] = [this.#first, this.#second]
    first?.stop(reason)
    second?.stop(reason)
  }

  async #nextRound(error: unknown): Promise<void> {
    const { target, means } = this
    const { retry, limits } = means.service
    const { position } = target
    if (position > this.#positionBefore) this.#failures = 0
    if (!(error instanceof Interrupted)) {
      this.#pausing = new AbortController()
      const { signal } = this.#pausing
      const scope = { signal, retryMayFail: this.#retryMayFail }
      try {
        // What has come buys the time that it may have taken, and no more: a body that trickles must end.
        const boughtMs = (position / limits.minDownloadBytesPerSecond) * 1000
        const deadline = retry.deadline(this.#startedAt) + boughtMs
        await retry.pause(error, ++this.#failures, deadline, scope)
      } catch (final) {
        if (this.#isOver) return
        this.#isOver = true
        this.#end(final)
        return
      }
    }
    if (this.#isOver) return
    if (position > 0) means.counters.resumes++
    this.start()
  }
}

/** One request of a round. */
class FetchAttempt implements AttemptAtRange {
  readonly #fetch: RangeFetch
  readonly #sink: RangeSink
  readonly #startedAt = nowMs()
  #running: RangeAttempt | undefined
  #hasEnded = false

  constructor(fetch: RangeFetch) {
    this.#fetch = fetch
    this.#sink = new RangeSink(fetch.target, this)
  }

  start(): void {
    const { key, target, means } = this.#fetch
    const { from } = this.#sink
    const request = { key, offset: target.offset + from, bytes: target.bytes - from, sink: this.#sink }
    const running = means.service.startRange(request, this.#ended)
    if (!this.#hasEnded) this.#running = running
  }

  stop(reason: Error): void {
    this.#running?.abort(reason)
  }

  began(): void {
    const { hedging } = this.#fetch.means
    const now = nowMs()
    this.#fetch.progressAt = now
    hedging.answered(this.#fetch.target.bytes, now - this.#startedAt)
  }

  readonly #ended = (error: unknown): void => {
    this.#hasEnded = true
    this.#running = undefined
    this.#sink.detach()
    this.#fetch.attemptEnded(this, error)
  }
}
