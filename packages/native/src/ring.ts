import { assertBytes, assertFd, assertKnownOptions } from './checks.ts'
import { systemError } from './errors.ts'
import { afterInput, afterThisCode, nowMs } from './host.ts'
import { busyChecks, requestDone } from './region.ts'
import {
  memoryOf,
  type Request,
  type RequestMemory,
  RequestQueue,
  requestError,
  type Settle,
  settleRequest,
  uses,
} from './requests.ts'
import {
  openQueues,
  operationNoop,
  operationRead,
  operationSync,
  operationWrite,
  type Queues,
  syncDataOnly,
} from './ring-queues.ts'
import { ShortWaits } from './short-waits.ts'
import { openWaiter, type Waiter, waitInThread } from './waiter.ts'

/*
 * A request goes through these states; `inFlight` counts all but the last:
 *
 *     queued ──slot free──▶ pushed ──end of tick──▶ in the kernel ──result──▶ settled
 *                             ▲                          │
 *                             └── interrupted, try again ┘
 *
 * Results are settled a few at a time. Between two handfuls the continuations of the promises run, and what they ask
 * for is submitted, so that the device always has work while JavaScript deals with the rest.
 */

const interrupted = 4
const again = 11
const busy = 16
const badDescriptor = 9
const noSlot = -1
const maxRetries = 100
const leastPerStep = 2
/** After this long the event loop gets a turn, whatever is left. */
const maxTurnMs = 1

/** Reads and writes files through an io_uring of the kernel. */
export class Ring implements AsyncDisposable {
  readonly #queues: Queues
  readonly #waiter: Waiter
  readonly #slots: (Request | undefined)[]
  readonly #freeSlots: number[]
  readonly #waiting = new RequestQueue()
  readonly #shortWaits = new ShortWaits()
  #inFlight = 0
  #scheduled = false
  #isStepping = false
  #turnEnds = 0
  #lost = false
  #failure: Error | undefined
  #closed: Promise<void> | undefined
  #finishClose: (() => void) | undefined

  private constructor(entries: number, open: typeof openWaiter) {
    this.#queues = openQueues(entries)
    try {
      this.#waiter = open(
        this.#queues.fd,
        () => this.#ready(),
        () => this.#wake(),
      )
    } catch (error) {
      this.#queues.close()
      throw error
    }
    this.#slots = new Array(this.#queues.entries).fill(undefined)
    this.#freeSlots = Array.from(
      { length: this.#queues.entries },
      (_, index) => this.#queues.entries - 1 - index,
    )
    busyChecks.add(this.#isBusy)
  }

  /**
   * Opens a ring with room for `entries` requests in the kernel (1 to 4096, rounded up to a power of two); further
   * ones wait their turn in order. Errors: `ENOSYS`, `EPERM` (containers often forbid it: see `available()`),
   * `ENOMEM`, `EMFILE`.
   */
  static open(options: { readonly entries: number }): Ring {
    assertKnownOptions(options, ['entries'], 'Ring.open')
    return new Ring(options.entries, openWaiter)
  }

  /** @internal A ring that waits in a thread, as where the descriptor cannot be watched. */
  static openWithThread(options: { readonly entries: number }): Ring {
    return new Ring(options.entries, waitInThread)
  }

  /** Requests that have not been settled yet. */
  get inFlight(): number {
    return this.#inFlight
  }

  /**
   * Reads into `span` from `offsetBytes` of the file. Resolves to the bytes read, 0 at the end of the file; may be fewer
   * than asked for. Until it is settled, the memory stays where it is. Rejects with the errno's code (`EIO`, `EBADF`,
   * `EINVAL`, …; `EBADF` after `close()`). `TypeError` unless `span` is memory of an open Mapping.
   */
  read(fd: number, span: Uint8Array, offsetBytes: number): Promise<number> {
    return this.#move(operationRead, fd, span, offsetBytes)
  }

