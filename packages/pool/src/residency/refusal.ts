import { SpillwayError } from '@spillway/core'
import { trace } from '../ground/trace.ts'
import { unevictableList } from '../table/chunks.ts'
import type { Claimant } from './limit.ts'
import type { ResidentSet } from './resident-set.ts'

/** `ENOMEM` for a claim whose room cannot be had: because a backup fails, of who pins what, or for want of a backup. */
export function refusal(
  residents: ResidentSet,
  claimant: Claimant | undefined,
  failure: Error | undefined,
  pinners: string | undefined,
): SpillwayError {
  const { limit, chunks, poolName } = residents
  const stuckPages = chunks.listPages[unevictableList]!
  const reason =
    failure !== undefined
      ? `its backup failed: ${failure.message}`
      : pinners !== undefined
        ? `pinned: ${pinners}`
        : `${stuckPages} pages are in buffers that have no backup`
  const what = claimant === undefined ? 'no room' : `no room for buffer ${claimant.label}`
  const error = new SpillwayError(
    'ENOMEM',
    `${what} within the limit of ${limit.limitPages} pages; ${reason}`,
    {
      buffer: claimant?.label,
      cause: failure,
      retryable: true,
    },
  )
  if (trace.refuse.hasSubscribers) {
    trace.refuse.publish({ pool: poolName, buffer: claimant?.label, pages: limit.firstShortPages, error })
  }
  return error
}

/** Whose pins of the application there are, for error messages. */
export function describePins(residents: ResidentSet): string {
  const pinned: string[] = []
  for (const { label, userPins } of residents.buffers.values()) {
    if (userPins > 0 && pinned.length < 8) pinned.push(`buffer ${label} (${userPins} pins)`)
  }
  return pinned.join(', ')
}
