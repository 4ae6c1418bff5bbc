import { abortError, SpillwayError, type TransferOptions } from '@spillway/core'
import { trace } from '../ground/trace.ts'
import { busy, dirty, notReady, pageIn, pageOut, partial } from '../table/chunks.ts'
import type { BufferState } from './buffer-state.ts'
import { closedBuffer } from './closed.ts'
import { DamagedPages, type FailedPageIn } from './damaged-pages.ts'
import { installMissing } from './installation.ts'
import type { PageIn } from './page-in.ts'
import { alignedStart, chunkOrder, emptyPages } from './placement.ts'
import type { ResidentSet } from './resident-set.ts'
import { settledOrAborted } from './waiting.ts'

/** What the holder is going to do. */
export interface HoldOptions extends TransferOptions {
  readonly write: boolean
  /** Nobody wants the pages yet: having them is no use of them. */
  readonly ahead?: boolean | undefined
  /** Leave out what is neither resident nor stored: it is zeros, and takes no memory for being held. */
  readonly storedOnly?: boolean | undefined
  /** Charge only the pages that are wanted: chunks cover no others, however small they are then. */
  readonly tight?: boolean | undefined
  /**
   * Pages from here to there will be overwritten whole: chunks that lie inside and are not resident come back `filling`
   * and with any content, and the holder must tell the resident set of each that it is `overwritten` once its bytes are in.
   */
  readonly overwriteFrom?: number | undefined
  readonly overwriteEnd?: number | undefined
}

/**
 * Makes ranges of buffers resident and keeps them so until they are released: what every access goes through (T86).
 *
 *   look ─▶ all ready: held
 *     └─▶ missing pages: charge them all at once ─▶ install chunks ─▶ fill ─▶ wait for what others fill ─▶ look again
 *
 * After each wait the range is looked at afresh (B9). Chunks that are held cannot be evicted, split or freed.
 */
export class Holder {
  readonly #residents: ResidentSet
  readonly #fill: PageIn
  readonly damage: DamagedPages
  /** Operations that hold chunks, or are about to, and let go by themselves: waiting for them makes sense. */
  running = 0
  readonly #onIdle: () => void

  /** `onIdle` is told when the last running operation ended. */
  constructor(residents: ResidentSet, fill: PageIn, onIdle: () => void) {
    this.#residents = residents
    this.#fill = fill
    this.damage = new DamagedPages(residents)
    this.#onIdle = onIdle
  }

