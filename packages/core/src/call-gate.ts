import { SpillwayError } from './errors.ts'
import { pace, smallCallBytes } from './pace.ts'

/**
 * The lifecycle that every backup has:
 *
 *   open ── close() ──▶ closing ── last call left ──▶ closed
 *    │                     │                            │
 *   calls enter         EBADF                         EBADF
 */
export class CallGate {
  readonly #backup: string
  #inFlight = 0
  #idle: (() => void) | undefined
  #closed: Promise<void> | undefined

  /** `backup` names the owner in errors. */
  constructor(backup: string) {
    this.#backup = backup
  }

  get isOpen(): boolean {
    return this.#closed === undefined
  }

  /** Throws `EBADF` once `close` was called. */
  assertOpen(): void {
    if (!this.isOpen) {
      throw new SpillwayError('EBADF', `backup ${this.#backup} is closed`, { backup: this.#backup })
    }
  }

  /** Lets a call in that ends with `leave`, and makes `close` wait for it. False once `close` was called. */
  enter(): boolean {
    if (!this.isOpen) return false
    this.#inFlight++
    return true
  }

  /** Ends a call that `enter` let in. */
  leave(): void {
    this.#inFlight--
    if (this.#inFlight === 0) this.#idle?.()
  }

  /**
   * Runs `call`, and makes `close` wait for it. Throws `EBADF` once `close` was called. The event loop gets its turn before the call
   * settles, when calls that are answered at once have held it long enough.
   */
  async run<Result>(call: () => Promise<Result>): Promise<Result> {
    try {
      return await this.#runInside(call)
    } finally {
      const turn = pace(smallCallBytes)
      if (turn !== undefined) await turn
    }
  }

  async #runInside<Result>(call: () => Promise<Result>): Promise<Result> {
    this.assertOpen()
    this.#inFlight++
    try {
      return await call()
    } finally {
      this.leave()
    }
  }

  /** Lets nothing in any more, waits for what is in flight, then runs `finish`: once, however often it is called. */
  close(finish: () => void | Promise<void>): Promise<void> {
    this.#closed ??= this.#drain().then(finish)
    return this.#closed
  }

  async #drain(): Promise<void> {
    if (this.#inFlight === 0) return
    await new Promise<void>((resolve) => {
      this.#idle = resolve
    })
  }
}
