import {
  abortError,
  afterInput,
  type CopyResult,
  type HandleRun,
  SpillwayError,
  type TransferOptions,
} from '@spillway/core'
import type { CostLedger } from '../cost/ledger.ts'
import type { KeySpace } from '../keys.ts'
import type { Settings } from '../options.ts'
import type { SegmentObject, SegmentTable } from '../segments/segment-table.ts'
import { SpanCursor } from '../segments/span-cursor.ts'
import type { S3Service } from '../service/service.ts'
import { serviceError } from '../service/service-errors.ts'
import { HedgePolicy } from './hedging.ts'
import { fetchRange, Interrupted } from './range-fetch.ts'
import { type RangePart, RangeTarget } from './range-target.ts'
import {
  copiedPages,
  cutIntoParts,
  damagedPage,
  type PagePlaces,
  type RestoreCall,
  type RestoreGroup,
  type RestorePart,
  resultOf,
} from './restore-parts.ts'
import { RestoreQueue } from './restore-queue.ts'

/**
 * Restores: calls of `copyPages` become as few ranged GETs as possible.
 *
 *   copyPages ─▶ parts (adjacent pages of one object) ─▶ waiting, by object ─▶ group ─▶ one GET
 *
 * Parts of all calls that wait at the same time are put together when they are adjacent or the gap is cheaper than a
 * request. GETs under way are bounded by number and by bytes. A call settles when its last part did.
 */

/** Requests that begin before the event loop turns. */
const requestsPerTurn = 4

export interface RestoreCounters {
  resumes: number
  checksumErrors: number
  overReadBytes: number
}

export class Restores {
  readonly counters: RestoreCounters = { resumes: 0, checksumErrors: 0, overReadBytes: 0 }
  readonly hedging: HedgePolicy
  readonly #settings: Settings
  readonly #service: S3Service
  readonly #table: SegmentTable
  readonly #keys: KeySpace
  readonly #ledger: CostLedger
  readonly #places: PagePlaces
  readonly #loadChecksums: (object: SegmentObject) => Promise<void>
  readonly #waiting = new RestoreQueue()
  #requests = 0
  #bytes = 0
  #pumpSet = false
  /** Requests that were begun since the event loop turned. */
  #begun = 0

  constructor(
    settings: Settings,
    service: S3Service,
    table: SegmentTable,
    keys: KeySpace,
    ledger: CostLedger,
    loadChecksums: (object: SegmentObject) => Promise<void>,
  ) {
    this.#settings = settings
    this.#service = service
    this.#table = table
    this.#keys = keys
    this.#ledger = ledger
    this.#places = { table, keys, backup: settings.name, pageSizeBytes: settings.pageSizeBytes }
    this.#loadChecksums = loadChecksums
    this.hedging = new HedgePolicy(settings.hedgeShare)
  }

