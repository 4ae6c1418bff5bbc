import { isFullError, SpillwayError, systemCodeOf } from '@spillway/core'
import { trace } from '../ground/trace.ts'
import { unevictableList } from '../table/chunks.ts'
import type { Claimant } from './limit.ts'
import type { ResidentSet } from './resident-set.ts'

/** Why a claim is refused, and what it is told of the pools that could not give. */
export interface Refusal {
  readonly limitPages: number
  readonly pageSizeBytes: number
  /** The pool that claims, or the name of the budget. */
  readonly poolName: string
  readonly shortPages: number
  readonly reason: string
  /** What the application can do, each once. */
  readonly advice: ReadonlySet<string>
  /** Whether the same call may have room later, though the application changes nothing. */
  readonly mayPass: boolean
  readonly cause: Error | undefined
}

/** `ENOMEM` for a claim whose room cannot be had. */
export function refusal(
  claimant: Claimant | undefined,
  { limitPages, pageSizeBytes, poolName, shortPages, reason, advice, mayPass, cause }: Refusal,
): SpillwayError {
  const limit = inPages(limitPages, pageSizeBytes)
  // Nobody's buffer: the limit was to sink.
  const what =
    claimant === undefined
      ? `the limit stays at ${limit}`
      : `no room for buffer ${claimant.label} within the limit of ${limit}`
  const remedies = [...advice]
  if (claimant !== undefined) remedies.push('raise the limit')
  const advised = remedies.length === 0 ? '' : `; ${remedies.join(', or ')}`
  const fields = { buffer: claimant?.label, cause, retryable: mayPass }
  const error = new SpillwayError('ENOMEM', `${what}; ${reason}${advised}`, fields)
  if (trace.refuse.hasSubscribers) {
    trace.refuse.publish({ pool: poolName, buffer: claimant?.label, pages: shortPages, error })
  }
  return error
}

/** Pages with the bytes that they are: the application gave its limits and ranges in bytes. */
export function inPages(pages: number, pageSizeBytes: number): string {
  return `${pages} pages (${pages * pageSizeBytes} bytes)`
}

/** What keeps the memory of a pool where it is. */
export interface Hindrance {
  readonly reason: string
  /** What the application can do about it. */
  readonly advice: string | undefined
  /** Whether it may be over without that: a pin is released by whoever works with it, and a medium has room or answers again. */
  readonly mayPass: boolean
}

/** Why a pool has nothing to give: its backup fails, somebody pins it, or it has no backup. */
export function whyNothingLeaves(
  { chunks, applicationPins, buffers, limit }: ResidentSet,
  failure: Error | undefined,
): Hindrance {
  if (failure !== undefined) {
    const isClosed = systemCodeOf(failure) === 'EBADF'
    return {
      reason: `its backup failed: ${failure.message}`,
      advice: isClosed ? 'close a backup after its pools' : adviceOf(failure),
      mayPass: !isClosed,
    }
  }
  if (applicationPins > 0) {
    const keptBytes = chunks.listPages[unevictableList]! * limit.pageSizeBytes
    const reason = `${keptBytes} bytes cannot leave, pinned: ${describePins({ buffers })}`
    return { reason, advice: 'release pins', mayPass: true }
  }
  let keptPages = 0
  for (const { store, table } of buffers.values()) if (store === undefined) keptPages += table.residentPages
  // The memory is another pool's, or held by a call that is under way.
  if (keptPages === 0) return { reason: 'it has nothing to give', advice: undefined, mayPass: true }
  return {
    reason: `${inPages(keptPages, limit.pageSizeBytes)} are in buffers that have no backup`,
    advice: 'free buffers or give them a backup',
    mayPass: false,
  }
}

function adviceOf(failure: Error): string {
  return isFullError(failure) ? 'free buffers or give the backup room' : 'mend the backup'
}

/** Whose pins of the application there are, for error messages. */
export function describePins(residents: Pick<ResidentSet, 'buffers'>): string {
  const pinned: string[] = []
  for (const { label, userPins } of residents.buffers.values()) {
    if (userPins > 0 && pinned.length < 8) pinned.push(`buffer ${label} (${userPins} pins)`)
  }
  return pinned.join(', ')
}
