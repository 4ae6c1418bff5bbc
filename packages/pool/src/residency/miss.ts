import { abortError, SpillwayError, type TransferOptions } from '@spillway/core'
import { trace } from '../ground/trace.ts'
import { dirty, listForOne, notReady, pageIn, pageOut, partial } from '../table/chunks.ts'
import type { BufferState } from './buffer-state.ts'
import { closedBuffer } from './closed.ts'
import type { DamagedPages } from './damaged-pages.ts'
import { type ChunksToInstall, installMissing } from './installation.ts'
import type { Claim } from './limit.ts'
import type { PageIn, PageInWaiter } from './page-in.ts'
import { alignedStart, chunkOrder, emptyPages, type WantedPages } from './placement.ts'
import { inPages } from './refusal.ts'
import type { ResidentSet } from './resident-set.ts'

/** What somebody is going to do with the pages. */
export interface PinOptions extends TransferOptions {
  readonly write: boolean
  /** Nobody wants the pages yet: having them is no use of them. */
  readonly ahead?: boolean | undefined
  /** Whoever asks can do without memory: it fails at once with `ENOMEM` while no backup stores anything. */
  readonly bypasses?: boolean | undefined
  /**
   * Pages from here to there will be overwritten whole: chunks that lie inside and are not resident come with any content
   * and on their way in, and whoever pins them tells the resident set that each is `overwritten` once its bytes are in.
   */
  readonly overwriteFrom?: number | undefined
  readonly overwriteEnd?: number | undefined
}

/** Who wants a range pinned. */
export interface PinWaiter {
  /** Told once: the chunks of the range, pinned and in order, or what stopped it, and then nothing is pinned. */
  delivered(pinned: number[] | undefined, error: Error | undefined): void
}

/** What misses work with. */
export interface MissParts {
  readonly residents: ResidentSet
  readonly pageIn: PageIn
  readonly damage: DamagedPages
  /** Evicts what needs no I/O until so many pages are free, or as many as there are; returns how many. */
  readonly makeRoom: (pages: number) => number
  /** What the backups said, while all that hold dirty pages up fail and none of them is due to be tried again. */
  readonly storeFailure: () => Error | undefined
}

type Phase = 'wanted' | 'waiting' | 'charged' | 'installed' | 'started' | 'arrived' | 'delivered'

/**
 * A range that somebody wants in memory and that is not there, or not ready:
 *
 *   wanted ─▶ charged ─▶ installed ─▶ started ─▶ arrived ─▶ delivered
 *      │         ▲            ▲          │          │
 *      └▶ waiting┘            └──────────┴──────────┘ what another copies in did not come, or is being stored
 *        for memory
 *
 * Each step is a plain call. Nothing is promised to anybody but the caller, and what comes at once takes no promise at all.
 * A miss that meets chunks which another one brings in waits for those copies, and makes none of its own. Who aborts
 * leaves at once; copies that are under way go on, with pins of their own, and their memory stays charged. From the charge
 * on all steps to the start of the copy are one: nobody can take any of it away in between.
 */
export class Miss implements Claim, PageInWaiter, ChunksToInstall {
  phase: Phase = 'wanted'
  readonly buffer: BufferState
  /** Pages that the claim asks for while it waits; then those that were charged. */
  pages = 0
  /** Attempts of reclaim that had begun when the claim came. */
  arrivedAt = 0
  ticket = 0
  nextClaim: Claim | undefined
  previousClaim: Claim | undefined
  isQueued = false
  readonly #parts: MissParts
  readonly #wanted: WantedPages
  readonly #options: PinOptions
  /** Set by `begin`. */
  #waiter!: PinWaiter
  /** Chunks of the range that are pinned for it. */
  readonly pinned: number[] = listForOne()
  #abort: (() => void) | undefined
  #isStepping = false
  /** All pages of the range had chunks when it was last gone through. */
  #isComplete = false

  constructor(parts: MissParts, buffer: BufferState, wanted: WantedPages, options: PinOptions) {
    this.#parts = parts
    this.buffer = buffer
    this.#wanted = wanted
    this.#options = options
  }

  get claimant(): BufferState {
    return this.buffer
  }

  get retryMayFail(): boolean {
    return this.#options.retryMayFail === true
  }

  get chargedPages(): number {
    return this.pages
  }

