import {
  abortError,
  type BackupPagesOptions,
  type BackupResult,
  type HandleRun,
  type HostTimer,
  isSpillwayError,
  nowMs,
  SpanCursor,
  SpillwayError,
  startTimer,
  stopTimer,
  yieldToEventLoop,
} from '@spillway/core'
import type { KeySpace } from '../keys.ts'
import type { Settings } from '../options.ts'
import type { Deletions } from '../ownership/deletions.ts'
import { offAbort, onAbort } from '../service/abort-listeners.ts'
import type { S3Service } from '../service/service.ts'
import { isOverBudget, serviceError } from '../service/service-errors.ts'
import { type BackupCall, isBetterAlone, isDone, type OpenSegment, outcome } from './backup-call.ts'
import type { ZeroAdvance } from './checksum.ts'
import { handleOf } from './handles.ts'
import { SegmentBuilder, sliceBytes } from './segment-builder.ts'
import type { SegmentSlots } from './segment-slots.ts'
import { type SegmentTable, segmentObject } from './segment-table.ts'

/**
 * Backups: calls of `backupPages` become as few objects as possible.
 *
 *   calls ─▶ queue ─▶ the open segment ──(full, or lingered)──▶ sealed ─▶ PUT ─▶ handles
 *                          ▲                                        │
 *                          └──────────── slot ◀─────────────────────┘
 *
 * Pages of calls that come close together share a segment (group commit). A promise resolves when the service has
 * acknowledged the last segment that holds pages of its call, never earlier.
 *
 * With a request handler that sends pieces a segment has no memory of its own: it is sent from the callers' (upload-body.ts).
 */

/** Whose segments are written (ownership/owner.ts). */
export interface SegmentOwner {
  readonly epoch: string
  readonly generation: number
  /** A number that was never given before, to an owner that has its pages; rejects with `EBADF` else. */
  takeSegmentNumber(signal?: AbortSignal): Promise<number>
  /** The segment of that number is in the table now, or will never be. */
  settled(segmentNumber: number): void
  /** Rejects with `EBADF` when someone else may have taken this owner's pages. */
  assertOwned(signal?: AbortSignal): Promise<void>
}

export class SegmentWriter {
  backedUpPages = 0
  /** When the service last said that it is full; of `performance.now()`. */
  fullAt = Number.NEGATIVE_INFINITY
  readonly #settings: Settings
  readonly #service: S3Service
  readonly #table: SegmentTable
  readonly #keys: KeySpace
  readonly #slots: SegmentSlots
  readonly #zeros: ZeroAdvance
  readonly #deletions: Deletions
  readonly #owner: SegmentOwner
  readonly #onSegment: () => void
  readonly #queue: BackupCall[] = []
  readonly #unsettled = new Set<BackupCall>()
  /** Settled in this turn of the event loop. */
  #justSettled: BackupCall[] = []
  readonly #sending = new Set<Promise<void>>()
  #open: OpenSegment | undefined
  #filler: Promise<void> | undefined
  #lingerTimer: HostTimer | undefined
  #lingered = false
  #pagesUnderway = 0

  constructor(parts: {
    settings: Settings
    service: S3Service
    table: SegmentTable
    keys: KeySpace
    slots: SegmentSlots
    zeros: ZeroAdvance
    deletions: Deletions
    owner: SegmentOwner
    onSegment: () => void
  }) {
    this.#settings = parts.settings
    this.#service = parts.service
    this.#table = parts.table
    this.#keys = parts.keys
    this.#slots = parts.slots
    this.#zeros = parts.zeros
    this.#deletions = parts.deletions
    this.#owner = parts.owner
    this.#onSegment = parts.onSegment
  }

  write(spans: readonly Uint8Array[], pages: number, options: BackupPagesOptions): Promise<BackupResult> {
    return new Promise((resolve) => {
      const { signal } = options
      const stop = () => this.#abort(call, abortError(signal!, { backup: this.#settings.name }))
      const settle = (result: BackupResult) => {
        call.isSettled = true
        this.#forgetLater(call)
        if (signal !== undefined) offAbort(signal, stop)
        for (const run of result.handles) this.backedUpPages += run.count
        resolve(result)
      }
      const call: BackupCall = {
        pages,
        spans: new SpanCursor(spans),
        options,
        parts: [],
        absorbed: 0,
        error: undefined,
        isSettled: false,
        settle,
      }
      if (signal?.aborted) return stop()
      if (signal !== undefined) onAbort(signal, stop)
      this.#queue.push(call)
      this.#unsettled.add(call)
      this.#filler ??= this.#fill()
    })
  }

