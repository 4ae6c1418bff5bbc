import { SpillwayError } from '@spillway/core'
import { trace } from '../ground/trace.ts'
import { unevictableList } from '../table/chunks.ts'
import type { Claimant } from './limit.ts'
import type { ResidentSet } from './resident-set.ts'

/** Why a claim is refused, and what it is told of the pools that could not give. */
export interface Refusal {
  readonly limitPages: number
  /** The pool that claims, or the name of the budget. */
  readonly poolName: string
  readonly shortPages: number
  readonly reason: string
  readonly cause: Error | undefined
}

/** `ENOMEM` for a claim whose room cannot be had. */
export function refusal(
  claimant: Claimant | undefined,
  { limitPages, poolName, shortPages, reason, cause }: Refusal,
): SpillwayError {
  const what = claimant === undefined ? 'no room' : `no room for buffer ${claimant.label}`
  const fields = { buffer: claimant?.label, cause, retryable: true }
  const error = new SpillwayError(
    'ENOMEM',
    `${what} within the limit of ${limitPages} pages; ${reason}`,
    fields,
  )
  if (trace.refuse.hasSubscribers) {
    trace.refuse.publish({ pool: poolName, buffer: claimant?.label, pages: shortPages, error })
  }
  return error
}

/** Why a pool has nothing to give: its backup fails, somebody pins it, or it has no backup. */
export function whyNothingLeaves(
  { chunks, applicationPins, buffers }: ResidentSet,
  failure: Error | undefined,
): string {
  if (failure !== undefined) return `its backup failed: ${failure.message}`
  if (applicationPins > 0) return `pinned: ${describePins({ buffers })}`
  return `${chunks.listPages[unevictableList]!} pages are in buffers that have no backup`
}

/** Whose pins of the application there are, for error messages. */
export function describePins(residents: Pick<ResidentSet, 'buffers'>): string {
  const pinned: string[] = []
  for (const { label, userPins } of residents.buffers.values()) {
    if (userPins > 0 && pinned.length < 8) pinned.push(`buffer ${label} (${userPins} pins)`)
  }
  return pinned.join(', ')
}
