import { assertByteCount, assertKnownOptions, SpillwayError } from '@spillway/core'
import { Budget } from '../budget.ts'
import { AutoLimit, firstLimit, fractionOf, systemReader } from '../ground/auto-limit.ts'
import { pacedCall } from '../ground/paced-call.ts'
import { nodeModule } from '../providers/resizable.ts'

export interface MemoryBudgetOptions {
  /**
   * Memory that all pools of the budget may take together, in bytes. `'auto'`: half of what the machine and all control groups
   * above allow, less while the system is short of memory, and never less than the sum of the pools' `minBytes`.
   */
  readonly limitBytes: number | 'auto'
  /** Names the budget in warnings and errors. */
  readonly name?: string | undefined
  /**
   * For `'auto'`: the part of the system's memory to reckon with, above 0 to 1. Threads and processes do not share a budget, so
   * each takes its part: with 0.25 the limit begins with a quarter of that half. Default 1.
   */
  readonly fraction?: number | undefined
}

/** What a budget is used for now. */
export interface BudgetStats {
  readonly limitBytes: number
  /** Memory that the pools hold: in use and idle. Never more than the limit. */
  readonly residentBytes: number
  /** Memory that is accounted to buffers: in use, or about to be taken. Never more than the limit. */
  readonly chargedBytes: number
  /** The sum of what no pool takes from another. */
  readonly minBytes: number
  /** Claims of memory that wait now. */
  readonly waiters: number
  readonly pools: readonly BudgetPoolStats[]
}

/** One pool of a budget. */
export interface BudgetPoolStats {
  readonly name: string
  readonly chargedBytes: number
  /** What the pool is to have when all pools want more. */
  readonly shareBytes: number
}

/**
 * One limit for several pools of a thread. What one of them does not use the others may; when all is used, the pool that is
 * furthest above its share gives first.
 *
 * ```ts
 * const budget = new MemoryBudget({ limitBytes: 2 ** 30 })
 * const index = new Pool({ budget, backup, weight: 2, minBytes: 64 * 2 ** 20 })
 * const blobs = new Pool({ budget, backup })
 * ```
 */
export class MemoryBudget {
  readonly name: string

  /** Throws `RangeError` for a limit or a fraction that is none. */
  constructor(options: MemoryBudgetOptions) {
    if (typeof options !== 'object' || options === null)
      throw new TypeError('a budget needs options, at least limitBytes')
    assertKnownOptions(options, ['limitBytes', 'name', 'fraction'], 'MemoryBudget')
    const { limitBytes, name = 'budget', fraction } = options
    if (fraction !== undefined && !(fraction > 0 && fraction <= 1))
      throw new RangeError(`fraction is ${fraction}; it must be above 0 and at most 1`)
    if (fraction !== undefined && limitBytes !== 'auto')
      throw new RangeError(`fraction is ${fraction}; it is for limitBytes 'auto'`)
    this.name = name
    const budget =
      limitBytes === 'auto' ? autoBudget(name, title(name), fraction) : fixedBudget(limitBytes, name)
    budgets.set(this, budget)
    // A clone in another thread would be an object that limits nothing.
    markAsUncloneable?.(this)
  }

  get limitBytes(): number {
    return budgetOf(this).limitBytes
  }

  /**
   * Changes the limit, and ends `'auto'`. A lower one is in force when the promise resolves; until then pools give memory up and
   * the old one holds. Rejects with `RangeError` for a limit smaller than a chunk of one of the pools, `EDQUOT` for one smaller
   * than the sum of `minBytes`, `EINTR` when aborted or when a later call sets another that is not lower, `ENOMEM` when it cannot
   * sink: a backup fails again, or what is in memory has none; then the limit stays.
   *
   * It waits as long as pins do not let it sink, however long they are held: give it a `signal` to end that. They are `ENOMEM` at once when
   * all pools have `whenFull: 'fail'`.
   */
  setLimit(limitBytes: number, options: { readonly signal?: AbortSignal | undefined } = {}): Promise<void> {
    return pacedCall(() => {
      const budget = budgetOf(this)
      assertKnownOptions(options, ['signal'], 'setLimit')
      assertByteCount(limitBytes, 'limitBytes')
      const { largestChunkBytes } = budget
      if (limitBytes < largestChunkBytes)
        throw new RangeError(
          `limitBytes is ${limitBytes}; the largest chunk of its pools has ${largestChunkBytes} bytes`,
        )
      const { minBytes } = budget.shared
      if (limitBytes < minBytes)
        throw new SpillwayError(
          'EDQUOT',
          `limitBytes is ${limitBytes}; the minBytes of its pools are ${minBytes} together`,
        )
      budget.endAuto()
      return budget.changes.set(limitBytes, options.signal)
    })
  }

  /** A snapshot; exact at every moment. */
  stats(): BudgetStats {
    const { shared, resident, pools } = budgetOf(this)
    return {
      limitBytes: resident.limitBytes,
      residentBytes: resident.residentBytes,
      chargedBytes: shared.chargedBytes,
      minBytes: shared.minBytes,
      waiters: shared.waiters,
      pools: [...pools].map(({ limit, reclaim }) => ({
        name: reclaim.poolName,
        chargedBytes: limit.chargedBytes,
        shareBytes: limit.sharePages * limit.pageSizeBytes,
      })),
    }
  }
}

const budgets = new WeakMap<MemoryBudget, Budget>()

/** @internal The parts of a budget. Throws `EINVAL` for what is none of this thread. */
export function budgetOf(budget: MemoryBudget): Budget {
  const found = typeof budget === 'object' && budget !== null ? budgets.get(budget) : undefined
  if (found !== undefined) return found
  throw new SpillwayError(
    'EINVAL',
    'budget is no MemoryBudget of this thread; threads do not share one, give each its own (fraction)',
  )
}

/** @internal A budget that follows the system while it has pools. */
export function autoBudget(name: string, title: string, fraction = 1, chunkBytes = 1): Budget {
  const read = fractionOf(systemReader(), fraction)
  const limitBytes = Math.floor(firstLimit(read()) / chunkBytes) * chunkBytes
  const budget = new Budget(limitBytes, name, title)
  budget.autoLimit = new AutoLimit(read, limitBytes, {
    leastBytes: () => Math.max(budget.largestChunkBytes, budget.shared.minBytes),
    setLimit: (bytes, signal) => budget.changes.set(Math.floor(bytes / chunkBytes) * chunkBytes, signal),
    title,
  })
  return budget
}

/** Where `'auto'` could have been given as well. */
export function assertLimitBytes(limitBytes: number | undefined): void {
  if (Number.isSafeInteger(limitBytes) && (limitBytes as number) >= 0) return
  const given = typeof limitBytes === 'string' ? `'${limitBytes}'` : String(limitBytes)
  throw new RangeError(`limitBytes is ${given}; it must be a whole number of bytes, or 'auto'`)
}

function fixedBudget(limitBytes: number, name: string): Budget {
  assertLimitBytes(limitBytes)
  return new Budget(limitBytes, name, title(name))
}

function title(name: string): string {
  return name === 'budget' ? name : `budget ${name}`
}

const markAsUncloneable = nodeModule('node:worker_threads')?.['markAsUncloneable'] as
  | ((value: object) => void)
  | undefined