  /** Pages that are stored, of calls that have not settled, or did in this turn of the event loop: nobody has seen their handles yet. */
  unsettledRuns(): HandleRun[] {
    return [...this.#unsettled].flatMap(({ parts }) => parts.flatMap(({ run }) => run ?? []))
  }

  /** Calls of one segment settle together: the first caller goes on before the others have heard of their handles. */
  #forgetLater(call: BackupCall): void {
    this.#justSettled.push(call)
    if (this.#justSettled.length > 1) return
    void yieldToEventLoop().then(() => {
      for (const settled of this.#justSettled) this.#unsettled.delete(settled)
      this.#justSettled = []
    })
  }

  /** Pages that could be stored until the capacity is reached. */
  get freePages(): number {
    const capacity = Math.floor(this.#settings.capacityBytes / this.#settings.pageSizeBytes)
    return Math.max(0, capacity - this.#table.livePages - this.#pagesUnderway)
  }

  /** Waits until every call has settled and nothing is being sent. */
  async settle(): Promise<void> {
    while (this.#filler !== undefined || this.#open !== undefined || this.#sending.size > 0) {
      await this.#filler
      this.#seal()
      await Promise.all(this.#sending)
    }
  }

  async #fill(): Promise<void> {
    // Calls that are made in one turn of the event loop are taken in together.
    await yieldToEventLoop()
    for (let call = this.#queue[0]; call !== undefined; call = this.#queue[0]) {
      try {
        await this.#absorb(call)
      } catch (error) {
        // One caller's memory that is gone must not stop the others.
        call.error = serviceError(error, 'taking pages in', this.#settings.name)
      }
      this.#queue.shift()
      this.#check(call)
    }
    this.#filler = undefined
    if (this.#open !== undefined) this.#linger()
  }

  async #absorb(call: BackupCall): Promise<void> {
    const { pageSizeBytes } = this.#settings
    const slicePages = Math.max(1, Math.floor(sliceBytes / pageSizeBytes))
    while (call.absorbed < call.pages && !call.isSettled) {
      const left = call.pages - call.absorbed
      if (this.#shouldBeginSegment(call, left)) this.#seal()
      const room = this.freePages
      if (room === 0) {
        const text = `the capacity of ${this.#settings.capacityBytes} bytes is used up`
        call.error = new SpillwayError('ENOSPC', text, { backup: this.#settings.name, page: call.absorbed })
        return
      }
      try {
        this.#open ??= await this.#newSegment(call.options.signal)
      } catch (error) {
        call.error = serviceError(error, 'writing a segment', this.#settings.name)
        return
      }
      if (call.isSettled) return
      const { builder } = this.#open
      const pages = Math.min(left, builder.freePages, slicePages, room)
      this.#take(call, this.#open, pages)
      if (builder.freePages === 0) this.#seal()
      if (call.absorbed < call.pages || pages === slicePages) await yieldToEventLoop()
    }
  }

  /** Whether what is left of a call should not go on in the open segment, which others began: one that it fills itself is filled. */
  #shouldBeginSegment(call: BackupCall, pages: number): boolean {
    if (this.#open === undefined || call.parts.at(-1)?.segment === this.#open) return false
    return isBetterAlone(pages, this.#open.builder.freePages, this.#settings.pagesPerSegment)
  }

  async #newSegment(signal: AbortSignal | undefined): Promise<OpenSegment> {
    const slot = await this.#slots.take(signal)
    try {
      const memory = this.#service.sendsPieces ? undefined : this.#slots.memoryOf(slot)
      const { epoch, generation } = this.#owner
      const place = { epoch, generation, number: await this.#owner.takeSegmentNumber(signal) }
      const builder = new SegmentBuilder(place, this.#settings, this.#zeros, memory)
      return { slot, builder, parts: [], controller: new AbortController() }
    } catch (error) {
      this.#slots.give(slot)
      throw error
    }
  }

  #take(call: BackupCall, segment: OpenSegment, pages: number): void {
    const { builder } = segment
    const pieces = call.spans.take(pages * this.#settings.pageSizeBytes)
    let part = call.parts.at(-1)
    if (part?.segment !== segment) {
      const place = { slot: builder.pages, firstPiece: builder.body.pieces.length }
      part = { call, segment, ...place, pages: 0, endPiece: 0, run: undefined, error: undefined }
      call.parts.push(part)
      segment.parts.push(part)
    }
    for (const bytes of pieces) {
      builder.add(bytes)
      part.endPiece = builder.body.pieces.length
    }
    part.pages += pages
    call.absorbed += pages
    this.#pagesUnderway += pages
  }

  #linger(): void {
    stopTimer(this.#lingerTimer)
    const { lingerMs } = this.#settings
    this.#lingerTimer = startTimer(() => {
      this.#lingered = true
      this.#sealLingering()
    }, lingerMs)
  }

  // While the line is busy the segment may as well grow: it would only wait.
  #sealLingering(): void {
    if (this.#lingered && this.#filler === undefined && this.#sending.size <= 1) this.#seal()
  }

  #seal(): void {
    const segment = this.#open
    if (segment === undefined) return
    stopTimer(this.#lingerTimer)
    this.#lingered = false
    this.#open = undefined
    const sending = this.#send(segment).finally(() => {
      this.#sending.delete(sending)
      this.#sealLingering()
    })
    this.#sending.add(sending)
  }

  async #send(segment: OpenSegment): Promise<void> {
    const { builder, parts } = segment
    const key = this.#keys.segment(builder.epoch, builder.number)
    let failure: Error | undefined
    try {
      if (parts.every(({ call }) => call.isSettled))
        throw new SpillwayError('EINTR', 'nobody wants it any more')
      const { checksums, ...sums } = builder.finish()
      const { body } = builder
      const { signal } = segment.controller
      const retryMayFail = parts.every(({ call }) => call.options.retryMayFail === true)
      this.#deletions.expect(key)
      await this.#service.upload(key, body, { ...sums, signal, retryMayFail })
      // Pages are acknowledged only if the lease held until the answer came.
      await this.#owner.assertOwned()
      this.#deletions.certain(key)
      const { epoch, number, generation } = builder
      this.#table.addWritten(
        segmentObject(epoch, number, generation, builder.pages, body.byteLength, checksums),
      )
    } catch (error) {
      failure = serviceError(error, `writing ${key}`, this.#settings.name)
      if (isSpillwayError(failure) && (failure.code === 'EDQUOT' || failure.code === 'ENOSPC')) {
        this.fullAt = nowMs()
      }
      // Refused by the budget before anything was sent: nothing can be there.
      if (isOverBudget(failure)) this.#deletions.certain(key)
      else this.#deletions.removeUncertain(key)
    } finally {
      this.#slots.give(segment.slot)
      this.#owner.settled(builder.number)
    }
    for (const part of parts) {
      const run = { first: handleOf(builder.number, part.slot), count: part.pages }
      this.#pagesUnderway -= part.pages
      if (failure !== undefined) part.error = failure
      else if (part.call.isSettled) this.#table.drop([run])
      else part.run = run
    }
    for (const part of parts) this.#check(part.call)
    if (failure === undefined) this.#onSegment()
  }

  /** Settles the call when all that was taken in of it is done. */
  #check(call: BackupCall): void {
    if (isDone(call)) this.#settle(call, undefined)
  }

  /** Settles the call. Its memory is its owner's again then, so first nothing may read it any more. */
  #abort(call: BackupCall, error: SpillwayError): void {
    this.#settle(call, error)
    for (const { segment, firstPiece, endPiece, run, error: failure } of call.parts) {
      if (run !== undefined || failure !== undefined) continue
      const isWanted = segment === this.#open || segment.parts.some((part) => !part.call.isSettled)
      if (!isWanted) segment.controller.abort(error)
      else if (this.#service.sendsPieces) segment.builder.body.copyPieces(firstPiece, endPiece)
    }
  }

  #settle(call: BackupCall, aborted: SpillwayError | undefined): void {
    const { result, unknown } = outcome(call, aborted)
    // What was stored after the gap has no handle that anybody knows.
    if (unknown.length > 0) this.#table.drop(unknown)
    call.settle(result)
  }
}
