import { abortError, delay, orAbort, SpillwayError } from '@spillway/core'

/** A limit that can be changed, in bytes or in pages: of a budget, or what a pool may have of one. */
export interface ChangeableLimit {
  /** What it counts in: bytes, or pages of so many. */
  readonly unitBytes: number
  /** What may be charged: sinks as soon as so much is free. */
  chargeable: number
  /** What may be resident, and what the application is told: sinks when it is kept. */
  kept: number
  readonly resident: number
  /** Takes room that is free now, or says false. */
  tryCharge(amount: number): boolean
  /** Waits in the queue for room; resolves to what `need` said last, which is charged. */
  charge(need: () => number, signal: AbortSignal): Promise<number>
  uncharge(amount: number): void
  /** There may be more room for those that wait. */
  serveSoon(): void
  /** Gives memory to the system; resolves to how much. */
  shrink(amount: number): Promise<number>
  readonly failingBackup: { readonly failure: Error | undefined; readonly backoffMs: number } | undefined
}

/** A change that is not in force yet. */
interface Change {
  readonly limit: number
  /** Aborted by the caller, or because a later change overtook this one. */
  readonly stop: AbortController
  overtaken: SpillwayError | undefined
  /** Never rejects. */
  readonly ended: Promise<void>
}

/**
 * Changes of a limit at run time. It is both what may be charged, which sinks as soon as so much is free, and what may be
 * resident, which sinks when it is kept.
 *
 *   lower than those that wait ─▶ waits behind them, since it needs what they need
 *   else                       ─▶ those that wait for less memory end with EINTR; the last call counts
 */
export class LimitChanges {
  readonly #changing: ChangeableLimit
  /** In the order of the calls, each lower than the one before. */
  readonly #waiting: Change[] = []

  constructor(changing: ChangeableLimit) {
    this.#changing = changing
  }

  /** Whether a change is not in force yet. */
  get areUnderWay(): boolean {
    return this.#waiting.length > 0
  }

  /** The lowest limit that is in force or on its way. */
  get lowest(): number {
    return Math.min(this.#changing.chargeable, ...this.#waiting.map(({ limit }) => limit))
  }

  /**
   * Sets the limit; a lower one resolves when it is kept. Rejects with `EINTR` when aborted or overtaken, with `ENOMEM` when it
   * cannot be kept; then the limit is as before.
   */
  async set(limit: number, signal: AbortSignal | undefined): Promise<void> {
    if (signal?.aborted === true) throw abortError(signal)
    const overtaken = new SpillwayError(
      'EINTR',
      `a later call set the limit to ${limit * this.#changing.unitBytes} bytes`,
    )
    for (const earlier of this.#waiting) {
      if (earlier.limit > limit) continue
      earlier.overtaken ??= overtaken
      earlier.stop.abort(overtaken)
    }
    const before = this.#waiting.filter(({ stop }) => !stop.signal.aborted).at(-1)
    const stop = new AbortController()
    const { promise: ended, resolve: end } = Promise.withResolvers<void>()
    const change: Change = { limit, stop, ended, overtaken: undefined }
    this.#waiting.push(change)
    const onAbort = () => stop.abort(signal!.reason)
    signal?.addEventListener('abort', onAbort, { once: true })
    try {
      await this.#apply(limit, before, stop.signal)
    } catch (failure) {
      throw change.overtaken ?? failure
    } finally {
      signal?.removeEventListener('abort', onAbort)
      this.#waiting.splice(this.#waiting.indexOf(change), 1)
      end()
    }
  }

  async #apply(limit: number, before: Change | undefined, signal: AbortSignal): Promise<void> {
    if (before !== undefined) await orAbort(before.ended, signal)
    // Between the end of the change before and this line the caller, or a later change, may have ended this one.
    if (signal.aborted) throw abortError(signal)
    const changing = this.#changing
    const sinkBy = () => Math.max(0, changing.chargeable - limit)
    if (sinkBy() > 0) {
      // What lies between the limits is charged to nobody, so it is free when the limit sinks past it.
      const charged = changing.tryCharge(sinkBy()) ? sinkBy() : await changing.charge(sinkBy, signal)
      changing.uncharge(charged)
      if (signal.aborted) throw abortError(signal)
    }
    changing.chargeable = limit
    if (limit < changing.kept) await this.#fitInto(limit, signal)
    else changing.kept = limit
    changing.serveSoon()
  }

  /**
   * Gives memory back until so much is resident, and lets no more become so; idle memory of a slab that is in use may take
   * chunks with it.
   */
  async #fitInto(limit: number, signal: AbortSignal): Promise<void> {
    const changing = this.#changing
    try {
      for (let hasWaited = false; ; ) {
        if (signal.aborted) throw abortError(signal)
        const surplus = changing.resident - limit
        if (surplus <= 0) {
          // At once: whoever runs next may take memory.
          changing.kept = limit
          return
        }
        if ((await changing.shrink(surplus)) > 0) continue
        const failing = changing.failingBackup
        if (failing === undefined || hasWaited) throw cannotSink(changing, failing?.failure)
        // Left alone for a while, but it may be well again.
        await orAbort(delay(failing.backoffMs + 1), signal)
        hasWaited = true
      }
    } catch (failure) {
      // Unless a later call has changed it: then that one counts.
      if (changing.chargeable === limit) changing.chargeable = changing.kept
      // Who came meanwhile waits for room that is there after all.
      changing.serveSoon()
      throw failure
    }
  }
}

function cannotSink({ resident, kept, unitBytes }: ChangeableLimit, cause: Error | undefined): SpillwayError {
  const advice = cause === undefined ? 'release pins, or free buffers' : `a backup failed: ${cause.message}`
  return new SpillwayError(
    'ENOMEM',
    `${resident * unitBytes} bytes are resident and cannot all leave; the limit stays at ${kept * unitBytes} bytes; ${advice}`,
    { cause },
  )
}
