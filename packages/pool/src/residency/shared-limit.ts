import { noteWaiting } from './exit-check.ts'
import type { Claim, Limit } from './limit.ts'

/** What a pool is to have of its budget. */
export interface PoolShare {
  readonly weight: number
  /** Never taken by other pools. */
  readonly minPages: number
  /** Taken by other pools only when nothing else is left. */
  readonly lowPages: number
}

/** The limit of a pool, or of the budget itself, with its queue of claims. */
export interface LimitMember extends Limit {
  readonly pageSizeBytes: number
  readonly share: PoolShare
  /** The first claim that waits for the budget; none when it waits for nothing but its own pool. */
  readonly firstForBudget: Claim | undefined
  /** Bytes that claims want of the budget. */
  readonly wantedBytes: number
}

/**
 * The one owner of the sum: what all pools of a budget are charged with, in bytes. Never more than the limit, at any moment.
 *
 * Each pool has its queue of claims; which of them is served is decided here. Only one claim at a time has the turn, the one
 * that came first, and keeps it until it leaves: it alone may hold on to memory while it waits. So no two claims can wait
 * for what the other holds, in whatever pools they are.
 */
export class SharedLimit {
  limitBytes: number
  chargedBytes = 0
  /** Attempts of reclaim to store something that have begun so far, in all pools. */
  attempts = 0
  /** Waiting claims of all pools, those that wait for their own pool too. */
  waiters = 0
  /** What no pool takes from another, of all pools together. */
  minBytes = 0
  #weights = 0
  readonly #members = new Set<LimitMember>()
  readonly #onDeadlock: () => void
  #turn: LimitMember | undefined
  #nextTicket = 0

  /** `onDeadlock` is told when nothing is left in the process that could serve a claim. */
  constructor(limitBytes: number, onDeadlock: () => void = () => {}) {
    this.limitBytes = limitBytes
    this.#onDeadlock = onDeadlock
  }

  get availableBytes(): number {
    return this.limitBytes - this.chargedBytes
  }

  add(member: LimitMember): void {
    this.#members.add(member)
    this.#countShares()
  }

  /** What a pool is to have: its minimum, and by its weight a part of what is left beside all minima. */
  shareOf({ share, pageSizeBytes }: LimitMember): number {
    const part = this.#weights === 0 ? 0 : share.weight / this.#weights
    return share.minPages * pageSizeBytes + part * Math.max(0, this.limitBytes - this.minBytes)
  }

  delete(member: LimitMember): void {
    this.#members.delete(member)
    this.#countShares()
    this.endTurn(member)
  }

  #countShares(): void {
    this.minBytes = 0
    this.#weights = 0
    for (const { share, pageSizeBytes } of this.#members) {
      this.minBytes += share.minPages * pageSizeBytes
      this.#weights += share.weight
    }
  }

  /** Numbers claims in the order in which they come, whatever their pools. */
  takeTicket(): number {
    return this.#nextTicket++
  }

  charge(bytes: number): void {
    this.chargedBytes += bytes
  }

  uncharge(bytes: number): void {
    this.chargedBytes -= bytes
    if (this.waiters > 0) this.wake()
  }

  /** A claim has joined a queue (1) or left it (−1). */
  countWaiters(change: number): void {
    if (this.waiters === 0) noteWaiting(this, true)
    this.waiters += change
    if (this.waiters === 0) noteWaiting(this, false)
  }

  /** The process is about to end while somebody waits. */
  onDeadlock(): void {
    this.#onDeadlock()
  }

  /** Whether a claim waits for the budget: then nobody is charged without waiting. */
  get isWaitedFor(): boolean {
    return this.waiters > 0 && this.head !== undefined
  }

  /** The pool whose first claim is served now, or next. */
  get head(): LimitMember | undefined {
    if (this.#turn?.firstForBudget !== undefined) return this.#turn
    let first: LimitMember | undefined
    let firstTicket = Number.POSITIVE_INFINITY
    for (const member of this.#members) {
      const ticket = member.firstForBudget?.ticket
      if (ticket === undefined || ticket >= firstTicket) continue
      first = member
      firstTicket = ticket
    }
    return first
  }

  /** Bytes that waiting claims want beyond what is available. */
  get shortBytes(): number {
    if (this.waiters === 0) return 0
    let wanted = 0
    for (const { wantedBytes } of this.#members) wanted += wantedBytes
    return Math.max(0, wanted - this.availableBytes)
  }

  /** Whether a pool's first claim may be served now; otherwise the one whose turn it is looks again. */
  takeTurn(member: LimitMember): boolean {
    const head = this.head
    this.#turn = head
    if (head === member) return true
    head?.serveSoon()
    return false
  }

  /** The claim that had the turn has left, or waits for its own pool. */
  endTurn(member: LimitMember): void {
    if (this.#turn === member) this.#turn = undefined
    if (this.waiters > 0) this.wake()
  }

  /** Something has changed: the claim whose turn it is looks again. */
  wake(): void {
    this.head?.serveSoon()
  }

  /** Claims that have left a queue. */
  get departures(): number {
    let sum = 0
    for (const { departures } of this.#members) sum += departures
    return sum
  }

  /** When a claim was last served. */
  get servedAtMs(): number {
    let last = 0
    for (const { servedAtMs } of this.#members) last = Math.max(last, servedAtMs)
    return last
  }
}
