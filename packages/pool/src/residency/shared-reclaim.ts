import { type HostTimer, nowMs, type SpillwayError, startTimer, stopTimer } from '@spillway/core'
import { poolTitle } from '../ground/trace.ts'
import type { BackingStore } from './backing-store.ts'
import type { Claimant, Limit } from './limit.ts'
import type { PoolLimit } from './pool-limit.ts'
import type { Reclaim } from './reclaim.ts'
import { describePins, refusal, whyNothingLeaves } from './refusal.ts'
import type { SharedLimit } from './shared-limit.ts'
import { StallWarning } from './stall-warning.ts'

/** How far a pool is taken down for others. */
type Floor = 'share' | 'low' | 'min'
const floors = ['share', 'low', 'min'] as const

/**
 * Decides which pool of a budget gives when the limit is reached, and who is refused when none can:
 *
 *   short? ─▶ the pool furthest above its share, then the next ─▶ the pool that claims, from itself
 *             ─▶ others down to `lowBytes` ─▶ down to `minBytes` ─▶ nothing in flight anywhere: refuse, or wait for a pin
 *
 * One that is pinned, full or failing gives nothing, and so is passed over. A pool alone gives all that it can.
 */
export class SharedReclaim {
  readonly stallWarning: StallWarning
  readonly #shared: SharedLimit
  readonly #pools = new Map<Limit, Reclaim>()
  readonly #name: string
  #retry: HostTimer | undefined
  #retryAtMs = 0

  /** `title` is what the budget is called in warnings. */
  constructor(shared: SharedLimit, name: string, title: string) {
    this.#shared = shared
    this.#name = name
    const firstClaimant = () => this.#firstClaimant()
    const waiting = {
      get waiters() {
        return shared.waiters
      },
      get departures() {
        return shared.departures
      },
      get servedAtMs() {
        return shared.servedAtMs
      },
      get firstClaimant() {
        return firstClaimant()
      },
    }
    this.stallWarning = new StallWarning(
      waiting,
      title,
      () => this.#waitsForPins(),
      () => this.#describePins(),
    )
  }

  add(pool: Reclaim): void {
    this.#pools.set(pool.limit, pool)
  }