  /** Goes as far as it can at once; the caller counts as an operation under way until it has let go of what is delivered. */
  begin(waiter: PinWaiter): void {
    this.#waiter = waiter
    const { operations } = this.#parts.residents
    operations.begin()
    operations.keeps(this.pinned)
    const { signal } = this.#options
    if (signal !== undefined) {
      if (signal.aborted) {
        this.#fail(this.#aborted(signal))
        return
      }
      this.#abort = () => this.#leave(signal)
      signal.addEventListener('abort', this.#abort, { once: true })
    }
    this.#goOn()
  }

  // What the limit asks and says of the claim.

  /** The pages that are missing now; it is the first in the queue, so it may hold on to what is there. */
  need(): number {
    return this.#fitting(this.#collect())
  }

  /** It waits for its own pool, or another has the turn. */
  letGo(): void {
    this.#letGo()
  }

  served(pages: number): void {
    this.#parts.residents.operations.goesOn(this.pinned)
    this.pages = pages
    this.phase = 'charged'
    this.#goOn()
  }

  refused(error: Error): void {
    this.#parts.residents.operations.goesOn(this.pinned)
    this.#fail(error)
  }

  /** Takes steps until one has to wait. What a step begins may be done before it returns: then the loop goes on. */
  #goOn(): void {
    if (this.#isStepping) return
    this.#isStepping = true
    try {
      while (this.#step());
    } catch (failure) {
      this.#fail(failure as Error)
    } finally {
      this.#isStepping = false
    }
  }

  /** One step; says whether the next can be taken now. */
  #step(): boolean {
    switch (this.phase) {
      case 'wanted':
        return this.#charge()
      case 'charged':
        return this.#install()
      case 'installed':
        return this.#start()
      case 'arrived':
        return this.#lookAgain()
      default:
        return false
    }
  }

  #charge(): boolean {
    const { residents } = this.#parts
    const missing = this.#collect()
    if (missing === 0) {
      this.#isComplete = true
      this.phase = 'installed'
      return true
    }
    // Whoever frees the buffer waits for this call, so it must not wait for others.
    if (this.buffer.closing) throw closedBuffer(this.buffer)
    this.pages = missing
    if (residents.limit.tryCharge(missing) || this.#chargeEvicting(missing)) {
      this.phase = 'charged'
      return true
    }
    this.#fitting(missing)
    if (this.#options.bypasses === true) this.#assertStoring(missing)
    // Who waits holds nothing until it is the first of the queue.
    this.#letGo()
    residents.counters.waits++
    if (trace.wait.hasSubscribers) {
      trace.wait.publish({ pool: residents.poolName, buffer: this.buffer.label, pages: missing })
      // Whoever was told may have freed the buffer, or closed the pool.
      if (this.buffer.closing) throw closedBuffer(this.buffer)
    }
    this.phase = 'waiting'
    residents.operations.waits(this.pinned, () => {
      this.#letGo()
      residents.limit.serveSoon()
    })
    residents.limit.claim(this)
    return false
  }

  #assertStoring(missing: number): void {
    const cause = this.#parts.storeFailure()
    if (cause === undefined) return
    const { label } = this.buffer
    const message = `no room for ${missing} pages of buffer ${label}: its backup failed: ${cause.message}`
    throw new SpillwayError('ENOMEM', message, { buffer: label, cause, retryable: true })
  }

