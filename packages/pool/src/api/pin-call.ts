import type { Machine } from '../machine.ts'
import type { BufferState } from '../residency/buffer-state.ts'
import { closedBuffer } from '../residency/closed.ts'
import type { PinOptions as MissOptions, PinWaiter } from '../residency/miss.ts'
import type { PageRange } from '../residency/placement.ts'
import type { PinOptions } from './options.ts'
import { PendingCall } from './pending-call.ts'
import { Pin, type PinnedRange } from './pin.ts'

/**
 * A call to pin a range that is not all there. It is one object for everybody on the way of a miss: what is wanted, how, and who is
 * told. What the caller does with its options meanwhile changes nothing.
 */
export class PinCall extends PendingCall<Pin> implements PinnedRange, PageRange, MissOptions, PinWaiter {
  readonly offset: number
  readonly length: number
  readonly first: number
  readonly end: number
  readonly write: boolean
  readonly signal: AbortSignal | undefined
  readonly retryMayFail: boolean | undefined
  readonly madeAt: string | undefined
  readonly #machine: Machine
  readonly #state: BufferState

  constructor(machine: Machine, state: BufferState, options: PinOptions, madeAt: string | undefined) {
    super(state)
    const { pageSizeBytes } = machine
    this.#machine = machine
    this.#state = state
    this.offset = options.offset ?? 0
    this.length = options.length ?? state.sizeBytes - this.offset
    this.first = Math.floor(this.offset / pageSizeBytes)
    this.end = Math.ceil((this.offset + this.length) / pageSizeBytes)
    this.write = options.write ?? false
    this.signal = options.signal
    this.retryMayFail = options.retryMayFail
    this.madeAt = madeAt
  }

  /** Pins, once new pins that write may begin. */
  start(): void {
    const state = this.#state
    if (!this.write || !state.isShutToWriters) {
      this.#machine.readWrite.pinThen(state, this, this, this)
      return
    }
    state.writePins.whenOpen(this.signal).then(
      () => {
        if (state.closing) this.settle(closedBuffer(state))
        else this.start()
      },
      (failure) => this.settle(failure),
    )
  }

  delivered(pinned: number[] | undefined, error: Error | undefined): void {
    const state = this.#state
    if (pinned === undefined) {
      this.settle(error)
    } else if (state.closing) {
      this.#machine.pins.letGo(state, pinned)
      this.settle(closedBuffer(state))
    } else {
      this.settle(undefined, new Pin(this.#machine, state, pinned, this))
    }
  }
}
