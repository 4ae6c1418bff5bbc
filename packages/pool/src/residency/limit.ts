import { abortError, afterThisCode, nowMs, type SpillwayError } from '@spillway/core'
import { noteWaiting } from './exit-check.ts'

/**
 * The hard limit (T57–T59): a page is charged before its memory is taken, and uncharged after it was given up. So the
 * charged pages are an upper bound of the pages in use at every moment.
 *
 *   claim ─▶ enough room and nobody waits: charged at once
 *        └─▶ else last in a queue; only the first claim is served
 *
 * A claim asks for all it needs at once, and holds nothing while it waits, except when it is the first of the queue: then
 * `need` may hold on to what is resident already. One claim at most holds and waits, so claims cannot wait for each other.
 */
export class Limit {
  limitPages: number
  chargedPages = 0
  /** Told that nothing is left in the process that could serve the first claim. */
  onDeadlock: () => void = () => {}
  /** Claims that have left the queue: served, refused or aborted. */
  departures = 0
  /** When a claim of the queue was last served. */
  servedAtMs = 0
  /** Attempts of reclaim to store something that have begun so far: a claim remembers what it was when it came. */
  attempts = 0
  readonly #queue = new Queue()
  /** What all of the queue want. */
  #wantedPages = 0
  #serving = false

  readonly #onShort: () => void

  /** `onShort` is told that the first claim could not be served. */
  constructor(limitPages: number, onShort: () => void = () => {}) {
    this.limitPages = limitPages
    this.#onShort = onShort
  }

  get waiters(): number {
    return this.#queue.length
  }

  /** Who is the first of the queue, if a buffer is. */
  get firstClaimant(): Claimant | undefined {
    return this.#queue.first?.claimant
  }

  /** Whether the first of the queue would rather fail than have a backup try hard. */
  get firstRetryMayFail(): boolean {
    return this.#queue.first?.retryMayFail === true
  }

  /** Attempts that had begun when the first of the queue came. */
  get firstArrivedAt(): number {
    return this.#queue.first?.arrivedAt ?? this.attempts
  }

  get availablePages(): number {
    return this.limitPages - this.chargedPages
  }

  /** Pages that all waiting claims want beyond what is available. */
  get shortPages(): number {
    return this.#queue.length === 0 ? 0 : Math.max(0, this.#wantedPages - this.availablePages)
  }

  /** Pages that the first claim wants beyond what is available. */
  get firstShortPages(): number {
    const { first } = this.#queue
    return first === undefined ? 0 : Math.max(0, first.pages - this.availablePages)
  }