  /** Charges what cold clean chunks have to leave for, when nobody waits: then it need not wait either. */
  #chargeEvicting(pages: number): boolean {
    const { residents, makeRoom } = this.#parts
    const { limit } = residents
    if (limit.shared.waiters > 0 || pages > limit.limitPages) return false
    makeRoom(pages - limit.availablePages)
    return limit.tryCharge(pages)
  }

  #install(): boolean {
    const { residents } = this.#parts
    this.#isComplete = installMissing(residents, this.buffer, this.#wanted, this)
    this.phase = 'installed'
    return true
  }

  /** Brings in what is pinned, not ready, and not being brought in by another. */
  #start(): boolean {
    const { residents } = this.#parts
    const { pinned } = this
    let jobs: number[] | undefined
    for (let index = 0; index < pinned.length; index++) {
      const chunk = pinned[index]!
      const isMissing = (residents.chunks.flagsOf(chunk) & notReady) === partial
      if (!isMissing || this.#willOverwrite(chunk)) continue
      if (this.#options.ahead !== true && residents.chunks.storedAt(chunk) !== 0)
        residents.counters.missedChunks++
      if (jobs === undefined) jobs = [chunk]
      else jobs.push(chunk)
    }
    if (jobs === undefined) {
      this.phase = 'arrived'
      return true
    }
    this.phase = 'started'
    this.#parts.pageIn.start(this.buffer, jobs, this.#options, this)
    return this.phase !== 'started'
  }

  /** What it started or waited for is over. */
  pageInEnded(error: Error | undefined): void {
    if (this.phase === 'delivered') return
    if (error !== undefined) {
      this.#avoidOrFail(error)
      return
    }
    this.phase = 'arrived'
    this.#goOn()
  }

  /** Goes on without the page that stopped it when the caller does not need that one. */
  #avoidOrFail(failure: Error): void {
    if ((failure as { page?: number }).page === undefined) {
      this.#fail(failure)
      return
    }
    this.phase = 'waiting'
    this.#avoidDamage(failure).then(
      (isAvoided) => {
        if (this.phase === 'delivered') return
        if (!isAvoided) {
          this.#fail(failure)
          return
        }
        this.phase = 'wanted'
        this.#goOn()
      },
      (error) => this.#fail(error),
    )
  }

  async #avoidDamage(failure: Error): Promise<boolean> {
    const { damage } = this.#parts
    const { first, end } = this.#wanted
    const failed = { ...this.#options, failure, first, end }
    if (!(await damage.isAvoidable(this.buffer, failed)) || this.#isOver()) return false
    this.#letGo()
    await damage.setAside(this.buffer, (failure as { page?: number }).page!, this.#options.signal)
    return true
  }

  /** Whether it was delivered, or given up. */
  #isOver(): boolean {
    return this.phase === 'delivered'
  }

  /** Delivers, or waits for what others do with one of the chunks. */
  #lookAgain(): boolean {
    if (!this.#isComplete) {
      this.phase = 'wanted'
      return true
    }
    const { residents } = this.#parts
    const { pinned } = this
    const blocked = this.#options.write ? pageIn | pageOut : pageIn
    for (let index = 0; index < pinned.length; index++) {
      const chunk = pinned[index]!
      const flags = residents.chunks.flagsOf(chunk)
      if ((flags & blocked) !== 0) {
        this.phase = 'waiting'
        residents.chunks.onSettled(chunk, () => this.pageInEnded(undefined))
        return false
      }
      if ((flags & partial) !== 0 && !this.#willOverwrite(chunk)) {
        this.phase = 'installed'
        return true
      }
    }
    this.#finish()
    return false
  }

  #finish(): void {
    const { residents } = this.#parts
    const { chunks, order, mappings } = residents
    const { write, ahead } = this.#options
    const { pinned, buffer } = this
    for (let index = 0; index < pinned.length; index++) {
      const chunk = pinned[index]!
      if (ahead !== true) order.used(chunk)
      if (buffer.deviceMapped) mappings.map(buffer, chunk)
    }
    for (let index = 0; index < pinned.length; index++) {
      const chunk = pinned[index]!
      if (chunks.has(chunk, partial)) residents.beginOverwrite(chunk)
      else if (write && !chunks.has(chunk, dirty)) residents.markDirty(buffer, chunk)
    }
    if (pinned.length > 1) pinned.sort((one, other) => chunks.firstPageOf(one) - chunks.firstPageOf(other))
    this.#end()
    this.#waiter.delivered(pinned, undefined)
  }

  #fail(error: Error): void {
    if (this.phase === 'delivered') return
    this.#end()
    this.#letGo()
    this.#parts.residents.operations.end(this.pinned)
    this.#waiter.delivered(undefined, error)
  }

  #end(): void {
    this.phase = 'delivered'
    if (this.#abort !== undefined) this.#options.signal?.removeEventListener('abort', this.#abort)
  }

  #leave(signal: AbortSignal): void {
    if (this.isQueued) {
      this.#parts.residents.limit.withdraw(this)
      this.#parts.residents.operations.goesOn(this.pinned)
    }
    this.#fail(this.#aborted(signal))
  }

  #aborted(signal: AbortSignal): SpillwayError {
    return abortError(signal, { buffer: this.buffer.label })
  }

  #letGo(): void {
    const { residents } = this.#parts
    const { pinned } = this
    if (pinned.length === 0) return
    for (let index = 0; index < pinned.length; index++) residents.unpin(pinned[index]!, this.buffer)
    pinned.length = 0
    residents.unpinned()
  }

  /** Pins what is resident in the range and says how many pages are missing around the rest. */
  #collect(): number {
    this.#letGo()
    return collect(this.#parts.residents, this.buffer, this.#wanted, this.pinned)
  }

  /** Throws `ENOMEM` when the range could not be resident even if nothing else were. */
  #fitting(missing: number): number {
    const { chunks, limit } = this.#parts.residents
    let pages = missing
    for (const chunk of this.pinned) pages += chunks.pageCount(chunk)
    if (pages <= limit.limitPages) return missing
    const needed = inPages(pages, limit.pageSizeBytes)
    const limited = inPages(limit.limitPages, limit.pageSizeBytes)
    throw new SpillwayError(
      'ENOMEM',
      `a range of buffer ${this.buffer.label} needs ${needed} at once; the limit is ${limited}; take it in parts, or raise the limit`,
      { buffer: this.buffer.label, retryable: false },
    )
  }

  #willOverwrite(chunk: number): boolean {
    const { overwriteFrom, overwriteEnd } = this.#options
    if (overwriteFrom === undefined || overwriteEnd === undefined) return false
    const { chunks } = this.#parts.residents
    return chunks.firstPageOf(chunk) >= overwriteFrom && chunks.endPageOf(chunk) <= overwriteEnd
  }
}

/** Pins what is resident in a range and adds it to `pinned`; returns how many pages are missing around the rest. */
export function collect(
  residents: ResidentSet,
  buffer: BufferState,
  wanted: WantedPages,
  pinned: number[],
): number {
  const { chunks } = residents
  const { table } = buffer
  let missing = 0
  for (let page = wanted.first; page < wanted.end; ) {
    const chunk = table.chunkAt(page)
    const empty = wanted.storedOnly === true && chunk === 0 ? emptyPages(table, page, wanted.end) : 0
    if (chunk !== 0) {
      residents.pin(chunk)
      pinned.push(chunk)
      page = chunks.endPageOf(chunk)
    } else if (empty > 0) {
      page += empty
    } else {
      const order = chunkOrder(buffer, page, wanted)
      missing += 1 << order
      page = alignedStart(buffer, page, order) + (1 << order)
    }
  }
  return missing
}