  /**
   * As `read`, without a promise: `done` is called later, with the bytes read or the error that `read` would reject with. False:
   * the ring is closed or has failed, and nothing was begun. What `done` throws is uncaught, and stops nothing else.
   */
  readThen(
    fd: number,
    span: Uint8Array,
    offsetBytes: number,
    done: (outcome: number | Error) => void,
  ): boolean {
    if (typeof done !== 'function') throw new TypeError('done is not a function')
    assertFd(fd)
    assertBytes(offsetBytes, 'offsetBytes')
    const memory = memoryOf(span)
    if (this.#refusal() !== undefined) return false
    this.#push(moving(operationRead, { fd, offset: offsetBytes }, memory, done))
    return true
  }

  /** Writes `span` to `offsetBytes` of the file. Resolves to the bytes written, which may be fewer; else as `read`. */
  write(fd: number, span: Uint8Array, offsetBytes: number): Promise<number> {
    return this.#move(operationWrite, fd, span, offsetBytes)
  }

  /**
   * Pushes to stable storage what has been written to the file (await the writes first); with `dataOnly` as fdatasync
   * does. Rejects with the errno's code.
   */
  async sync(fd: number, options: { readonly dataOnly?: boolean } = {}): Promise<void> {
    assertKnownOptions(options, ['dataOnly'], 'Ring.sync')
    assertFd(fd)
    const flags = options.dataOnly === true ? syncDataOnly : 0
    await this.#request((settle) => ({
      operation: operationSync,
      fd,
      address: 0,
      lengthBytes: 0,
      offset: 0,
      flags,
      region: undefined,
      settle,
      retries: 0,
      next: undefined,
    }))
  }

  /** Waits for what is in flight, then gives everything back. New requests are refused at once. Idempotent. */
  close(): Promise<void> {
    this.#closed ??= new Promise((resolve) => {
      this.#finishClose = () => {
        this.#finishClose = undefined
        busyChecks.delete(this.#isBusy)
        this.#waiter.close(() => {
          this.#queues.close(this.#lost)
          resolve()
        })
      }
      // Called by `done` of a request, it waits for the end of the step that settles it.
      if (this.#inFlight === 0 && !this.#isStepping) this.#finishClose()
    })
    return this.#closed
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  #move(operation: number, fd: number, span: Uint8Array, offsetBytes: number): Promise<number> {
    assertFd(fd)
    assertBytes(offsetBytes, 'offsetBytes')
    const memory = memoryOf(span)
    return this.#request((settle) => moving(operation, { fd, offset: offsetBytes }, memory, settle))
  }

  #request(make: (settle: Settle) => Request): Promise<number> {
    return new Promise((resolve, reject) => {
      const refusal = this.#refusal()
      if (refusal !== undefined) {
        reject(refusal)
        return
      }
      const settle = (outcome: number | Error) => {
        if (typeof outcome === 'number') resolve(outcome)
        else reject(outcome)
      }
      this.#push(make(settle))
    })
  }

  /** Why nothing is taken any more. */
  #refusal(): Error | undefined {
    if (this.#closed !== undefined) return systemError(badDescriptor, 'io_uring_enter', 'the ring is closed')
    return this.#failure
  }

  #push(request: Request): void {
    this.#inFlight++
    if (request.region !== undefined) request.region.inFlight++
    this.#waiting.push(request)
    this.#schedule()
  }

  /** Has `#step` run when the promises of this tick have run, or later when this turn has taken long enough. */
  #schedule(): void {
    if (this.#scheduled) return
    this.#scheduled = true
    if (nowMs() < this.#turnEnds) afterThisCode(this.#afterPromises)
    else afterInput(this.#startTurn)
  }

  readonly #afterPromises = () => process.nextTick(this.#startStep)

  readonly #startStep = () => {
    this.#scheduled = false
    this.#step()
  }

  readonly #startTurn = () => {
    this.#turnEnds = nowMs() + maxTurnMs
    this.#startStep()
  }

  /** The waiter says that there are results. */
  #ready(): void {
    // What is scheduled runs in this turn of the event loop anyway.
    if (!this.#scheduled) this.#startTurn()
  }

  /** Submits what was asked for, settles a handful of results, and sees to it that this goes on. */
  #step(): void {
    this.#isStepping = true
    this.#submit()
    const most = Math.max(leastPerStep, this.#inFlight >> 3)
    this.#queues.drain(most, this.#settle)
    this.#isStepping = false
    if (this.#inFlight === 0) {
      this.#waiter.rest()
      this.#finishClose?.()
    } else if (this.#queues.hasResults || this.#inKernel() === 0) {
      this.#schedule()
    } else if (!this.#scheduled && this.#shortWaits.isWorthLooking(nowMs())) {
      this.#scheduled = true
      afterInput(this.#look)
    } else {
      this.#waiter.wait()
    }
  }

  /** Looks whether there is anything to do yet, as long as that seems soon. */
  readonly #look = () => {
    if (this.#queues.hasResults) {
      this.#shortWaits.succeeded()
    } else if (this.#waiting.isEmpty && this.#failure === undefined) {
      if (this.#shortWaits.isWorthLooking(nowMs())) {
        afterInput(this.#look)
      } else {
        this.#scheduled = false
        this.#waiter.wait()
      }
      return
    }
    this.#startTurn()
  }

  /** Lets a request that does nothing come back; there is room, since nothing else is in flight. */
  #wake(): void {
    if (this.#failure !== undefined) return
    this.#queues.push(operationNoop, -1, 0, 0, 0, 0, noSlot)
    this.#queues.submit()
  }

  #inKernel(): number {
    return this.#queues.entries - this.#freeSlots.length - this.#queues.unsubmitted
  }

  #submit(): void {
    while (this.#freeSlots.length > 0) {
      const request = this.#waiting.shift()
      if (request === undefined) break
      const slot = this.#freeSlots.pop() as number
      this.#slots[slot] = request
      const { operation, fd, address, lengthBytes, offset, flags, region } = request
      this.#queues.push(operation, fd, address, lengthBytes, offset, flags, slot)
      if (region !== undefined) this.#shortWaits.requested(lengthBytes)
    }
    if (this.#queues.unsubmitted === 0) return
    const errno = this.#queues.submit()
    // Short of memory or behind with results: what could not be handed over goes with the next step.
    if (errno !== 0 && errno !== again && errno !== busy) this.#fail(errno)
  }

  readonly #settle = (slot: number, result: number) => {
    const request = this.#slots[slot]
    if (request === undefined) return
    this.#slots[slot] = undefined
    this.#freeSlots.push(slot)
    if ((result === -interrupted || result === -again) && request.retries < maxRetries) {
      request.retries++
      this.#waiting.push(request)
      this.#schedule()
    } else {
      this.#finish(request, result < 0 ? requestError(request, -result) : result)
    }
  }

  #finish(request: Request, outcome: number | Error): void {
    this.#inFlight--
    if (request.region !== undefined) requestDone(request.region)
    settleRequest(request, outcome)
  }

  /** The kernel takes nothing more: refuses what it has not got. What it has still comes back, if it can. */
  #fail(errno: number): void {
    this.#failure = systemError(errno, 'io_uring_enter', 'the ring failed')
    for (const slot of this.#queues.takeBack()) {
      const request = this.#slots[slot] as Request
      this.#slots[slot] = undefined
      this.#freeSlots.push(slot)
      this.#finish(request, this.#failure)
    }
    for (let request = this.#waiting.shift(); request !== undefined; request = this.#waiting.shift()) {
      this.#finish(request, this.#failure)
    }
    if (errno !== badDescriptor) return
    // Someone closed the descriptor under us, and no result will ever be seen. The kernel may still write to the
    // memory of these requests: their mappings keep them in flight, so that it is never given back.
    this.#lost = true
    for (let slot = 0; slot < this.#slots.length; slot++) {
      const request = this.#slots[slot]
      if (request === undefined) continue
      this.#slots[slot] = undefined
      this.#freeSlots.push(slot)
      this.#inFlight--
      settleRequest(request, this.#failure)
    }
  }

  readonly #isBusy = (from: number, to: number): boolean =>
    this.#slots.some((request) => request !== undefined && uses(request, from, to)) ||
    this.#waiting.some((request) => uses(request, from, to))
}

/** A request that moves bytes between a file and memory. */
function moving(operation: number, file: FilePlace, memory: RequestMemory, settle: Settle): Request {
  const { address, lengthBytes, region } = memory
  const { fd, offset } = file
  return {
    operation,
    fd,
    address,
    lengthBytes,
    offset,
    flags: 0,
    region,
    settle,
    retries: 0,
    next: undefined,
  }
}

type FilePlace = Pick<Request, 'fd' | 'offset'>
