import {
  abortError,
  afterInput,
  type CopyResult,
  type HandleRun,
  nowMs,
  SpanCursor,
  SpillwayError,
  type TransferOptions,
} from '@spillway/core'
import type { CostLedger } from '../cost/ledger.ts'
import type { KeySpace } from '../keys.ts'
import type { Settings } from '../options.ts'
import type { SegmentObject, SegmentTable } from '../segments/segment-table.ts'
import { offAbort, onAbort } from '../service/abort-listeners.ts'
import type { S3Service } from '../service/service.ts'
import { serviceError } from '../service/service-errors.ts'
import { HedgePolicy } from './hedging.ts'
import { type FetchMeans, Interrupted, RangeFetch } from './range-fetch.ts'
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
import { added } from './short-list.ts'

/**
 * Restores: calls of `copyPages` become as few ranged GETs as possible.
 *
 *   copyPages ─▶ parts (adjacent pages of one object) ─▶ waiting, by object ─▶ group ─▶ one GET
 *
 * Parts of all calls that wait at the same time are put together when they are adjacent or the gap is cheaper than a
 * request. GETs under way are bounded by number and by bytes. A call settles when its last part did.
 */

/** How long requests are begun before the event loop turns. */
const beginningMs = 1

export interface RestoreCounters {
  resumes: number
  checksumErrors: number
  overReadBytes: number
}

export class Restores {
  readonly counters: RestoreCounters = { resumes: 0, checksumErrors: 0, overReadBytes: 0 }
  readonly hedging: HedgePolicy
  readonly #settings: Settings
  readonly #means: FetchMeans
  readonly #table: SegmentTable
  readonly #keys: KeySpace
  readonly #received: (bytes: number) => void
  readonly #places: PagePlaces
  readonly #loadChecksums: (object: SegmentObject) => Promise<void>
  readonly #waiting = new RestoreQueue()
  readonly #abortErrors = new WeakMap<AbortSignal, Error>()
  #requests = 0
  #bytes = 0
  #pumpSet = false
  /** When the first request was begun since the event loop turned. */
  #beganAt = 0

  constructor(
    settings: Settings,
    service: S3Service,
    table: SegmentTable,
    keys: KeySpace,
    ledger: CostLedger,
    loadChecksums: (object: SegmentObject) => Promise<void>,
  ) {
    this.#settings = settings
    this.#table = table
    this.#keys = keys
    this.#received = (bytes) => ledger.received('get', bytes)
    this.#places = { table, keys, backup: settings.name, pageSizeBytes: settings.pageSizeBytes }
    this.#loadChecksums = loadChecksums
    this.hedging = new HedgePolicy(settings.hedgeShare)
    this.#means = { service, hedging: this.hedging, counters: this.counters }
  }

  /** The handles are live and as many as the spans' pages. `done` is told once, perhaps at once. */
  copy(
    handles: readonly HandleRun[],
    spans: readonly Uint8Array[],
    options: TransferOptions,
    done: (result: CopyResult) => void,
  ): void {
    const { signal } = options
    const call: RestoreCall = { isAborted: false, parts: [], options, left: 0, done, stop: undefined }
    const parts = cutIntoParts(call, handles, spans, this.#places)
    call.parts = parts
    for (let index = 0; index < parts.length; index++) if (parts[index].error === undefined) call.left++
    if (signal?.aborted || call.left === 0) {
      this.#settle(call, signal?.aborted ? this.#abortErrorOf(signal) : undefined)
      return
    }
    if (signal !== undefined) {
      call.stop = () => this.#stop(call, signal)
      onAbort(signal, call.stop)
    }
    for (let index = 0; index < parts.length; index++) {
      const part = parts[index]
      if (part.error !== undefined) continue
      part.object.readers++
      this.#waiting.add(part)
    }
    this.#schedule()
  }

  #settle(call: RestoreCall, aborted?: Error): void {
    const { done, stop, options } = call
    if (done === undefined) return
    call.done = undefined
    if (stop !== undefined) offAbort(options.signal!, stop)
    done(resultOf(call, aborted))
  }