  /** The handles are live and as many as the spans' pages. */
  copy(
    handles: readonly HandleRun[],
    spans: readonly Uint8Array[],
    options: TransferOptions,
  ): Promise<CopyResult> {
    return new Promise((resolve) => {
      const { signal } = options
      const onAbort = () => {
        call.isAborted = true
        this.#cancel(call)
        call.settle(abortError(signal!, { backup: this.#settings.name }))
      }
      let settled = false
      const settle = (aborted?: Error) => {
        if (settled) return
        settled = true
        signal?.removeEventListener('abort', onAbort)
        resolve(resultOf(call, aborted))
      }
      const call: RestoreCall = { isAborted: false, parts: [], options, left: 0, settle }
      cutIntoParts(call, handles, spans, this.#places)
      call.left = call.parts.filter((part) => part.error === undefined).length
      if (signal?.aborted) return settle(abortError(signal, { backup: this.#settings.name }))
      if (call.left === 0) return settle()
      signal?.addEventListener('abort', onAbort, { once: true })
      for (const part of call.parts) {
        if (part.error !== undefined) continue
        part.object.readers++
        this.#waiting.add(part)
      }
      this.#schedule()
    })
  }

  /** Takes a call's parts out of everything; none of its memory is touched afterwards. */
  #cancel(call: RestoreCall): void {
    for (const part of call.parts) {
      if (part.group === undefined) {
        if (part.error !== undefined || !this.#waiting.has(part)) continue
        this.#waiting.remove(part.object, [part])
        this.#table.release(part.object)
        continue
      }
      const { group } = part
      if (group.parts.every((other) => other.call.isAborted)) {
        group.controller.abort(new SpillwayError('EINTR', 'aborted by the caller'))
      } else if (group.target?.lentTo === call) {
        group.target.writer?.interrupt(new Interrupted('the memory is wanted back'))
      }
    }
  }

  // Calls that are made one after the other in one turn of the event loop are seen together.
  #schedule(): void {
    if (this.#pumpSet) return
    this.#pumpSet = true
    afterInput(() => {
      this.#pumpSet = false
      this.#begun = 0
      this.#pump()
    })
  }

  #pump(): void {
    const { restoresInFlight, restoreBytesInFlight } = this.#settings
    for (let object = this.#waiting.first; object !== undefined; object = this.#waiting.first) {
      if (this.#requests >= restoresInFlight) return
      // The SDK needs a quarter of a millisecond for a request: the others begin when the event loop has turned.
      if (this.#begun >= requestsPerTurn) {
        this.#schedule()
        return
      }
      this.#begun++
      const waiting = object.waiting!
      waiting.sort((left, right) => left.slot - right.slot)
      const parts = this.#nextGroup(waiting)
      const last = parts[parts.length - 1]
      const bytes = (last.slot + last.pages - parts[0].slot) * this.#settings.pageSizeBytes
      if (this.#bytes > 0 && this.#bytes + bytes > restoreBytesInFlight) return
      this.#waiting.remove(object, parts)
      this.#requests++
      this.#bytes += bytes
      const group: RestoreGroup = { parts, controller: new AbortController(), target: undefined }
      for (const part of parts) part.group = group
      this.#read(object, group).finally(() => {
        this.#requests--
        this.#bytes -= bytes
        for (const part of parts) this.#finish(part)
        this.#pump()
      })
    }
  }

  /** The first parts that one GET can serve. */
  #nextGroup(waiting: readonly RestorePart[]): RestorePart[] {
    const { mergeGapBytes, pageSizeBytes, restoreBytesInFlight } = this.#settings
    const group = [waiting[0]]
    const retryMayFail = waiting[0].call.options.retryMayFail ?? false
    let end = waiting[0].slot + waiting[0].pages
    for (const part of waiting.slice(1)) {
      if ((part.call.options.retryMayFail ?? false) !== retryMayFail || part.slot < end) continue
      if ((part.slot - end) * pageSizeBytes > mergeGapBytes) break
      if ((part.slot + part.pages - waiting[0].slot) * pageSizeBytes > restoreBytesInFlight) break
      group.push(part)
      end = part.slot + part.pages
    }
    return group
  }

  async #read(object: SegmentObject, group: RestoreGroup): Promise<void> {
    const key = this.#keys.segment(object.epoch, object.number)
    const retryMayFail = group.parts[0].call.options.retryMayFail ?? false
    const { signal } = group.controller
    try {
      if (object.checksums === undefined) await this.#loadChecksums(object)
      const fetch = async (parts: readonly RangePart[]) => {
        const target = new RangeTarget(object, parts, this.#settings.pageSizeBytes)
        target.onProgress = (bytes) => this.#ledger.received('get', bytes)
        group.target = target
        try {
          await fetchRange({ key, target, signal, retryMayFail }, this.#service, this.hedging, this.counters)
        } finally {
          this.counters.overReadBytes += target.overReadBytes
        }
      }
      await fetch(group.parts)
      for (const part of group.parts) await this.#readAgain(part, fetch)
    } catch (failure) {
      const error = serviceError(failure, `reading ${key}`, this.#settings.name)
      for (const part of group.parts) if (copiedPages(part) < part.pages) part.error ??= error
    }
  }

  /** A page that came damaged is asked for once more: the wire may have done it. */
  async #readAgain(part: RestorePart, fetch: (parts: readonly RangePart[]) => Promise<void>): Promise<void> {
    const size = this.#settings.pageSizeBytes
    while (part.badPages.length > 0 && !part.call.isAborted) {
      const page = part.badPages[0]
      const slot = part.slot + page
      const memory = new SpanCursor(part.memory)
      memory.take(page * size)
      const again: RangePart = {
        slot,
        pages: 1,
        memory: memory.take(size),
        call: part.call,
        arrived: 0,
        badPages: [],
      }
      this.counters.checksumErrors++
      await fetch([again])
      if (again.badPages.length > 0) {
        part.object.quarantined ??= new Set()
        part.object.quarantined.add(slot)
        part.error = damagedPage(
          this.#places,
          part.object,
          slot,
          part.firstPage + page,
          part.firstHandle + page,
        )
        return
      }
      part.badPages.shift()
    }
  }

  #finish(part: RestorePart): void {
    const { call } = part
    this.#table.release(part.object)
    if (part.error !== undefined) {
      // What comes after it cannot become part of the prefix.
      for (const later of call.parts) {
        if (later.firstPage <= part.firstPage || later.group !== undefined || later.error !== undefined)
          continue
        later.error = part.error
        this.#waiting.remove(later.object, [later])
        this.#table.release(later.object)
        call.left--
      }
    }
    if (--call.left === 0) call.settle()
  }
}
