import { type CopyResult, type HandleRun, SpillwayError, type TransferOptions } from '@spillway/core'
import type { KeySpace } from '../keys.ts'
import type { SegmentObject, SegmentTable } from '../segments/segment-table.ts'
import { SpanCursor } from '../segments/span-cursor.ts'
import type { RangeFetch } from './range-fetch.ts'
import type { RangePart } from './range-target.ts'

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
  readonly parts: RestorePart[]
  readonly options: TransferOptions
  left: number
  settle: (aborted?: Error) => void
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
): void {
  const memory = new SpanCursor(spans)
  const size = places.pageSizeBytes
  let page = 0
  for (const run of handles) {
    const pageOfRun = page
    places.table.forEachExtent(run, ({ object, slot, pages }) => {
      const last = call.parts.at(-1)
      if (last?.error !== undefined) return
      const bad = firstWithin(object.quarantined, slot, pages)
      const good = bad === undefined ? pages : bad - slot
      if (good > 0) {
        const firstHandle = run.first + page - pageOfRun
        const place = { slot, pages: good, firstPage: page, firstHandle }
        call.parts.push(newPart(call, object, place, memory.take(good * size), undefined))
      }
      page += good
      if (bad !== undefined) {
        const firstHandle = run.first + page - pageOfRun
        const error = damagedPage(places, object, bad, page, firstHandle)
        call.parts.push(
          newPart(call, object, { slot: bad, pages: 1, firstPage: page, firstHandle }, [], error),
        )
      }
    })
  }
}

function newPart(
  call: RestoreCall,
  object: SegmentObject,
  place: { slot: number; pages: number; firstPage: number; firstHandle: number },
  memory: readonly Uint8Array[],
  error: Error | undefined,
): RestorePart {
  const { slot, pages, firstPage, firstHandle } = place
  const progress = { arrived: 0, badPages: [], group: undefined, isWaiting: false }
  return { call, object, slot, pages, firstPage, firstHandle, memory, error, ...progress }
}

/** The prefix of the call that holds its content, and what ended it there. */
export function resultOf(call: RestoreCall, aborted: Error | undefined): CopyResult {
  let copied = 0
  for (const part of call.parts) {
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
  object: SegmentObject,
  slot: number,
  page: number,
  handle: number,
): SpillwayError {
  const key = keys.segment(object.epoch, object.number)
  return new SpillwayError('EBADMSG', `page ${slot} of ${key} does not match its checksum`, {
    backup,
    page,
    handle,
    offsetBytes: slot * pageSizeBytes,
  })
}