  #stop(call: RestoreCall, signal: AbortSignal): void {
    call.isAborted = true
    // Settled first: a fetch that is given up may end at once, with a reason that is not the caller's.
    this.#settle(call, this.#abortErrorOf(signal))
    this.#cancel(call)
  }

  /** One error for all calls that a signal ends: its stack is most of what ending a call costs. */
  #abortErrorOf(signal: AbortSignal): Error {
    let error = this.#abortErrors.get(signal)
    if (error === undefined) {
      error = abortError(signal, { backup: this.#settings.name })
      this.#abortErrors.set(signal, error)
    }
    return error
  }

  /** Takes a call's parts out of everything; none of its memory is touched afterwards. */
  #cancel(call: RestoreCall): void {
    for (const part of call.parts) {
      if (part.group === undefined) {
        if (!part.isWaiting) continue
        this.#waiting.remove(part)
        this.#table.release(part.object)
        continue
      }
      const { group } = part
      const { fetch } = group
      if (group.parts.every((other) => other.call.isAborted)) {
        group.abortReason ??= new SpillwayError('EINTR', 'aborted by the caller')
        fetch?.abort(group.abortReason)
      } else if (fetch?.target.lentTo === call) {
        fetch.target.writer?.interrupt(new Interrupted('the memory is wanted back'))
      }
    }
  }

  // Calls that are made one after the other in one turn of the event loop are seen together.
  #schedule(): void {
    if (this.#pumpSet) return
    this.#pumpSet = true
    afterInput(this.#begins)
  }

  readonly #begins = () => {
    this.#pumpSet = false
    this.#beganAt = nowMs()
    this.#pump()
  }

  #pump(): void {
    const { restoresInFlight, restoreBytesInFlight, pageSizeBytes } = this.#settings
    for (let object = this.#waiting.first; object !== undefined; object = this.#waiting.first) {
      if (this.#requests >= restoresInFlight) return
      const parts = this.#nextGroup(this.#waiting.partsOf(object))
      const first = parts[0]
      const last = parts[parts.length - 1]
      const bytes = (last.slot + last.pages - first.slot) * pageSizeBytes
      if (this.#bytes > 0 && this.#bytes + bytes > restoreBytesInFlight) return
      // Through the SDK each takes a quarter of a millisecond: the others begin when the event loop has turned.
      if (nowMs() - this.#beganAt > beginningMs) {
        this.#schedule()
        return
      }
      this.#requests++
      this.#bytes += bytes
      const group: RestoreGroup = { object, parts, bytes, fetch: undefined, abortReason: undefined }
      for (let index = 0; index < parts.length; index++) {
        this.#waiting.remove(parts[index])
        parts[index].group = group
      }
      this.#begin(group)
    }
  }

  /** The first parts that one GET can serve. */
  #nextGroup(waiting: readonly RestorePart[]): RestorePart[] {
    const { mergeGapBytes, pageSizeBytes, restoreBytesInFlight } = this.#settings
    let group: RestorePart[] = []
    let end = 0
    let first: RestorePart | undefined
    for (let index = 0; index < waiting.length; index++) {
      const part = waiting[index]
      if (!part.isWaiting) continue
      if (first === undefined) first = part
      else {
        if (mayFail(part) !== mayFail(first) || part.slot < end) continue
        if ((part.slot - end) * pageSizeBytes > mergeGapBytes) break
        if ((part.slot + part.pages - first.slot) * pageSizeBytes > restoreBytesInFlight) break
      }
      group = added(group, part)
      end = part.slot + part.pages
    }
    return group
  }

  #begin(group: RestoreGroup): void {
    const { object } = group
    if (object.checksums !== undefined) {
      this.#read(group)
      return
    }
    this.#loadChecksums(object).then(
      () => this.#read(group),
      (error: unknown) => this.#end(group, error),
    )
  }

  #read(group: RestoreGroup): void {
    this.#fetch(group, group.parts, (error) => {
      if (error !== undefined || !group.parts.some(hasBadPages)) {
        this.#end(group, error)
        return
      }
      this.#readAgain(group).then(
        () => this.#end(group, undefined),
        (again: unknown) => this.#end(group, again),
      )
    })
  }

  /** Fetches parts of the group; `end` may be told at once. */
  #fetch(group: RestoreGroup, parts: readonly RangePart[], end: (error: unknown) => void): void {
    if (group.abortReason !== undefined) {
      end(group.abortReason)
      return
    }
    const { object } = group
    const target = new RangeTarget(object, parts, this.#settings.pageSizeBytes, this.#received)
    const retryMayFail = group.parts[0].call.options.retryMayFail ?? false
    const key = this.#keys.segment(object.epoch, object.number)
    group.fetch = new RangeFetch({ key, target, retryMayFail }, this.#means, (error) => {
      group.fetch = undefined
      this.counters.overReadBytes += target.overReadBytes
      end(error)
    })
    group.fetch.start()
  }

  /** Pages that came damaged are asked for once more: the wire may have done it. */
  async #readAgain(group: RestoreGroup): Promise<void> {
    const size = this.#settings.pageSizeBytes
    for (const part of group.parts) {
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
          isMemoryGone: false,
        }
        this.counters.checksumErrors++
        await new Promise<void>((resolve, reject) => {
          this.#fetch(group, [again], (error) => (error === undefined ? resolve() : reject(error)))
        })
        if (again.badPages.length > 0) {
          part.object.quarantined ??= new Set()
          part.object.quarantined.add(slot)
          const where = { object: part.object, slot, page: part.firstPage + page }
          part.error = damagedPage(this.#places, { ...where, handle: part.firstHandle + page })
          break
        }
        part.badPages.shift()
      }
    }
  }

  /** A group's GETs are over. */
  #end(group: RestoreGroup, failure: unknown): void {
    if (failure !== undefined) {
      const { object, parts } = group
      const key = this.#keys.segment(object.epoch, object.number)
      const error = serviceError(failure, `reading ${key}`, this.#settings.name)
      for (const part of parts) if (copiedPages(part) < part.pages) part.error ??= error
    }
    this.#requests--
    this.#bytes -= group.bytes
    for (let index = 0; index < group.parts.length; index++) {
      const part = group.parts[index]
      if (part.isMemoryGone) part.error ??= memoryGone(this.#settings.name)
      this.#finish(part)
    }
    this.#pump()
  }

  #finish(part: RestorePart): void {
    const { call } = part
    this.#table.release(part.object)
    if (part.error !== undefined) {
      // What comes after it cannot become part of the prefix.
      for (const later of call.parts) {
        if (later.firstPage <= part.firstPage || !later.isWaiting) continue
        later.error = part.error
        this.#waiting.remove(later)
        this.#table.release(later.object)
        call.left--
      }
    }
    if (--call.left === 0) this.#settle(call)
  }
}

function memoryGone(backup: string): SpillwayError {
  return new SpillwayError('EFAULT', 'the memory was detached or resized during the call', { backup })
}

function mayFail(part: RestorePart): boolean {
  return part.call.options.retryMayFail ?? false
}

function hasBadPages({ badPages }: RangePart): boolean {
  return badPages.length > 0
}