  delete(pool: Reclaim): void {
    this.#pools.delete(pool.limit)
    if (this.#pools.size > 0) return
    stopTimer(this.#retry)
    this.#retry = undefined
    this.stallWarning.stop()
  }

  /** A backup that failed last and holds up pages which could leave otherwise. */
  get failingBackup(): BackingStore | undefined {
    for (const { failingBackup } of this.#pools.values())
      if (failingBackup !== undefined) return failingBackup
    return undefined
  }

  /** What the backups said, while all that hold dirty pages up fail and none of them is due to be tried again. */
  get storeFailure(): Error | undefined {
    let found: Error | undefined
    for (const pool of this.#pools.values()) {
      if (pool.canStore) return undefined
      found ??= pool.storeFailure
    }
    return found
  }

  /** Makes room for the claims that wait, of all pools. */
  pump(): void {
    if (this.#shared.waiters === 0) return
    for (const pool of this.#pools.values()) if (pool.limit.waitsForCap) this.#pumpForCap(pool)
    for (let pass = 0; pass < 2; pass++) {
      const short = this.#shared.shortBytes - this.#underWayBytes
      if (short <= 0) break
      this.#makeRoom(short)
    }
    const head = this.#shared.head
    if (head === undefined || head.firstShortPages === 0) return
    if (!this.#isStoring) this.#stalled(head, [...this.#pools.values()])
  }

  get #isStoring(): boolean {
    for (const { isStoring } of this.#pools.values()) if (isStoring) return true
    return false
  }

  /**
   * Gives at least so many bytes to the system if it can: idle memory, then of the pools that are furthest above their
   * shares. Resolves to the bytes given.
   */
  async shrink(bytes: number): Promise<number> {
    const [alone, other] = this.#pools.values()
    if (alone !== undefined && other === undefined) {
      const { pageSizeBytes } = alone.limit
      return (await alone.shrink(Math.ceil(bytes / pageSizeBytes))) * pageSizeBytes
    }
    let given = 0
    for (const pool of this.#pools.values()) {
      if (given >= bytes) return given
      const { pageSizeBytes } = pool.limit
      given += (await pool.trim(Math.ceil((bytes - given) / pageSizeBytes))) * pageSizeBytes
    }
    for (const floor of floors) {
      for (const pool of this.#inOrder()) {
        const wanted = Math.min(bytes - given, this.#spareBytes(pool, floor))
        if (wanted <= 0 || !this.#pools.has(pool.limit)) continue
        const { pageSizeBytes } = pool.limit
        given += (await pool.shrink(Math.ceil(wanted / pageSizeBytes))) * pageSizeBytes
      }
    }
    return given
  }

  /**
   * Frees memory for a pool at once and without I/O, from the pools that are above their shares, the furthest first; what it
   * is about to have counts as its own. Returns the pages, which may be fewer: then it has to claim.
   */
  freeAtOnce(claiming: Reclaim, pages: number): number {
    const { pageSizeBytes, capPages, chargedPages } = claiming.limit
    if (this.#pools.size === 1 || chargedPages + pages > capPages)
      return claiming.freeWithoutStoring(pages, 'reuse')
    let leftBytes = pages * pageSizeBytes
    const own = this.#aboveShareBytes(claiming) + leftBytes
    const above = (pool: Reclaim) => (pool === claiming ? own : this.#aboveShareBytes(pool))
    for (const pool of [...this.#pools.values()].sort((one, other) => above(other) - above(one))) {
      const spare = pool === claiming ? own : this.#spareBytes(pool, 'share')
      if (leftBytes <= 0 || spare <= 0) break
      const wanted = Math.ceil(Math.min(leftBytes, spare) / pool.limit.pageSizeBytes)
      leftBytes -= pool.freeWithoutStoring(wanted, 'reuse') * pool.limit.pageSizeBytes
    }
    return Math.floor((pages * pageSizeBytes - leftBytes) / pageSizeBytes)
  }

  /** The process is about to end, and a claim still waits: what it waits for never comes. */
  endDeadlock(): void {
    this.pump()
    const pools = [...this.#pools.values()]
    if (this.#shared.waiters === 0 || pools.some(({ isPagingOut }) => isPagingOut)) return
    this.stallWarning.tell()
    const limit = this.#shared.head ?? pools.find(({ limit }) => limit.waiters > 0)?.limit
    limit?.refuseFirst((claimant) => this.#refusal(limit, pools, claimant))
  }

  get #underWayBytes(): number {
    let bytes = 0
    for (const pool of this.#pools.values()) bytes += pool.pagesUnderWay * pool.limit.pageSizeBytes
    return bytes
  }

  #pumpForCap(pool: Reclaim): void {
    const { limit } = pool
    const short = limit.beyondCapPages - pool.pagesUnderWay
    if (short > 0) pool.makeRoom(short, Number.POSITIVE_INFINITY, limit.firstRetryMayFail)
    if (limit.waitsForCap && limit.firstBeyondCapPages > 0 && !pool.isStoring) this.#stalled(limit, [pool])
  }

  #makeRoom(shortBytes: number): void {
    const { head } = this.#shared
    const retryMayFail = head?.firstRetryMayFail === true
    if (this.#pools.size === 1) {
      for (const pool of this.#pools.values())
        pool.makeRoom(
          Math.ceil(shortBytes / pool.limit.pageSizeBytes),
          Number.POSITIVE_INFINITY,
          retryMayFail,
        )
      return
    }
    let left = shortBytes
    for (const floor of floors) {
      for (const pool of this.#inOrder()) {
        const spare = this.#spareBytes(pool, floor)
        if (spare <= 0) continue
        // A batch of one that is above its share comes back soon, and is looked at again.
        if (floor !== 'share' && pool.limit !== head && this.#isStoring) continue
        const { pageSizeBytes } = pool.limit
        const most = pool.limit === head ? Number.POSITIVE_INFINITY : Math.ceil(spare / pageSizeBytes)
        const wanted = Math.ceil(Math.min(left, spare) / pageSizeBytes)
        left -= pool.makeRoom(wanted, most, retryMayFail) * pageSizeBytes
        if (left <= 0) return
      }
    }
  }

  /** The pools, furthest above its share first; what a pool wants and will have counts as its own. */
  #inOrder(): Reclaim[] {
    const above = (pool: Reclaim) => this.#aboveShareBytes(pool)
    return [...this.#pools.values()].sort((one, other) => above(other) - above(one))
  }

  #aboveShareBytes({ limit, pagesUnderWay }: Reclaim): number {
    const stays = limit.chargedBytes - pagesUnderWay * limit.pageSizeBytes
    return stays + limit.wantedBytes - this.#shared.shareOf(limit)
  }

  /** What a pool can be asked for: from itself all that it has, if it is the one that claims. */
  #spareBytes(pool: Reclaim, floor: Floor): number {
    const { limit, pagesUnderWay, largestChunkPages } = pool
    const { pageSizeBytes, share } = limit
    const stays = limit.chargedBytes - pagesUnderWay * pageSizeBytes
    const isOwn = limit === this.#shared.head
    if (floor !== 'share' && isOwn) return stays
    const least = Math.max(share.minPages, floor === 'min' ? 0 : share.lowPages)
    // Whole chunks leave: the last one must not take it below.
    const rounding = least === 0 ? 0 : largestChunkPages - 1
    const above = stays - (least + rounding) * pageSizeBytes
    return floor === 'share' ? Math.min(this.#aboveShareBytes(pool), isOwn ? stays : above) : above
  }

  /**
   * Nothing is in flight and nothing can be started: what a claim waits for must come from others, or never comes.
   *
   *   a backup fails, and that may pass, or the claim came after its last attempt ─▶ wait for the next attempt
   *   a backup fails                                                              ─▶ refuse, with its failure
   *   somebody holds pins                                                         ─▶ wait, or refuse
   *   nothing can be evicted                                                      ─▶ refuse
   */
  #stalled(limit: Limit, pools: Reclaim[]): void {
    // One at its minimum gives nothing, whatever holds up its pages: nobody asks its backup.
    const giving = pools.filter((pool) => pool.limit === limit || this.#spareBytes(pool, 'min') > 0)
    const waitsForPins = giving.some(({ hasPins }) => hasPins) && this.#isPatient(limit)
    if (waitsForPins) this.stallWarning.note()
    if (pools.some(({ isRunning }) => isRunning)) return
    const failing = giving.flatMap((pool) => pool.failingInTheWay())
    const refused = (claimant: Claimant | undefined) => this.#refusal(limit, pools, claimant)
    const isUntried = ({ failedAttempt }: BackingStore) =>
      this.#isPatient(limit) && failedAttempt <= limit.firstArrivedAt
    if (failing.some((store) => store.worthRetrying || isUntried(store))) {
      limit.refuseRetryMayFail(refused)
      if (limit.waiters > 0) this.#pumpAfter(Math.min(...failing.map(({ backoffMs }) => backoffMs)))
      return
    }
    if (failing.length === 0 && waitsForPins) return
    limit.refuseFirst(refused)
  }

  /** Whether whoever claims would rather wait. */
  #isPatient(limit: Limit): boolean {
    const claiming = this.#pools.get(limit)
    const pools = claiming === undefined ? [...this.#pools.values()] : [claiming]
    return pools.some(({ whenFull }) => whenFull === 'wait')
  }

  #refusal(limit: Limit, pools: Reclaim[], claimant: Claimant | undefined): SpillwayError {
    const claiming = this.#pools.get(limit) ?? pools[0]!
    claiming.countRefusal()
    const failures = pools.map((pool) => pool.failingInTheWay()[0]?.failure)
    const hindrances = pools.map((pool, index) => whyNothingLeaves(pool.residents, failures[index]))
    const named = pools.map(({ poolName }, index) => `${poolTitle(poolName)}: ${hindrances[index]!.reason}`)
    return refusal(claimant, {
      limitPages: claiming.limit.limitPages,
      pageSizeBytes: claiming.limit.pageSizeBytes,
      poolName: this.#pools.get(limit)?.poolName ?? this.#name,
      shortPages: limit.firstShortPages,
      reason: pools.length === 1 ? hindrances[0]!.reason : named.join('; '),
      advice: new Set(hindrances.flatMap(({ advice }) => advice ?? [])),
      mayPass: hindrances.some(({ mayPass }) => mayPass),
      cause: failures.find((failure) => failure !== undefined),
    })
  }

  #pumpAfter(delayMs: number): void {
    const atMs = nowMs() + delayMs
    if (this.#retry !== undefined && this.#retryAtMs <= atMs) return
    stopTimer(this.#retry)
    this.#retryAtMs = atMs
    this.#retry = startTimer(() => {
      this.#retry = undefined
      this.pump()
    }, delayMs + 1)
  }

  /** Whether the first claim can have no memory before somebody releases a pin, whatever else is under way. */
  #waitsForPins(): boolean {
    const pools = [...this.#pools.values()]
    const capped = pools.find(({ limit }) => limit.waitsForCap)
    const limit = this.#shared.head ?? capped?.limit
    if (limit === undefined || limit.firstShortPages === 0) return false
    const able = this.#shared.head === undefined ? [capped!] : pools
    let evictable = 0
    for (const pool of able) evictable += pool.evictablePages * pool.limit.pageSizeBytes
    const short = limit.firstShortPages * (limit as PoolLimit).pageSizeBytes
    return (
      evictable < short && !able.some(({ isPagingOut }) => isPagingOut) && able.some(({ hasPins }) => hasPins)
    )
  }

  #describePins(): string {
    const pinning = [...this.#pools.values()].filter(({ hasPins }) => hasPins)
    const of = (poolName: string) => (this.#pools.size === 1 ? '' : ` of ${poolTitle(poolName)}`)
    return pinning.map(({ residents, poolName }) => `${describePins(residents)}${of(poolName)}`).join(', ')
  }

  #firstClaimant(): Claimant | undefined {
    const pools = [...this.#pools.values()]
    const limit = this.#shared.head ?? pools.find(({ limit }) => limit.waiters > 0)?.limit
    const claimant = limit?.firstClaimant
    const claiming = limit && this.#pools.get(limit)
    if (claimant === undefined || claiming === undefined || pools.length === 1) return claimant
    return { label: `${claimant.label} of ${poolTitle(claiming.poolName)}` }
  }
}
