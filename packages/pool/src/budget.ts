import { SpillwayError } from '@spillway/core'
import type { AutoLimit } from './ground/auto-limit.ts'
import { type MemoryWish, PoolMemory } from './memory/pool-memory.ts'
import { ResidentLimit } from './memory/resident-limit.ts'
import { LimitChanges } from './operations/limit-changes.ts'
import { PoolLimit } from './residency/pool-limit.ts'
import type { Reclaim } from './residency/reclaim.ts'
import { SharedLimit } from './residency/shared-limit.ts'
import { SharedReclaim } from './residency/shared-reclaim.ts'

/** A pool in its budget. */
export interface BudgetPool {
  readonly limit: PoolLimit
  readonly reclaim: Reclaim
  readonly memory: PoolMemory
}

/**
 * The parts of a budget, put together: one limit for several pools. A pool that is given none has one of its own. What the
 * application sees is `MemoryBudget`.
 */
export class Budget {
  readonly name: string
  readonly shared: SharedLimit
  readonly resident: ResidentLimit
  readonly reclaim: SharedReclaim
  readonly changes: LimitChanges
  readonly pools = new Set<BudgetPool>()
  readonly #memories = new Set<PoolMemory>()
  /** Follows the system while there are pools. */
  autoLimit: AutoLimit | undefined
  /** The queue of those who claim for the budget itself. */
  readonly #own: PoolLimit

  /** `title` is what it is called in warnings. */
  constructor(limitBytes: number, name: string, title: string) {
    this.name = name
    this.shared = new SharedLimit(limitBytes, () => this.reclaim.endDeadlock())
    this.resident = new ResidentLimit(limitBytes)
    this.reclaim = new SharedReclaim(this.shared, name, title)
    this.#own = new PoolLimit(this.shared, { pageSizeBytes: 1 }, { onShort: () => this.reclaim.pump() })
    this.changes = new LimitChanges(this.#changeable())
  }

  /** What the application is told. */
  get limitBytes(): number {
    return this.resident.limitBytes
  }

  get largestChunkBytes(): number {
    let most = 0
    for (const { reclaim, limit } of this.pools)
      most = Math.max(most, reclaim.largestChunkPages * limit.pageSizeBytes)
    return most
  }

  /** The limit was set by hand: it does not follow the system any more. */
  endAuto(): void {
    this.autoLimit?.stop()
    this.autoLimit = undefined
  }

  /** The memory of pools that ask for the same, or new one. */
  memoryFor(wish: MemoryWish): PoolMemory {
    for (const memory of this.#memories) if (memory.fulfils(wish)) return memory
    const memory = new PoolMemory(wish, {
      limit: this.resident,
      all: this.#memories,
      isWaitedFor: () => this.shared.waiters > 0,
    })
    this.#memories.add(memory)
    return memory
  }

  join(pool: BudgetPool): void {
    if (this.pools.size === 0) this.autoLimit?.start()
    this.pools.add(pool)
    this.reclaim.add(pool.reclaim)
  }

  /** A pool is closed: nothing of it is charged any more. It kept so many pages warm. */
  leave(pool: BudgetPool, idlePages: number): void {
    if (pool.memory.leave(idlePages)) {
      this.#memories.delete(pool.memory)
      this.resident.delete(pool.memory.pages)
    }
    pool.limit.leave()
    this.pools.delete(pool)
    this.reclaim.delete(pool.reclaim)
    if (this.pools.size === 0) this.autoLimit?.stop()
  }

  /** Ends those who wait for a lower limit: the pool that has this budget for itself is closed. */
  refuseChanges(): void {
    this.#own.refuse(new SpillwayError('EBADF', 'the pool is closed'))
  }

  /** What does not hold for the sum. */
  problems(): string[] {
    const { shared, resident } = this
    const problems: string[] = []
    let chargedBytes = this.#own.chargedBytes
    for (const { limit } of this.pools) chargedBytes += limit.chargedBytes
    if (shared.chargedBytes !== chargedBytes)
      problems.push(`charged bytes of the budget are ${shared.chargedBytes}, recomputed ${chargedBytes}`)
    if (shared.chargedBytes > shared.limitBytes)
      problems.push(`${shared.chargedBytes} bytes charged, limit ${shared.limitBytes}`)
    if (resident.residentBytes > resident.limitBytes)
      problems.push(`${resident.residentBytes} bytes resident in the budget, limit ${resident.limitBytes}`)
    for (const memory of this.#memories) {
      let inUsePages = 0
      for (const pool of this.pools)
        if (pool.memory === memory) inUsePages += pool.reclaim.residents.inUsePages
      if (memory.pages.inUsePages !== inUsePages)
        problems.push(`${memory.pages.inUsePages} pages in use, recomputed ${inUsePages}`)
    }
    return problems
  }

  #changeable() {
    const { shared, resident, reclaim } = this
    const own = this.#own
    return {
      unitBytes: 1,
      get chargeable() {
        return shared.limitBytes
      },
      set chargeable(bytes: number) {
        shared.limitBytes = bytes
      },
      get kept() {
        return resident.limitBytes
      },
      set kept(bytes: number) {
        resident.limitBytes = bytes
      },
      get resident() {
        return resident.residentBytes
      },
      get failingBackup() {
        return reclaim.failingBackup
      },
      tryCharge: (bytes: number) => own.tryCharge(bytes),
      charge: (need: () => number, signal: AbortSignal) => own.charge(need, signal),
      uncharge: (bytes: number) => own.uncharge(bytes),
      serveSoon: () => shared.wake(),
      shrink: (bytes: number) => reclaim.shrink(bytes),
    }
  }
}
