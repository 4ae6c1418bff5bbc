import { abortError, isSpillwayError, nowMs } from '@spillway/core'
import type { Settings } from '../options.ts'
import { isUnreachable, lacksCredentials, statusOf } from './service-errors.ts'
import { delay, TokenBucket } from './waiting.ts'

export interface RetryScope {
  readonly signal?: AbortSignal | undefined
  /** Fail at the first error (T22, T45). */
  readonly retryMayFail?: boolean | undefined
  /** Of a lease, a head or a fence: held up neither by the rate, nor by the budget of requests or retries. */
  readonly urgent?: boolean | undefined
}

/** How long an endpoint that has never been reached is tried, and credentials that were never there: long enough for a service that is just being started. */
const unreachableForMs = 3_000

/**
 * When a request is sent again. All requests of a backup share one budget, so that a service in trouble is not made
 * busier by those who wait for it: a number of retries per second is always free, and every five successes pay for
 * one more. Beyond that retries queue; they fail only when their operation's time is over.
 */
export class RetryPolicy {
  retries = 0
  throttles = 0
  /** Whether anything was ever answered. */
  wasReached = false
  #unreachableSince: number | undefined
  readonly #settings: Settings
  readonly #budget: TokenBucket

  constructor(settings: Settings) {
    this.#settings = settings
    this.#budget = new TokenBucket(settings.retriesPerSecond, Math.max(10, 5 * settings.retriesPerSecond))
  }

  succeeded(): void {
    this.wasReached = true
    this.#budget.add(0.2)
  }

  /** Time at which an operation that began then is given up, of `performance.now()`. */
  deadline(startedAt = nowMs()): number {
    return startedAt + this.#settings.retryForMs
  }

  /** Waits for the next attempt after `failures` in a row; throws `error` when there is none. */
  async pause(error: unknown, failures: number, deadline: number, scope: RetryScope): Promise<void> {
    if (scope.signal?.aborted) throw abortError(scope.signal)
    if (isSpillwayError(error) && error.code === 'EAGAIN') this.throttles++
    if (statusOf((error as Error | undefined)?.cause ?? {}) !== undefined) this.wasReached = true
    // The first look-up of credentials may meet a source that is just busy, as others may do later.
    if (scope.retryMayFail || !(isRetryable(error) || lacksCredentials(error))) throw error
    const { retryBaseMs, retryMaxMs } = this.#settings
    const ceiling = Math.min(retryMaxMs, retryBaseMs * 2 ** (failures - 1))
    const turn = scope.urgent ? 0 : this.#budget.waitFor()
    const wait = Math.max(Math.random() * ceiling, turn, askedForMs(error))
    // One that would come too late takes nothing from the budget of the others.
    if (nowMs() + wait > Math.min(deadline, this.#reachDeadline(error))) throw error
    if (!scope.urgent) this.#budget.take()
    this.retries++
    await delay(wait, scope.signal)
  }

  /** An endpoint that was never there is more likely wrong than away for a moment. */
  #reachDeadline(error: unknown): number {
    if (this.wasReached || !(isUnreachable(error) || lacksCredentials(error))) return Number.POSITIVE_INFINITY
    this.#unreachableSince ??= nowMs()
    return this.#unreachableSince + unreachableForMs
  }

  /** Runs `attempt` until it succeeds, fails for good, or its time is over. */
  async run<T>(scope: RetryScope, attempt: (failures: number) => Promise<T>): Promise<T> {
    const deadline = this.deadline()
    for (let failures = 0; ; ) {
      try {
        const result = await attempt(failures)
        this.succeeded()
        return result
      } catch (error) {
        await this.pause(error, ++failures, deadline, scope)
      }
    }
  }
}

export function isRetryable(error: unknown): boolean {
  return isSpillwayError(error) && error.retryable && error.code !== 'EINTR'
}

/** What the service says in `Retry-After`, where it says it in seconds. */
function askedForMs(error: unknown): number {
  const { cause } = error as { cause?: { $response?: { headers?: Record<string, string> } } }
  const seconds = Number(cause?.$response?.headers?.['retry-after'])
  return Number.isFinite(seconds) && seconds > 0 ? seconds * 1000 : 0
}
