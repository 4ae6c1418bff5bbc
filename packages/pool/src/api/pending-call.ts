import { mayWork, onTurn, sliceBytes, smallCallBytes } from '@spillway/core'
import type { BufferState } from '../residency/buffer-state.ts'
import type { HeldRange } from '../residency/growth.ts'

/**
 * A call of the application about a buffer, from its beginning until its promise is settled: the one promise that it makes.
 *
 * It may be one of a loop that waits for nothing else: the event loop gets its turn before the call settles, well or not, when
 * such calls have held it long enough. What was copied in slices has been waited for in between.
 */
export class PendingCall<Result> {
  readonly promise: Promise<Result>
  readonly #buffer: BufferState
  readonly #workBytes: number
  #resolve!: (result: Result) => void
  #reject!: (error: Error) => void
  #hasBegun = false
  #held: HeldRange | undefined

  /** `copiedBytes`: what the call copies. */
  constructor(buffer: BufferState, copiedBytes = 0) {
    this.#buffer = buffer
    this.#workBytes = smallCallBytes + (copiedBytes > sliceBytes ? 0 : copiedBytes)
    this.promise = new Promise((resolve, reject) => {
      this.#resolve = resolve
      this.#reject = reject
    })
  }

  /** Counts as an operation from now on, so that `free` waits for it. A buffer that grows must not lose `range` meanwhile. */
  begin(range?: HeldRange): void {
    const buffer = this.#buffer
    buffer.operations++
    this.#hasBegun = true
    if (range === undefined || buffer.growth === undefined) return
    buffer.growth.hold(range)
    this.#held = range
  }

  /** It is over: with an error, or with its result. */
  settle(error?: Error, result?: Result): void {
    if (this.#held !== undefined) this.#buffer.growth?.letGo(this.#held)
    if (this.#hasBegun) this.#buffer.endOperation()
    if (mayWork(this.#workBytes)) this.#end(error, result)
    else this.#endOnTurn(error, result)
  }

  #endOnTurn(error: Error | undefined, result: Result | undefined): void {
    onTurn(this.#workBytes, () => this.#end(error, result))
  }

  #end(error: Error | undefined, result: Result | undefined): void {
    if (error === undefined) this.#resolve(result as Result)
    else this.#reject(error)
  }
}
