import { HandleSet } from '../backups/handle-set.ts'
import { Reservations } from '../backups/reservations.ts'
import type {
  BackupPagesOptions,
  BackupResult,
  CopyResult,
  HandleRun,
  Reservation,
  TransferOptions,
} from '../contract.ts'
import { abortError, SpillwayError, staleHandleError, systemError } from '../errors.ts'
import { pace, sliceBytes } from '../pace.ts'
import { firstHandles } from '../runs.ts'
import { SpanCursor } from '../spans.ts'
import type { NumberedPages, PlacedPages, Stopped } from './definition.ts'

/**
 * Makes the handles of a medium that keeps pages under numbers: rising, and none used twice, so that a handle that is not in the
 * set of live ones is stale, whatever became of its page. They start at random: those of another backup are not taken for its own.
 */
export class NumberedHandles implements PlacedPages {
  readonly #backup: string
  readonly #pageSizeBytes: number
  readonly #pages: NumberedPages
  readonly #slicePages: number
  readonly #capacityPages: number
  readonly #live: HandleSet
  /** Space set aside, from the capacity or by the medium. */
  readonly #reservations: Reservations
  readonly #reservedInMedium = new WeakSet<Reservation>()
  readonly reserve?: (bytes: number) => Reservation | Promise<Reservation>
  #next: number
  #livePages = 0
  /** Pages that calls under way may still store. */
  #claimedPages = 0

  constructor(backup: string, pageSizeBytes: number, pages: NumberedPages) {
    this.#backup = backup
    this.#pageSizeBytes = pageSizeBytes
    this.#pages = pages
    this.#slicePages = pages.slicePages ?? Math.max(1, sliceBytes / pageSizeBytes)
    this.#capacityPages = Math.floor((pages.capacityBytes ?? Number.POSITIVE_INFINITY) / pageSizeBytes)
    this.#next = 1 + Math.floor(Math.random() * 2 ** 51)
    this.#live = new HandleSet(this.#next)
    this.#reservations = new Reservations(backup, pageSizeBytes, () => this.#freePages)
    if (pages.capacityBytes !== undefined) this.reserve = (bytes) => this.#reservations.reserve(bytes)
    else if (pages.reserve !== undefined) this.reserve = (bytes) => this.#reserveInMedium(bytes)
  }

