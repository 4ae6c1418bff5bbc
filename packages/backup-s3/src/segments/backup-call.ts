import type { BackupPagesOptions, BackupResult, HandleRun, SpanCursor } from '@spillway/core'
import type { SegmentBuilder } from './segment-builder.ts'
import type { SegmentSlot } from './segment-slots.ts'

/** What a call of `backupPages` is made of while it is under way, and what it amounts to in the end. */

/** The pages of a call that are in one segment. */
export interface BackupPart {
  readonly call: BackupCall
  readonly segment: OpenSegment
  readonly slot: number
  pages: number
  /** Which pieces of the segment's body are its memory. */
  readonly firstPiece: number
  endPiece: number
  run: HandleRun | undefined
  error: Error | undefined
}

export interface BackupCall {
  readonly pages: number
  readonly spans: SpanCursor
  readonly options: BackupPagesOptions
  readonly parts: BackupPart[]
  absorbed: number
  /** What stopped it from being taken in. */
  error: Error | undefined
  isSettled: boolean
  settle: (result: BackupResult) => void
}

/** A segment from its first page to the answer to its PUT. */
export interface OpenSegment {
  readonly slot: SegmentSlot
  readonly builder: SegmentBuilder
  readonly parts: BackupPart[]
  readonly controller: AbortController
}

/** Whether all that was taken in of the call is stored or has failed. */
export function isDone(call: BackupCall): boolean {
  if (call.isSettled || (call.absorbed < call.pages && call.error === undefined)) return false
  return call.parts.every(({ run, error }) => run !== undefined || error !== undefined)
}

/**
 * The prefix of the call that is stored, and what ended it there: `aborted`, or else what failed. `unknown` is what was
 * stored after that.
 */
export function outcome(
  { parts, error }: BackupCall,
  aborted: Error | undefined,
): { result: BackupResult; unknown: HandleRun[] } {
  const gap = parts.findIndex(({ run }) => run === undefined)
  const stored = gap < 0 ? parts : parts.slice(0, gap)
  const handles = stored.map(({ run }) => run!)
  const unknown = parts.slice(stored.length).flatMap(({ run }) => (run === undefined ? [] : [run]))
  const reason = aborted ?? parts[gap]?.error ?? error
  return { result: reason === undefined ? { handles } : { handles, error: reason }, unknown }
}

/** Whether pages that do not fit into the open segment should begin a new one, rather than be cut in two. */
export function isBetterAlone(pages: number, free: number, perSegment: number): boolean {
  return pages > free && (pages >= perSegment / 2 || free < perSegment / 4)
}