  /** Charges at once, or says false: nobody overtakes a claim that waits. */
  tryCharge(pages: number): boolean {
    if (this.#queue.length > 0 || pages > this.availablePages) return false
    this.chargedPages += pages
    return true
  }

  /**
   * Waits for its turn and for room, and resolves to the pages charged, which is what `need` said last; what
   * `need` throws is the claim's end. `served` is called at the moment of the charge, before anybody else is served: until
   * the promise's continuation runs, nothing else tells that somebody has this memory. Rejects with `EINTR` when aborted,
   * with `ENOMEM` when the room cannot be had; then nothing is charged. With `retryMayFail` it does not wait for a backup that
   * fails now and may not in a while.
   */
  claim(
    pages: number,
    need: () => number,
    signal: AbortSignal | undefined,
    claimant?: Claimant,
    served: () => void = () => {},
    retryMayFail = false,
  ): Promise<number> {
    const fields = { buffer: claimant?.label }
    if (signal?.aborted) return Promise.reject(abortError(signal, fields))
    const { promise, resolve, reject } = Promise.withResolvers<number>()
    const waiting: Waiting = {
      claimant,
      pages,
      need,
      served,
      resolve,
      reject,
      signal,
      retryMayFail,
      arrivedAt: this.attempts,
      abort: undefined,
      isQueued: false,
      before: undefined,
      after: undefined,
    }
    if (signal !== undefined) {
      waiting.abort = () => this.#leave(waiting, abortError(signal, fields))
      signal.addEventListener('abort', waiting.abort, { once: true })
    }
    if (this.#queue.length === 0) noteWaiting(this, true)
    this.#queue.add(waiting)
    this.#wantedPages += pages
    this.serveSoon()
    return promise
  }

  uncharge(pages: number): void {
    this.chargedPages -= pages
    if (this.#queue.length > 0) this.serveSoon()
  }

  /** Refuses the first claim, whose room cannot be had; the error is made for the one that claims. */
  refuseFirst(makeError: (claimant: Claimant | undefined) => SpillwayError): void {
    const { first } = this.#queue
    if (first !== undefined) this.#leave(first, makeError(first.claimant))
  }

  /** Refuses every claim with `retryMayFail`, wherever it is in the queue. */
  refuseRetryMayFail(makeError: (claimant: Claimant | undefined) => SpillwayError): void {
    this.#refuseAll(({ retryMayFail }) => retryMayFail, makeError)
  }

  /** Refuses all claims of a buffer, or of all buffers: it closes. */
  refuse(error: SpillwayError, claimant?: Claimant): void {
    this.#refuseAll(
      (waiting) => claimant === undefined || waiting.claimant === claimant,
      () => error,
    )
  }

  /** Goes through the queue once, however many leave it. */
  #refuseAll(
    leaves: (waiting: Waiting) => boolean,
    makeError: (claimant: Claimant | undefined) => SpillwayError,
  ): void {
    const leaving: Waiting[] = []
    for (let waiting = this.#queue.first; waiting !== undefined; waiting = waiting.after) {
      if (leaves(waiting)) leaving.push(waiting)
    }
    for (const waiting of leaving) this.#leave(waiting, makeError(waiting.claimant))
  }

  #leave(waiting: Waiting, error: SpillwayError): void {
    if (!waiting.isQueued) return
    this.#take(waiting)
    waiting.reject(error)
    if (this.#queue.length > 0) this.serveSoon()
  }

  /** Takes a claim out of the queue. */
  #take(waiting: Waiting): void {
    this.#queue.remove(waiting)
    this.departures++
    if (this.#queue.length === 0) noteWaiting(this, false)
    this.#wantedPages -= waiting.pages
    if (waiting.abort !== undefined) waiting.signal?.removeEventListener('abort', waiting.abort)
  }

  /** Serves who can be served, in a microtask of its own, so that nobody's half-finished step is seen. */
  serveSoon(): void {
    if (this.#serving) return
    this.#serving = true
    afterThisCode(() => {
      this.#serving = false
      this.#serve()
    })
  }

  #serve(): void {
    while (this.#queue.length > 0) {
      const first = this.#queue.first!
      try {
        const pages = first.need()
        this.#wantedPages += pages - first.pages
        first.pages = pages
      } catch (failure) {
        this.#leave(first, failure as SpillwayError)
        continue
      }
      if (first.pages > this.availablePages) {
        this.#onShort()
        return
      }
      this.#take(first)
      this.servedAtMs = nowMs()
      this.chargedPages += first.pages
      first.served()
      first.resolve(first.pages)
    }
  }
}

/** Who claims: a buffer. */
export interface Claimant {
  readonly label: string
}

interface Waiting {
  readonly claimant: Claimant | undefined
  pages: number
  readonly need: () => number
  readonly served: () => void
  readonly resolve: (pages: number) => void
  readonly reject: (error: SpillwayError) => void
  readonly signal: AbortSignal | undefined
  readonly retryMayFail: boolean
  readonly arrivedAt: number
  abort: (() => void) | undefined
  isQueued: boolean
  before: Waiting | undefined
  after: Waiting | undefined
}

/** In order of arrival; whoever leaves does so in one step, however many wait. */
class Queue {
  length = 0
  first: Waiting | undefined
  #last: Waiting | undefined

  add(waiting: Waiting): void {
    waiting.isQueued = true
    waiting.before = this.#last
    if (this.#last === undefined) this.first = waiting
    else this.#last.after = waiting
    this.#last = waiting
    this.length++
  }

  remove(waiting: Waiting): void {
    const { before, after } = waiting
    if (before === undefined) this.first = after
    else before.after = after
    if (after === undefined) this.#last = before
    else after.before = before
    waiting.isQueued = false
    waiting.before = undefined
    waiting.after = undefined
    this.length--
  }
}
