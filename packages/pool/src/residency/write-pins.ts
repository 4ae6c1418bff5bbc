import { abortError, orAbort, SpillwayError } from '@spillway/core'
import { noteWaiting } from './exit-check.ts'

/** A pin that writes, as far as images look at it. */
export interface WritePin {
  readonly offsetBytes: number
  readonly length: number
}

/**
 * The pins of a buffer through which the application may write at any moment. Whoever needs a moment without them waits for
 * it; new ones come after him.
 */
export class WritePins {
  readonly #buffer: string
  #pins: Set<WritePin> | undefined
  /** Settled when there are none. */
  #change: PromiseWithResolvers<void> | undefined
  #waiting = 0
  /** Settled when nobody waits for a moment without pins. */
  #open: PromiseWithResolvers<void> | undefined

  /** `buffer` names it in errors. */
  constructor(buffer: string) {
    this.#buffer = buffer
  }

  get count(): number {
    return this.#pins?.size ?? 0
  }

  /** Whether new ones have to wait. */
  get isShut(): boolean {
    return this.#waiting > 0
  }

  begin(pin: WritePin): void {
    this.#pins ??= new Set()
    this.#pins.add(pin)
  }

  end(pin: WritePin): void {
    this.#pins?.delete(pin)
    if (this.count > 0) return
    this.#change?.resolve()
    // A pin that comes before those who waited look again is waited for anew.
    this.#change = undefined
  }

  /** `EBUSY`, with the bytes that are pinned. */
  refusal(): SpillwayError {
    const ranges = [...(this.#pins ?? [])].slice(0, 8)
    const bytes = ranges.map(({ offsetBytes, length }) => `bytes ${offsetBytes} to ${offsetBytes + length}`)
    return new SpillwayError(
      'EBUSY',
      `buffer ${this.#buffer} is pinned to be written to: ${bytes.join(', ')}`,
      { buffer: this.#buffer },
    )
  }

  /** The process is about to end while somebody waits. */
  onDeadlock(): void {
    if (this.count === 0) return
    this.#change?.reject(this.refusal())
    this.#change = undefined
  }

  /**
   * Calls `act` in the first moment without pins. Rejects with `EINTR` when aborted before, with `EBUSY` when nothing is left in the
   * process that could release them.
   */
  async whenNone<Result>(signal: AbortSignal | undefined, act: () => Result): Promise<Result> {
    if (this.#waiting++ === 0) {
      this.#open = Promise.withResolvers()
      noteWaiting(this, true)
    }
    try {
      while (this.count > 0) {
        this.#change ??= Promise.withResolvers()
        await orAbort(this.#change.promise, signal)
      }
      if (signal?.aborted) throw abortError(signal)
      return act()
    } finally {
      if (--this.#waiting === 0) {
        this.#open?.resolve()
        noteWaiting(this, false)
      }
    }
  }

  /** Resolves when new ones need not wait any more. Rejects with `EINTR` when aborted before. */
  async whenOpen(signal: AbortSignal | undefined): Promise<void> {
    while (this.isShut) await orAbort(this.#open!.promise, signal)
  }
}