  async store(
    spans: readonly Uint8Array[],
    pageCount: number,
    options: BackupPagesOptions,
  ): Promise<BackupResult> {
    const isOfMedium = this.#pages.capacityBytes === undefined
    const reservation = isOfMedium ? undefined : this.#reservations.own(options.reservation)
    const claimed = Math.min(pageCount, this.#reservations.allowance(reservation))
    const reserved = this.#reservations.consume(reservation, claimed)
    const first = this.#next
    this.#next += claimed
    this.#claimedPages += claimed
    const { pages, error } = await this.#storeSlices(first, claimed, spans, options)
    this.#claimedPages -= claimed - pages
    this.#reservations.restore(reservation, Math.max(0, reserved - pages))
    const handles = pages > 0 ? [{ first, count: pages }] : []
    if (error !== undefined) return { handles, error }
    if (pages === pageCount) return { handles }
    return { handles, error: new SpillwayError('ENOSPC', `backup ${this.#backup} is full`, this.#at(pages)) }
  }

  firstNotLive(handles: readonly HandleRun[]): number | undefined {
    for (const { first, count } of handles) {
      const missing = this.#live.firstMissing(first, count)
      if (missing !== undefined) return missing
    }
    return undefined
  }

  async copy(
    handles: readonly HandleRun[],
    spans: readonly Uint8Array[],
    options: TransferOptions,
  ): Promise<CopyResult> {
    const target = new SpanCursor(spans)
    let copied = 0
    for (const slice of slicesOf(handles, this.#slicePages)) {
      let pages = 0
      for (const { count } of slice) pages += count
      const turn = pace(Math.min(sliceBytes, pages * this.#pageSizeBytes))
      if (turn !== undefined) await turn
      if (options.signal?.aborted) return { copied, error: abortError(options.signal, this.#at(copied)) }
      const stopped = await this.#copySlice(slice, pages, target, options)
      copied += stopped?.pages ?? pages
      if (stopped !== undefined) return { copied, error: stopped.error }
    }
    return { copied }
  }

  /** Also numbers whose drop failed are live again: nobody has seen them used for something else. */
  async drop(handles: readonly HandleRun[]): Promise<number | undefined> {
    for (let index = 0; index < handles.length; index++) {
      const { first, count } = handles[index]
      const stale = this.#live.firstMissing(first, count)
      if (stale !== undefined) {
        this.#revive(handles.slice(0, index))
        return stale
      }
      this.#live.delete(first, count)
      this.#livePages -= count
    }
    try {
      await this.#pages.drop(handles)
    } catch (failure) {
      this.#revive(handles)
      throw systemError(failure, 'cannot drop pages', { backup: this.#backup })
    }
    return undefined
  }

  async bytesAvailable(): Promise<number> {
    const common = this.#reservations.commonPages * this.#pageSizeBytes
    const known = await this.#pages.bytesAvailable?.()
    return known === undefined ? common : Math.min(common, known)
  }

  isOwnReservation(reservation: Reservation): boolean {
    return this.#reservations.isOwn(reservation) || this.#reservedInMedium.has(reservation)
  }

  async #reserveInMedium(bytes: number): Promise<Reservation> {
    const reservation = await this.#pages.reserve!(bytes)
    this.#reservedInMedium.add(reservation)
    return reservation
  }

  get #freePages(): number {
    return this.#capacityPages - this.#livePages - this.#claimedPages
  }

  /** Stores `count` pages; says how many before something stopped it. */
  async #storeSlices(
    first: number,
    count: number,
    spans: readonly Uint8Array[],
    options: BackupPagesOptions,
  ): Promise<{ pages: number; error?: Error }> {
    const source = new SpanCursor(spans)
    let pages = 0
    while (pages < count) {
      const wanted = Math.min(this.#slicePages, count - pages)
      const bytes = wanted * this.#pageSizeBytes
      const turn = pace(Math.min(sliceBytes, bytes))
      if (turn !== undefined) await turn
      if (options.signal?.aborted) return { pages, error: abortError(options.signal, this.#at(pages)) }
      const stopped = await this.#attempt('store', pages, () =>
        this.#pages.store(first + pages, source.take(bytes), options),
      )
      const stored = stopped?.pages ?? wanted
      if (stored > 0) this.#live.add(first + pages, stored)
      // What was claimed is live now.
      this.#livePages += stored
      this.#claimedPages -= stored
      pages += stored
      if (stopped !== undefined) return { pages, error: stopped.error }
    }
    return { pages }
  }

  async #copySlice(
    runs: readonly HandleRun[],
    count: number,
    target: SpanCursor,
    options: TransferOptions,
  ): Promise<Stopped | undefined> {
    const gone = this.#firstGone(runs, count)
    const known = gone?.pages ?? count
    const stopped =
      known > 0
        ? await this.#attempt('read', 0, () =>
            this.#copyRuns(firstHandles(runs, known), target.take(known * this.#pageSizeBytes), options),
          )
        : undefined
    // A page that was dropped under way may have been taken from its medium before it was copied, and be what stopped it.
    const looked = stopped === undefined ? known : Math.min(known, stopped.pages + 1)
    return this.#firstGone(runs, looked) ?? stopped ?? gone
  }

  /** The first page that is not live, among the first `count` of the runs. */
  #firstGone(runs: readonly HandleRun[], count: number): Stopped | undefined {
    let pages = 0
    for (const run of runs) {
      if (pages >= count) return undefined
      const missing = this.#live.firstMissing(run.first, Math.min(run.count, count - pages))
      if (missing !== undefined) {
        return { pages: pages + missing - run.first, error: staleHandleError(this.#backup, missing) }
      }
      pages += run.count
    }
    return undefined
  }

  async #copyRuns(
    runs: readonly HandleRun[],
    spans: readonly Uint8Array[],
    options: TransferOptions,
  ): Promise<Stopped | undefined> {
    const { copy, copyRuns } = this.#pages
    if (copyRuns !== undefined) return await copyRuns.call(this.#pages, runs, spans, options)
    const target = new SpanCursor(spans)
    let pages = 0
    for (const { first, count } of runs) {
      const part = target.take(count * this.#pageSizeBytes)
      const stopped = await this.#attempt('read', pages, () => copy!.call(this.#pages, first, part, options))
      if (stopped !== undefined) return { pages: pages + stopped.pages, error: stopped.error }
      pages += count
    }
    return undefined
  }

  /** What the medium threw is what stopped it before the first page. */
  async #attempt(
    verb: 'store' | 'read',
    page: number,
    work: () => undefined | Stopped | Promise<undefined | Stopped>,
  ): Promise<Stopped | undefined> {
    try {
      return await work()
    } catch (failure) {
      return { pages: 0, error: systemError(failure, `cannot ${verb} pages`, this.#at(page)) }
    }
  }

  #at(page: number): { backup: string; page: number } {
    return { backup: this.#backup, page }
  }

  #revive(handles: readonly HandleRun[]): void {
    for (const { first, count } of handles) {
      this.#live.add(first, count)
      this.#livePages += count
    }
  }
}

/** The runs in slices of at most `most` handles; long ones are cut. */
function* slicesOf(runs: readonly HandleRun[], most: number): Generator<readonly HandleRun[]> {
  let slice: HandleRun[] = []
  let pages = 0
  for (const { first, count } of runs) {
    for (let offset = 0; offset < count; ) {
      const part = Math.min(count - offset, most - pages)
      slice.push({ first: first + offset, count: part })
      offset += part
      pages += part
      if (pages < most) continue
      yield slice
      slice = []
      pages = 0
    }
  }
  if (pages > 0) yield slice
}
