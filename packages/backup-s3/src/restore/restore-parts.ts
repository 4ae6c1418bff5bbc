import {
  type CopyResult,
  type HandleRun,
  SpanCursor,
  SpillwayError,
  type TransferOptions,
} from '@spillway/core'
import type { KeySpace } from '../keys.ts'
import type { SegmentObject, SegmentTable } from '../segments/segment-table.ts'
import type { RangeFetch } from './range-fetch.ts'
import type { RangePart } from './range-target.ts'
import { added } from './short-list.ts'

/** What a call of `copyPages` is made of while it is under way, and what it amounts to in the end. */

/** Adjacent pages of one segment that a call wants. */
export interface RestorePart extends RangePart {
  readonly call: RestoreCall
  readonly object: SegmentObject
  /** Number of its first page in the call. */
  readonly firstPage: number
  readonly firstHandle: number
  group: RestoreGroup | undefined
  error: Error | undefined
  /** Whether it is in the queue (restore-queue.ts). */
  isWaiting: boolean
}

export interface RestoreCall {
  isAborted: boolean
  parts: readonly RestorePart[]
  readonly options: TransferOptions
  /** Parts that have not ended. */
  left: number
  /** Takes what the call amounts to; undefined once it was told. */
  done: ((result: CopyResult) => void) | undefined
  /** Listens to the signal, if there is one. */
  stop: (() => void) | undefined
}

/** Parts that one GET serves. */
export interface RestoreGroup {
  readonly object: SegmentObject
  readonly parts: readonly RestorePart[]
  readonly bytes: number
  /** The GET, when it is under way. */
  fetch: RangeFetch | undefined
  /** Why nobody wants it any more. */
  abortReason: Error | undefined
}

/** Where pages lie, and what errors about them say. */
export interface PagePlaces {
  readonly table: SegmentTable
  readonly keys: KeySpace
  readonly backup: string
  readonly pageSizeBytes: number
}

/** Cuts what a call wants at the bounds of segments, and at pages that are known to be damaged. */
export function cutIntoParts(
  call: RestoreCall,
  handles: readonly HandleRun[],
  spans: readonly Uint8Array[],
  places: PagePlaces,
): readonly RestorePart[] {
  const memory = new SpanCursor(spans)
  const size = places.pageSizeBytes
  let parts: RestorePart[] = []
  let firstPage = 0
  let firstHandle = 0
  const cut = (object: SegmentObject, slot: number, count: number) => {
    if (parts.length > 0 && parts[parts.length - 1].error !== undefined) return
    const bad = firstWithin(object.quarantined, slot, count)
    const pages = bad === undefined ? count : bad - slot
    const progress = { arrived: 0, badPages: [], isMemoryGone: false }
    const state = { ...progress, group: undefined, error: undefined, isWaiting: false }
    if (pages > 0) {
      const pieces = memory.take(pages * size)
      parts = added(parts, { call, object, slot, pages, firstPage, firstHandle, memory: pieces, ...state })
    }
    firstPage += pages
    firstHandle += pages
    if (bad === undefined) return
    const error = damagedPage(places, { object, slot: bad, page: firstPage, handle: firstHandle })
    const place = { slot: bad, pages: 1, firstPage, firstHandle, memory: [] }
    parts = added(parts, { call, object, ...place, ...state, error })
  }
  for (let index = 0; index < handles.length; index++) {
    const run = handles[index]
    firstHandle = run.first
    places.table.forEachExtent(run, cut)
  }
  return parts
}

/** The prefix of the call that holds its content, and what ended it there. */
export function resultOf(call: RestoreCall, aborted: Error | undefined): CopyResult {
  let copied = 0
  const { parts } = call
  for (let index = 0; index < parts.length; index++) {
    const part = parts[index]
    const pages = copiedPages(part)
    copied += pages
    if (pages < part.pages) return { copied, error: aborted ?? part.error! }
  }
  return { copied }
}

/** Pages of the part, from its first on, that hold their content. */
export function copiedPages(part: RangePart): number {
  return part.badPages.length > 0 ? part.badPages[0] : part.arrived
}

function firstWithin(
  slots: ReadonlySet<number> | undefined,
  first: number,
  count: number,
): number | undefined {
  if (slots === undefined) return undefined
  let least: number | undefined
  for (const slot of slots) {
    if (slot >= first && slot < first + count && (least === undefined || slot < least)) least = slot
  }
  return least
}

export function damagedPage(
  { keys, backup, pageSizeBytes }: PagePlaces,
  where: {
    readonly object: SegmentObject
    readonly slot: number
    /** Its number in the call. */
    readonly page: number
    readonly handle: number
  },
): SpillwayError {
  const { object, slot, page, handle } = where
  const key = keys.segment(object.epoch, object.number)
  return new SpillwayError('EBADMSG', `page ${slot} of ${key} does not match its checksum`, {
    backup,
    page,
    handle,
    offsetBytes: slot * pageSizeBytes,
  })
}
