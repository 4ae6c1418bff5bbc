import { assertByteCount, SpillwayError } from '@spillway/core'
import { Budget } from '../budget.ts'
import { poolTitle } from '../ground/trace.ts'
import type { PoolShare } from '../residency/shared-limit.ts'
import { assertLimitBytes, autoBudget, budgetOf, type MemoryBudget } from './memory-budget.ts'
import { assertLimit, type PoolOptions } from './pool-options.ts'

/** Where a pool has its limit: in a budget that it shares, or in one of its own. */
export interface PoolPlace {
  readonly budget: Budget
  readonly ownsBudget: boolean
  /** What the pool may have of it, in pages; infinite for all. */
  readonly capPages: number
  readonly share: PoolShare
}

interface PoolShape {
  readonly name: string
  readonly pageSizeBytes: number
  readonly maxOrder: number
}

/**
 * Throws `RangeError` for a limit, weight or minimum that is none, `EDQUOT` for what does not fit into the budget, `EINVAL` for
 * a budget of another thread.
 */
export function placeOf(options: PoolOptions, shape: PoolShape): PoolPlace {
  const { budget, limitBytes } = options
  const { pageSizeBytes, name } = shape
  const share = poolShare(options, pageSizeBytes)
  if (budget !== undefined) return placeIn(budget, limitBytes, share, shape)
  const title = poolTitle(name)
  const own = limitBytes === 'auto' ? autoBudget(name, title, 1, pageSizeBytes) : undefined
  const bytes = own?.limitBytes ?? (limitBytes as number)
  assertLimitBytes(bytes)
  assertLimit(bytes, pageSizeBytes, shape.maxOrder)
  const whole = Math.floor(bytes / pageSizeBytes) * pageSizeBytes
  assertMinimum(share.minPages * pageSizeBytes, whole)
  return {
    budget: own ?? new Budget(whole, name, title),
    ownsBudget: true,
    capPages: Number.POSITIVE_INFINITY,
    share,
  }
}

/** Throws `EDQUOT` for a limit above the budget's: it would not be one. */
export function assertBelowBudget(limitBytes: number, budget: Budget): void {
  if (limitBytes <= budget.limitBytes) return
  throw new SpillwayError('EDQUOT', `limitBytes is ${limitBytes}; its budget has ${budget.limitBytes}`)
}

function placeIn(
  budget: MemoryBudget,
  limitBytes: PoolOptions['limitBytes'],
  share: PoolShare,
  { pageSizeBytes, maxOrder }: PoolShape,
): PoolPlace {
  const parts = budgetOf(budget)
  if (limitBytes === 'auto')
    throw new RangeError("limitBytes is 'auto'; with a budget, give that to the budget")
  if (limitBytes !== undefined) {
    assertByteCount(limitBytes, 'limitBytes')
    assertBelowBudget(limitBytes, parts)
  }
  // A lower limit may be on its way.
  const lowest = Math.min(parts.limitBytes, parts.changes.lowest)
  assertLimit(limitBytes ?? lowest, pageSizeBytes, maxOrder)
  assertMinimum(share.minPages * pageSizeBytes, limitBytes ?? lowest)
  const minBytes = parts.shared.minBytes + share.minPages * pageSizeBytes
  if (minBytes > lowest)
    throw new SpillwayError(
      'EDQUOT',
      `the minBytes of its pools would be ${minBytes} together; the budget has ${lowest}`,
    )
  const capPages =
    limitBytes === undefined ? Number.POSITIVE_INFINITY : Math.floor(limitBytes / pageSizeBytes)
  return { budget: parts, ownsBudget: false, capPages, share }
}

function poolShare(options: PoolOptions, pageSizeBytes: number): PoolShare {
  const { weight = 1, minBytes = 0, lowBytes = 0 } = options
  if (!(typeof weight === 'number' && weight > 0 && Number.isFinite(weight)))
    throw new RangeError(`weight is ${weight}; it must be a number above 0`)
  assertByteCount(minBytes, 'minBytes')
  assertByteCount(lowBytes, 'lowBytes')
  return {
    weight,
    minPages: Math.ceil(minBytes / pageSizeBytes),
    lowPages: Math.ceil(lowBytes / pageSizeBytes),
  }
}

function assertMinimum(minBytes: number, limitBytes: number): void {
  if (minBytes > limitBytes)
    throw new RangeError(`minBytes is ${minBytes}; the limit of the pool is ${limitBytes}`)
}
