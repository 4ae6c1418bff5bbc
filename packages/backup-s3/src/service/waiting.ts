import { abortError, nowMs, startTimer, stopTimer, yieldToEventLoop } from '@spillway/core'
import { longestTimerMs } from '../http/deadlines.ts'

/** Waiting that a signal ends. */

/**
 * Resolves after `milliseconds`, or 24 days at the latest; rejects with `EINTR` when the signal is aborted. `background`:
 * the wait does not keep the process alive.
 */
export function delay(
  milliseconds: number,
  signal?: AbortSignal,
  { background = false }: { background?: boolean } = {},
): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(abortError(signal))
    const onAbort = () => {
      stopTimer(timer)
      reject(abortError(signal!))
    }
    const timer = startTimer(
      () => {
        signal?.removeEventListener('abort', onAbort)
        resolve()
      },
      Math.min(milliseconds, longestTimerMs),
    )
    if (background) timer.unref?.()
    signal?.addEventListener('abort', onAbort, { once: true })
  })
}

/** Tokens that trickle in at a rate, up to a depth. */
export class TokenBucket {
  readonly #perSecond: number
  readonly #depth: number
  #tokens: number
  #filledAt = nowMs()

  constructor(perSecond: number, depth: number) {
    this.#perSecond = perSecond
    this.#depth = depth
    this.#tokens = depth
  }

  /** Takes `amount` if it is there. */
  tryTake(amount = 1): boolean {
    this.#fill()
    if (this.#tokens < Math.min(amount, this.#depth)) return false
    this.#tokens -= amount
    return true
  }

  /** How long who takes `amount` now would have to wait, in milliseconds. */
  waitFor(amount = 1): number {
    this.#fill()
    const left = this.#tokens - amount
    return left >= 0 || this.#perSecond === Number.POSITIVE_INFINITY ? 0 : (-left / this.#perSecond) * 1000
  }

  /** Takes `amount`, into debt if need be, and returns how long to wait until it is paid, in milliseconds. */
  take(amount = 1): number {
    this.#fill()
    this.#tokens -= amount
    return this.#tokens >= 0 || this.#perSecond === Number.POSITIVE_INFINITY
      ? 0
      : (-this.#tokens / this.#perSecond) * 1000
  }

  add(amount: number): void {
    this.#tokens = Math.min(this.#depth, this.#tokens + amount)
  }

  #fill(): void {
    const now = nowMs()
    if (this.#perSecond === Number.POSITIVE_INFINITY) this.#tokens = this.#depth
    else this.add(((now - this.#filledAt) * this.#perSecond) / 1000)
    this.#filledAt = now
  }
}

/**
 * Does `work` for each item, in order and `atOnce` at a time. When it fails once, nothing more is begun and what is under
 * way is aborted; rejects with that failure when all of it has ended.
 */
export async function forEachAtOnce<Item>(
  items: Iterable<Item>,
  { atOnce, signal }: { atOnce: number; signal?: AbortSignal | undefined },
  work: (item: Item, scope: { signal: AbortSignal }) => Promise<void>,
): Promise<void> {
  const stop = new AbortController()
  const scope = { signal: signal === undefined ? stop.signal : AbortSignal.any([signal, stop.signal]) }
  const left = items[Symbol.iterator]()
  let failure: { readonly error: unknown } | undefined
  const goOn = async () => {
    for (let next = left.next(); failure === undefined && !next.done; next = left.next()) {
      try {
        await work(next.value, scope)
      } catch (error) {
        failure ??= { error }
        stop.abort()
      }
    }
  }
  await Promise.all(Array.from({ length: atOnce }, goOn))
  if (failure !== undefined) throw failure.error
}

/** The items, some at a time; the event loop turns after each lot. */
export async function* inTurns<Item>(items: Iterable<Item>, perTurn = 512): AsyncGenerator<readonly Item[]> {
  let some: Item[] = []
  for (const item of items) {
    some.push(item)
    if (some.length < perTurn) continue
    yield some
    some = []
    await yieldToEventLoop()
  }
  if (some.length > 0) yield some
}