  /** Holds a range when all of it is ready now; otherwise undefined, and nothing changed. */
  tryHold(buffer: BufferState, first: number, end: number, write: boolean): number[] | undefined {
    const { chunks } = this.#residents
    const { table } = buffer
    const blocked = write ? busy | partial : notReady
    const held: number[] = []
    for (let page = first; page < end; ) {
      const chunk = table.chunkAt(page)
      if (chunk === 0) return undefined
      page = chunks.endPageUnless(chunk, blocked)
      if (page === 0 || (buffer.deviceMapped && !this.#residents.mappings.isMapped(chunk))) return undefined
      held.push(chunk)
    }
    for (let index = 0; index < held.length; index++) {
      const chunk = held[index]!
      this.#residents.pin(chunk)
      this.#residents.order.used(chunk)
      if (write) this.#residents.markDirty(buffer, chunk)
    }
    this.running++
    return held
  }

  /**
   * Holds a range, whatever it takes. Rejects with `EINTR` (aborted), `ENOMEM` (no room within the limit) or what the
   * backup said; then nothing is held, and what was restored so far stays for the next call (T43).
   */
  async hold(buffer: BufferState, first: number, end: number, options: HoldOptions): Promise<number[]> {
    const held: number[] = []
    this.running++
    this.#residents.operations.begin(held)
    try {
      for (;;) {
        if (options.signal?.aborted) throw abortError(options.signal, { buffer: buffer.label })
        if (this.#collect(buffer, first, end, held, options) > 0)
          await this.#bringIn(buffer, first, end, held, options)
        const error = await this.#fillHeld(buffer, held, options)
        if (error !== undefined) {
          await this.#avoidDamage(buffer, held, { ...options, failure: error, first, end })
          continue
        }
        const other = this.#firstBlocked(held, options)
        if (other === 0) break
        if (other < 0) continue
        await settledOrAborted(this.#residents.chunks.whenSettled(other), options.signal, buffer.label)
      }
      this.#finish(buffer, held, options)
      const { chunks } = this.#residents
      return held.sort((one, other) => chunks.firstPageOf(one) - chunks.firstPageOf(other))
    } catch (failure) {
      this.letGo(buffer, held)
      throw failure
    }
  }

  /** Sets the page aside that stopped a page-in, when the call does not need it; throws the failure otherwise. */
  async #avoidDamage(buffer: BufferState, held: number[], failed: FailedPageIn): Promise<void> {
    if (!(await this.damage.isAvoidable(buffer, failed))) throw failed.failure
    this.release(buffer, held)
    await this.damage.setAside(buffer, (failed.failure as { page?: number }).page!, failed.signal)
  }

  /**
   * Holds a range that nobody waits for: undefined when the memory cannot be had at once. `room` is asked to make some
   * without I/O, and says whether it is worth trying again. `marked` chunks count as read ahead until somebody comes.
   */
  holdAhead(
    buffer: BufferState,
    first: number,
    end: number,
    room: (pages: number) => boolean,
    marked: boolean,
  ): Promise<number[]> | undefined {
    const held: number[] = []
    const missing = this.#collect(buffer, first, end, held)
    const { limit, chunks } = this.#residents
    if (!limit.tryCharge(missing) && !(limit.waiters === 0 && room(missing) && limit.tryCharge(missing))) {
      this.release(buffer, held)
      return undefined
    }
    this.release(buffer, held)
    this.running++
    try {
      this.#install(buffer, first, end, held, missing, { retryMayFail: true })
    } catch {
      this.letGo(buffer, held)
      return undefined
    }
    if (marked)
      for (const chunk of held) if (chunks.has(chunk, partial)) this.#residents.order.readAhead(chunk)
    this.release(buffer, held)
    return this.hold(buffer, first, end, { write: false, retryMayFail: true, ahead: true }).finally(() =>
      this.#endRun(),
    )
  }

  /** Ends what `hold` or `tryHold` began. */
  letGo(buffer: BufferState, held: number[]): void {
    this.#residents.operations.end(held)
    this.release(buffer, held)
    this.#endRun()
  }

  /** The operation ends, its chunks stay held: they are the application's now, until `release`. */
  handOver(held: number[]): void {
    this.#residents.operations.end(held)
    this.#endRun()
  }

  /** What an operation holds that `tryHold` gave, and that it goes on to hold while others run. */
  holdOn(held: number[]): void {
    this.#residents.operations.begin(held)
  }

  #endRun(): void {
    if (--this.running === 0) this.#onIdle()
  }

  /** Releases chunks that the application held. */
  release(buffer: BufferState, held: number[]): void {
    if (held.length === 0) return
    for (let index = 0; index < held.length; index++) this.#residents.unpin(held[index]!, buffer)
    held.length = 0
    this.#residents.unpinned()
  }

  /** Pins what is resident in the range and says how many pages are missing around the rest. */
  #collect(
    buffer: BufferState,
    first: number,
    end: number,
    held: number[],
    { storedOnly = false, tight = false }: Pick<HoldOptions, 'storedOnly' | 'tight'> = {},
  ): number {
    const { chunks } = this.#residents
    const { table } = buffer
    this.release(buffer, held)
    let missing = 0
    for (let page = first; page < end; ) {
      const chunk = table.chunkAt(page)
      const empty = storedOnly && chunk === 0 ? emptyPages(table, page, end) : 0
      if (chunk !== 0) {
        this.#residents.pin(chunk)
        held.push(chunk)
        page = chunks.endPageOf(chunk)
      } else if (empty > 0) {
        page += empty
      } else {
        const order = chunkOrder(buffer, page, first, end, storedOnly, tight)
        missing += 1 << order
        page = alignedStart(buffer, page, order) + (1 << order)
      }
    }
    return missing
  }

  /** Charges and installs the missing chunks of the range. */
  async #bringIn(
    buffer: BufferState,
    first: number,
    end: number,
    held: number[],
    options: HoldOptions,
  ): Promise<void> {
    const { limit, counters, operations } = this.#residents
    // Whoever frees the buffer waits for this call, so it must not wait for others.
    if (buffer.closing) throw closedBuffer(buffer)
    let missing = this.#collect(buffer, first, end, held, options)
    if (!limit.tryCharge(missing)) {
      this.#fitting(buffer, held, missing)
      // Who waits holds nothing until it is the first of the queue.
      this.release(buffer, held)
      counters.waits++
      if (trace.wait.hasSubscribers) {
        trace.wait.publish({ pool: this.#residents.poolName, buffer: buffer.label, pages: missing })
        // Whoever was told may have freed the buffer, or closed the pool.
        if (buffer.closing) throw closedBuffer(buffer)
      }
      this.#endRun()
      let isServed = false
      // Running again from the charge on: whoever is next in the queue must not think that nobody will let go.
      const served = () => {
        isServed = true
        this.running++
      }
      operations.waits(held, () => {
        this.release(buffer, held)
        limit.serveSoon()
      })
      try {
        const need = () => this.#fitting(buffer, held, this.#collect(buffer, first, end, held, options))
        missing = await limit.claim(missing, need, options.signal, buffer, served, options.retryMayFail)
      } finally {
        operations.goesOn(held)
        if (!isServed) this.running++
      }
    }
    this.#install(buffer, first, end, held, missing, options)
  }

  /** Throws `ENOMEM` when a range could not be resident even if nothing else were. */
  #fitting(buffer: BufferState, held: readonly number[], missing: number): number {
    const { chunks, limit } = this.#residents
    let pages = missing
    for (const chunk of held) pages += chunks.pageCount(chunk)
    if (pages <= limit.limitPages) return missing
    throw new SpillwayError(
      'ENOMEM',
      `a range of buffer ${buffer.label} needs ${pages} pages at once; the limit is ${limit.limitPages}`,
      { buffer: buffer.label, retryable: false },
    )
  }

  #install(
    buffer: BufferState,
    first: number,
    end: number,
    held: number[],
    charged: number,
    options: Pick<HoldOptions, 'retryMayFail' | 'storedOnly' | 'tight'>,
  ): void {
    // Nobody took any of it away since the charge. But chunks around pages beside it that left would need more than that.
    const tight = this.#collect(buffer, first, end, held, options) > charged || options.tight
    const { retryMayFail, storedOnly } = options
    installMissing(this.#residents, buffer, first, end, held, charged, { retryMayFail, storedOnly, tight })
  }

  /** Fills what is held, not ready, and not being filled by another. */
  async #fillHeld(
    buffer: BufferState,
    held: readonly number[],
    options: HoldOptions,
  ): Promise<Error | undefined> {
    const { chunks } = this.#residents
    let jobs: number[] | undefined
    for (const chunk of held) {
      if ((chunks.flagsOf(chunk) & notReady) !== partial || this.#willOverwrite(chunk, options)) continue
      if (jobs === undefined) jobs = [chunk]
      else jobs.push(chunk)
    }
    return jobs === undefined ? undefined : this.#fill.fill(buffer, jobs, options)
  }

  /** A chunk to wait for; 0 when all are ready, −1 when one waits for nobody but has to be filled. */
  #firstBlocked(held: readonly number[], options: HoldOptions): number {
    const { chunks } = this.#residents
    const blocked = options.write ? pageIn | pageOut : pageIn
    for (const chunk of held) {
      const flags = chunks.flagsOf(chunk)
      if ((flags & blocked) !== 0) return chunk
      if ((flags & partial) !== 0 && !this.#willOverwrite(chunk, options)) return -1
    }
    return 0
  }

  #willOverwrite(chunk: number, options: HoldOptions): boolean {
    const { overwriteFrom, overwriteEnd } = options
    if (overwriteFrom === undefined || overwriteEnd === undefined) return false
    const { chunks } = this.#residents
    return chunks.firstPageOf(chunk) >= overwriteFrom && chunks.endPageOf(chunk) <= overwriteEnd
  }

  #finish(buffer: BufferState, held: readonly number[], options: HoldOptions): void {
    const { chunks } = this.#residents
    // What was just brought in is at the warm end already; only using it again is a second use.
    if (options.ahead !== true) {
      for (const chunk of held) this.#residents.order.broughtIn(chunk)
    }
    if (buffer.deviceMapped) for (const chunk of held) this.#residents.mappings.map(buffer, chunk)
    for (const chunk of held) {
      if (chunks.has(chunk, partial)) {
        this.#residents.beginOverwrite(chunk)
        continue
      }
      if (options.write && !chunks.has(chunk, dirty)) this.#residents.markDirty(buffer, chunk)
    }
  }
}
