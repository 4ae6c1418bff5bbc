import { type Claim, Limit, type LimitListeners } from './limit.ts'
import type { LimitMember, PoolShare, SharedLimit } from './shared-limit.ts'

/**
 * The limit of a pool: what its budget has left, and at most what it may have of it (`capPages`). A claim that is short of the cap waits for its
 * own pool alone, and holds up nobody else.
 *
 *   first claim ─▶ beyond the cap ─▶ waits for its own pool, holds nothing
 *             └──▶ within ─▶ its turn in the budget? ─▶ needs what it needs now ─▶ charged in both
 */
export class PoolLimit extends Limit implements LimitMember {
  readonly shared: SharedLimit
  readonly pageSizeBytes: number
  readonly share: PoolShare
  /** Infinite for a pool that may have all of its budget. */
  capPages: number
  /** Claims of a cap that is sinking: charged to the cap alone. */
  readonly #capClaims = new WeakSet<Claim>()

  constructor(
    shared: SharedLimit,
    { pageSizeBytes, capPages = Number.POSITIVE_INFINITY, share = noShare }: PoolLimitOptions,
    listeners?: LimitListeners,
  ) {
    super(0, listeners)
    this.shared = shared
    this.pageSizeBytes = pageSizeBytes
    this.capPages = capPages
    this.share = share
    shared.add(this)
  }

  override get limitPages(): number {
    return Math.min(this.capPages, Math.floor(this.shared.limitBytes / this.pageSizeBytes))
  }

  override get attempts(): number {
    return this.shared.attempts
  }

  override set attempts(attempts: number) {
    this.shared.attempts = attempts
  }

  override get availablePages(): number {
    return Math.min(this.#availableOfCap, Math.floor(this.shared.availableBytes / this.pageSizeBytes))
  }

  get #availableOfCap(): number {
    return this.capPages - this.chargedPages
  }

  /** Pages that the first claim, and all of them, want beyond the cap. */
  get firstBeyondCapPages(): number {
    return Math.max(0, (this.first?.pages ?? 0) - this.#availableOfCap)
  }

  get beyondCapPages(): number {
    return Math.max(0, this.wantedPages - this.#availableOfCap)
  }

  /** Whether the first claim waits for its own pool alone. */
  get waitsForCap(): boolean {
    return this.first !== undefined && this.firstForBudget === undefined
  }

  /** What the pool is to have of its budget. */
  get sharePages(): number {
    return Math.min(this.capPages, Math.floor(this.shared.shareOf(this) / this.pageSizeBytes))
  }

  get chargedBytes(): number {
    return this.chargedPages * this.pageSizeBytes
  }

  get firstForBudget(): Claim | undefined {
    const { first } = this
    if (first === undefined || this.firstBeyondCapPages > 0 || this.#capClaims.has(first)) return undefined
    return first
  }

  get wantedBytes(): number {
    if (this.firstForBudget === undefined) return 0
    return Math.min(this.wantedPages, this.#availableOfCap) * this.pageSizeBytes
  }

  override tryCharge(pages: number): boolean {
    // Nobody overtakes a claim of another pool either.
    return !this.shared.isWaitedFor && super.tryCharge(pages)
  }

  override claim(claim: Claim): void {
    claim.ticket = this.shared.takeTicket()
    super.claim(claim)
  }

  override uncharge(pages: number): void {
    super.uncharge(pages)
    this.shared.uncharge(pages * this.pageSizeBytes)
  }

  /** Charges the cap alone: it is to sink by so much. */
  chargeCap(need: () => number, signal: AbortSignal): Promise<number> {
    return super.charge(need, signal, (claim) => this.#capClaims.add(claim))
  }

  tryChargeCap(pages: number): boolean {
    if (this.first !== undefined || pages > this.#availableOfCap) return false
    super.take(pages)
    return true
  }

  unchargeCap(pages: number): void {
    super.uncharge(pages)
  }

  /** The pool is closed. */
  leave(): void {
    this.shared.delete(this)
  }

  protected override availableFor(claim: Claim): number {
    return this.#capClaims.has(claim) ? this.#availableOfCap : this.availablePages
  }

  protected override take(pages: number, claim?: Claim): void {
    super.take(pages)
    if (claim !== undefined && this.#capClaims.has(claim)) return
    this.shared.charge(pages * this.pageSizeBytes)
  }

  protected override mayServe(): boolean {
    if (this.firstBeyondCapPages > 0) {
      this.tellShort()
      return false
    }
    return this.#capClaims.has(this.first!) || this.shared.takeTurn(this)
  }

  protected override tellShort(): void {
    if (this.firstBeyondCapPages > 0) {
      // It waits for its own pool: others need not wait for it, nor for what it holds.
      this.first!.letGo?.()
      this.shared.endTurn(this)
    }
    super.tellShort()
  }

  protected override firstLeft(): void {
    this.shared.endTurn(this)
  }

  protected override countWaiters(change: number): void {
    this.waiters += change
    this.shared.countWaiters(change)
  }
}

interface PoolLimitOptions {
  readonly pageSizeBytes: number
  readonly capPages?: number | undefined
  readonly share?: PoolShare | undefined
}

const noShare: PoolShare = { weight: 0, minPages: 0, lowPages: 0 }
