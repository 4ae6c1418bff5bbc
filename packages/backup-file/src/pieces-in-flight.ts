import { abortError, systemError } from '@spillway/core'
import type { Piece, PiecePlan } from './piece-plan.ts'

/** How far a call came: all pages before `pages`, and what stopped it there. */
export interface Progress {
  readonly pages: number
  readonly error?: Error | undefined
}

export interface FlightLimits {
  readonly pageSizeBytes: number
  readonly bytes: number
  readonly requests: number
}

/**
 * Carries the pieces of a plan, several at once, and says how long a prefix of the pages made it. After the first
 * failure, or an abort, no further piece starts; it settles when those under way have. `carry` resolves to how many pages of its
 * piece are done and why not all.
 */
export async function carryPieces(
  plan: PiecePlan,
  limits: FlightLimits,
  signal: AbortSignal | undefined,
  carry: (piece: Piece) => Promise<Progress>,
): Promise<Progress> {
  let stoppedAt = Number.POSITIVE_INFINITY
  let error: Error | undefined
  let bytesInFlight = 0
  let requestsInFlight = 0
  let wake: (() => void) | undefined

  const stop = (page: number, reason: Error): void => {
    if (page >= stoppedAt) return
    stoppedAt = page
    error = reason
  }
  const start = async (piece: Piece, bytes: number): Promise<void> => {
    try {
      const progress = await carry(piece)
      if (progress.error !== undefined) stop(piece.page + progress.pages, progress.error)
    } catch (thrown) {
      stop(piece.page, systemError(thrown, `page ${piece.page} could not be moved`, { page: piece.page }))
    }
    bytesInFlight -= bytes
    requestsInFlight--
    wake?.()
  }

  for (;;) {
    if (requestsInFlight > 0 && (bytesInFlight >= limits.bytes || requestsInFlight >= limits.requests)) {
      await new Promise<void>((resolve) => {
        wake = resolve
      })
      continue
    }
    if (error !== undefined || plan.isDone) break
    if (signal?.aborted) {
      stop(plan.page, abortError(signal, { page: plan.page }))
      break
    }
    const piece = plan.next()
    const bytes = piece.pageCount * limits.pageSizeBytes
    bytesInFlight += bytes
    requestsInFlight++
    void start(piece, bytes)
  }
  while (requestsInFlight > 0) {
    await new Promise<void>((resolve) => {
      wake = resolve
    })
  }
  return error === undefined ? { pages: plan.page } : { pages: stoppedAt, error }
}
