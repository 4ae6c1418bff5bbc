import {
  abortError,
  afterThisCode,
  mayWork,
  nowMs,
  onTurn,
  type SpillwayError,
  smallCallBytes,
} from '@spillway/core'
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
  chargedPages = 0
  /** Claims that have left the queue: served, refused or aborted. */
  departures = 0
  /** Claims that wait, in the order of arrival. */
  #first: Claim | undefined
  #last: Claim | undefined
  waiters = 0
  /** What all of the queue want. */
  #wantedPages = 0
  #serving = false
  #limitPages: number
  #attempts = 0
  /** When a claim of the queue was last served. */
  servedAtMs = 0
  readonly #onShort: () => void
  readonly #onDeadlock: () => void

  constructor(limitPages: number, { onShort = () => {}, onDeadlock = () => {} }: LimitListeners = {}) {
    this.#limitPages = limitPages
    this.#onShort = onShort
    this.#onDeadlock = onDeadlock
  }

  get limitPages(): number {
    return this.#limitPages
  }

  set limitPages(pages: number) {
    this.#limitPages = pages
  }

  /** Attempts of reclaim to store something that have begun so far: a claim remembers what it was when it came. */
  get attempts(): number {
    return this.#attempts
  }

  set attempts(attempts: number) {
    this.#attempts = attempts
  }

  /** The process is about to end while somebody waits. */
  onDeadlock(): void {
    this.#onDeadlock()
  }

  /** The first of the queue. */
  get first(): Claim | undefined {
    return this.#first
  }

  /** What all claims of the queue want. */
  get wantedPages(): number {
    return this.#wantedPages
  }

  /** Who is the first of the queue, if a buffer is. */
  get firstClaimant(): Claimant | undefined {
    return this.#first?.claimant
  }

  /** Whether the first of the queue would rather fail than have a backup try hard. */
  get firstRetryMayFail(): boolean {
    return this.#first?.retryMayFail === true
  }

  /** Attempts that had begun when the first of the queue came. */
  get firstArrivedAt(): number {
    return this.#first?.arrivedAt ?? this.attempts
  }

  get availablePages(): number {
    return this.limitPages - this.chargedPages
  }

  /** Pages that the first claim wants beyond what is available. */
  get firstShortPages(): number {
    return this.#first === undefined ? 0 : Math.max(0, this.#first.pages - this.availablePages)
  }

  /** Charges at once, or says false: nobody overtakes a claim that waits. */
  tryCharge(pages: number): boolean {
    if (this.#first !== undefined || pages > this.availablePages) return false
    this.take(pages)
    return true
  }

  // What a limit that is part of another one does differently.

  protected take(pages: number, _claim?: Claim): void {
    this.chargedPages += pages
  }

  /** Whether it is the turn of the first claim; asked before it may hold on to anything. */
  protected mayServe(): boolean {
    return true
  }

  protected availableFor(_claim: Claim): number {
    return this.availablePages
  }

  /** The first claim left. */
  protected firstLeft(): void {}

  protected countWaiters(change: number): void {
    if (this.waiters === 0) noteWaiting(this, true)
    this.waiters += change
    if (this.waiters === 0) noteWaiting(this, false)
  }

  /** The first claim could not be served. */
  protected tellShort(): void {
    this.#onShort()
  }

  /**
   * Puts a claim into the queue, for its `pages`. When its turn has come and there is room for what it needs then, that is
   * charged and it is told `served`, before anybody else is served. Or it is told `refused`; then nothing is charged.
   */
  claim(claim: Claim): void {
    claim.arrivedAt = this.attempts
    claim.isQueued = true
    claim.previousClaim = this.#last
    if (this.#last === undefined) this.#first = claim
    else this.#last.nextClaim = claim
    this.#last = claim
    this.#wantedPages += claim.pages
    this.countWaiters(1)
    this.serveSoon()
  }

  /** The same as a promise, for a claim of nobody's buffer; resolves to what `need` said last, which is charged. */
  charge(
    need: () => number,
    signal: AbortSignal,
    noteClaim: (claim: Claim) => void = () => {},
  ): Promise<number> {
    // A listener of a signal that is aborted already is never called.
    if (signal.aborted) return Promise.reject(abortError(signal))
    return new Promise<number>((resolve, reject) => {
      const claim = new PlainClaim(need, resolve, reject)
      noteClaim(claim)
      const abort = () => {
        this.withdraw(claim)
        reject(abortError(signal))
      }
      claim.ended = () => signal.removeEventListener('abort', abort)
      signal.addEventListener('abort', abort, { once: true })
      this.claim(claim)
    })
  }

  /** Takes a claim out of the queue: it is told nothing any more. */
  withdraw(claim: Claim): void {
    if (!claim.isQueued) return
    this.#unlink(claim)
    this.departures++
    if (this.#first !== undefined) this.serveSoon()
  }

  uncharge(pages: number): void {
    this.chargedPages -= pages
    if (this.#first !== undefined) this.serveSoon()
  }

  /** Refuses the first claim, whose room cannot be had; the error is made for the one that claims. */
  refuseFirst(makeError: (claimant: Claimant | undefined) => SpillwayError): void {
    const first = this.#first
    if (first === undefined) return
    this.withdraw(first)
    first.refused(makeError(first.claimant))
  }

  /** Refuses every claim with `retryMayFail`, wherever it is in the queue. */
  refuseRetryMayFail(makeError: (claimant: Claimant | undefined) => SpillwayError): void {
    this.#refuseAll(({ retryMayFail }) => retryMayFail, makeError)
  }

  /** Refuses all claims of a buffer, or of all buffers: it closes. */
  refuse(error: SpillwayError, claimant?: Claimant): void {
    this.#refuseAll(
      (claim) => claimant === undefined || claim.claimant === claimant,
      () => error,
    )
  }

  /** Goes through the queue once, however many leave it. */
  #refuseAll(
    leaves: (claim: Claim) => boolean,
    makeError: (claimant: Claimant | undefined) => SpillwayError,
  ): void {
    const leaving: Claim[] = []
    for (let claim = this.#first; claim !== undefined; claim = claim.nextClaim) {
      if (leaves(claim)) leaving.push(claim)
    }
    for (const claim of leaving) this.withdraw(claim)
    for (const claim of leaving) claim.refused(makeError(claim.claimant))
  }

  #unlink(claim: Claim): void {
    const { previousClaim, nextClaim } = claim
    if (previousClaim === undefined) this.#first = nextClaim
    else previousClaim.nextClaim = nextClaim
    if (nextClaim === undefined) this.#last = previousClaim
    else nextClaim.previousClaim = previousClaim
    claim.previousClaim = undefined
    claim.nextClaim = undefined
    claim.isQueued = false
    this.#wantedPages -= claim.pages
    this.countWaiters(-1)
    if (previousClaim === undefined) this.firstLeft()
  }

  /** Serves who can be served, in a microtask of its own, so that nobody's half-finished step is seen. */
  serveSoon(): void {
    if (this.#serving) return
    this.#serving = true
    afterThisCode(this.#serve)
  }

  readonly #serve = (): void => {
    this.#serving = false
    while (this.#first !== undefined && this.mayServe()) {
      // Thousands of claims that can be served at once are thousands of chunks to make: the event loop has its turns between.
      if (!mayWork(smallCallBytes)) {
        this.#serving = true
        onTurn(smallCallBytes, this.#serve)
        return
      }
      const first = this.#first
      try {
        const pages = first.need()
        this.#wantedPages += pages - first.pages
        first.pages = pages
      } catch (failure) {
        this.withdraw(first)
        first.refused(failure as Error)
        continue
      }
      if (first.pages > this.availableFor(first)) {
        this.tellShort()
        return
      }
      this.#unlink(first)
      this.departures++
      this.servedAtMs = nowMs()
      this.take(first.pages, first)
      first.served(first.pages)
    }
  }
}

export interface LimitListeners {
  /** Told that the first claim could not be served. */
  readonly onShort?: () => void
  /** Told that nothing is left in the process that could serve the first claim. */
  readonly onDeadlock?: () => void
}

/** Somebody who waits for room; the queue keeps its own marks in it. */
export interface Claim {
  /** Who claims; undefined for the limit itself. */
  readonly claimant: Claimant | undefined
  /** What it wants; changed by nobody but the limit while it waits. */
  pages: number
  /** Does not wait for a backup that fails now and may not in a while. */
  readonly retryMayFail: boolean
  /** What it needs now; asked when it is the first. What is thrown is the claim's end. */
  need(): number
  served(pages: number): void
  refused(error: Error): void
  /** Releases what `need` held on to: it is another's turn. */
  letGo?(): void
  arrivedAt: number
  /** Its place in the order of claims of all pools of a budget. */
  ticket: number
  nextClaim: Claim | undefined
  previousClaim: Claim | undefined
  isQueued: boolean
}

class PlainClaim implements Claim {
  readonly claimant = undefined
  readonly retryMayFail = false
  pages: number
  arrivedAt = 0
  ticket = 0
  nextClaim: Claim | undefined
  previousClaim: Claim | undefined
  isQueued = false
  ended: () => void = () => {}
  readonly need: () => number
  readonly #resolve: (pages: number) => void
  readonly #reject: (error: Error) => void

  constructor(need: () => number, resolve: (pages: number) => void, reject: (error: Error) => void) {
    this.need = need
    this.pages = need()
    this.#resolve = resolve
    this.#reject = reject
  }

  served(pages: number): void {
    this.ended()
    this.#resolve(pages)
  }

  refused(error: Error): void {
    this.ended()
    this.#reject(error)
  }
}

/** Who claims: a buffer. */
export interface Claimant {
  readonly label: string
}
