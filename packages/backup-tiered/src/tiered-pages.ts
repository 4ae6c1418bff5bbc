import {
  type BackupPagesOptions,
  type CopyDone,
  type HandleRun,
  innerError,
  isFullError,
  type KeptRun,
  pace,
  type Reservation,
  SpanCursor,
  SpillwayError,
  type Stopped,
  smallCallBytes,
  systemError,
  type TransferOptions,
} from '@spillway/core'
import type { Mover } from './mover.ts'
import { SplitReservation } from './split-reservation.ts'
import { isOfCaller, type Tier } from './tier.ts'

export interface TieredPagesParts {
  readonly name: string
  readonly pageSizeBytes: number
  readonly tiers: readonly Tier[]
  readonly mover: Mover
}

/** Pages of one call that are in one tier. */
interface TierRead {
  readonly tier: Tier
  readonly runs: HandleRun[]
  readonly spans: Uint8Array[]
  /** Their places in the call. */
  readonly places: HandleRun[]
}

const pagesBetweenTurns = 512

/** Pages that one call stores. */
interface Batch {
  readonly first: number
  readonly count: number
  readonly spans: readonly Uint8Array[]
  readonly options: BackupPagesOptions
}

/** Stores pages in the first tier that takes them, and finds them where they are now. */
export class TieredPages {
  readonly #parts: TieredPagesParts

  constructor(parts: TieredPagesParts) {
    this.#parts = parts
  }

  async store(
    first: number,
    spans: readonly Uint8Array[],
    options: BackupPagesOptions,
  ): Promise<Stopped | undefined> {
    const { pageSizeBytes, mover } = this.#parts
    const count = spans.reduce((bytes, span) => bytes + span.byteLength, 0) / pageSizeBytes
    const { endedMoves } = mover
    const batch = { first, count, spans, options }
    let stopped = await this.#storeFrom(0, batch)
    if (stopped !== undefined && isFullError(stopped.error)) {
      // Pages on their way between tiers take the room of two.
      if (mover.holdsCopies || mover.endedMoves !== endedMoves) {
        stopped = await this.#storeBetweenMoves(stopped, batch)
      }
    }
    mover.wake(count)
    return stopped
  }

  async #storeBetweenMoves(stopped: Stopped, batch: Batch): Promise<Stopped | undefined> {
    const { signal } = batch.options
    try {
      return await this.#parts.mover.between(() => this.#storeFrom(stopped.pages, batch), signal)
    } catch (error) {
      return { pages: stopped.pages, error: error as Error }
    }
  }

  /** Stores the pages from the `done`th on. What it tells counts from the first. */
  async #storeFrom(done: number, batch: Batch): Promise<Stopped | undefined> {
    const { reservation } = batch.options
    const parts = reservation instanceof SplitReservation ? reservation.parts : new Map<Tier, Reservation>()
    let pages = done
    let error: Error | undefined
    for (const tier of this.#inOrder(parts)) {
      const outcome = await this.#storeIn(tier, batch, pages, parts.get(tier))
      if (outcome.pages > 0) tier.arrived({ first: batch.first + pages, count: outcome.pages })
      pages += outcome.pages
      if (outcome.error === undefined) return undefined
      // That a tier is broken says more than that another is full.
      if (error === undefined || isFullError(error)) error = outcome.error
      if (isOfCaller(outcome.error)) return { pages, error: outcome.error }
    }
    return { pages, error: error! }
  }

  async copyRuns(
    runs: readonly HandleRun[],
    spans: readonly Uint8Array[],
    options: TransferOptions,
  ): Promise<Stopped | undefined> {
    const { byTier, missing } = this.#sort(runs, new SpanCursor(spans))
    const failures = await Promise.all(byTier.map((read) => this.#copyFrom(read, options)))
    let first = missing
    for (const failure of failures) {
      if (failure !== undefined && (first === undefined || failure.pages < first.pages)) first = failure
    }
    if (first === undefined) return undefined
    return {
      pages: first.pages,
      error: innerError(first.error, { backup: this.#parts.name, page: first.pages }),
    }
  }

  startCopy(first: number, span: Uint8Array, done: CopyDone): boolean {
    const { mover } = this.#parts
    const tier = this.#tierOf(first)
    if (tier === undefined) return false
    const epoch = tier.reads.enter()
    const began = tier.pages.startCopy(first, span, (copied, error) => {
      tier.reads.leave(epoch)
      readFrom(tier, copied, error)
      mover.wasRead(tier, [{ first, count: copied }])
      done(copied, error)
    })
    if (!began) tier.reads.leave(epoch)
    return began
  }

  /**
   * Releases the pages in every tier. Rejects, and has released none, when the first tier that is asked refuses; what others refuse is tried
   * again later. Nothing can name the pages from the beginning on, so that a move that is under way finds them gone.
   */
  async drop(handles: readonly HandleRun[]): Promise<void> {
    const { mover, tiers, name } = this.#parts
    const released = new Map<Tier, KeptRun[]>(tiers.map((tier) => [tier, []]))
    for (const { first, count } of handles) {
      for (let done = 0; done < count; done += pagesBetweenTurns) {
        const turn = pace(smallCallBytes)
        if (turn !== undefined) await turn
        const run = { first: first + done, count: Math.min(pagesBetweenTurns, count - done) }
        for (const [tier, list] of released) for (const part of tier.release(run)) list.push(part)
      }
    }
    const [asked, ...others] = [...released].filter(([, list]) => list.length > 0)
    if (asked === undefined) return
    try {
      await asked[0].backup.drop(handlesOf(asked[1]))
    } catch (failure) {
      for (const [tier, list] of released) tier.takeBack(list)
      throw innerError(failure as Error, { backup: name })
    }
    await Promise.all(others.map(([tier, list]) => tier.discard(handlesOf(list))))
    mover.wake(0)
  }

  /** In all tiers that say, and store; rejects only where none does. */
  async bytesAvailable(): Promise<number> {
    const { tiers } = this.#parts
    const healthy = tiers.filter((tier) => !tier.isPassedBy)
    const asked = healthy.length > 0 ? healthy : tiers
    const answers = await Promise.allSettled(asked.map(({ backup }) => backup.bytesAvailable()))
    const known = answers.filter((answer) => answer.status === 'fulfilled')
    if (known.length === 0) throw (answers[0] as PromiseRejectedResult).reason
    return known.reduce((sum, { value }) => sum + value, 0)
  }

  /** In one tier where one has the room, else in several. */
  async reserve(bytes: number): Promise<Reservation> {
    const { mover, name } = this.#parts
    const { endedMoves } = mover
    let reservation = await this.#reserveNow(bytes)
    if (reservation === undefined && (mover.holdsCopies || mover.endedMoves !== endedMoves)) {
      reservation = await mover.between(() => this.#reserveNow(bytes))
    }
    if (reservation !== undefined) return reservation
    throw new SpillwayError('ENOSPC', `cannot reserve ${bytes} bytes in the tiers`, { backup: name })
  }

  async #reserveNow(bytes: number): Promise<Reservation | undefined> {
    const { tiers, pageSizeBytes } = this.#parts
    const able = tiers.filter(({ backup }) => backup.capabilities.reserves)
    for (const tier of able) {
      const reservation = await reservedIn(tier, bytes)
      if (reservation !== undefined) return new SplitReservation(new Map([[tier, reservation]]))
    }
    const parts = new Map<Tier, Reservation>()
    let left = bytes
    for (const tier of able) {
      const roomBytes = Math.floor((await tier.roomBytes()) / pageSizeBytes) * pageSizeBytes
      if (roomBytes === 0) continue
      const part = await reservedIn(tier, Math.min(left, roomBytes))
      if (part === undefined) continue
      parts.set(tier, part)
      left -= part.bytes
      if (left <= 0) return new SplitReservation(parts)
    }
    await new SplitReservation(parts).release()
    return undefined
  }

  /** Tiers with reserved space first; those that failed lately only after all others. */
  #inOrder(parts: ReadonlyMap<Tier, Reservation>): Tier[] {
    const { tiers } = this.#parts
    const reserved = [...parts].filter(([, { bytes }]) => bytes > 0).map(([tier]) => tier)
    const others = tiers.filter((tier) => !reserved.includes(tier))
    return [
      ...reserved,
      ...others.filter((tier) => !tier.isPassedBy),
      ...others.filter((tier) => tier.isPassedBy),
    ]
  }

  #tierOf(page: number): Tier | undefined {
    for (const tier of this.#parts.tiers) if (tier.pages.has(page)) return tier
    return undefined
  }

  /** Stores `count` pages of the spans, from the `skipped`th on, as `first`, `first + 1`, … of a tier. */
  /** Stores in one tier what follows the `done` pages of a batch. */
  async #storeIn(
    tier: Tier,
    batch: Batch,
    done: number,
    reservation: Reservation | undefined,
  ): Promise<{ pages: number; error?: Error }> {
    const { pageSizeBytes } = this.#parts
    try {
      const source = new SpanCursor(batch.spans)
      source.take(done * pageSizeBytes)
      const spans = source.take((batch.count - done) * pageSizeBytes)
      const outcome = await tier.pages.store(batch.first + done, spans, { ...batch.options, reservation })
      if (outcome.error === undefined) tier.worked()
      else tier.failed(outcome.error)
      return outcome
    } catch (failure) {
      tier.failed(failure)
      return { pages: 0, error: systemError(failure, 'cannot store pages') }
    }
  }

  #sort(
    runs: readonly HandleRun[],
    target: SpanCursor,
  ): { byTier: TierRead[]; missing: Stopped | undefined } {
    const { pageSizeBytes, name } = this.#parts
    const byTier: TierRead[] = []
    let missing: Stopped | undefined
    let place = 0
    for (const { first, count } of runs) {
      for (let done = 0; done < count; ) {
        const page = first + done
        const tier = this.#tierOf(page)
        const length = tier === undefined ? 1 : tier.pages.lengthFrom(page, count - done)
        const spans = target.take(length * pageSizeBytes)
        if (tier === undefined) {
          const at = { backup: name, page: place, handle: page }
          missing ??= { pages: place, error: new SpillwayError('EIO', 'a page is in no tier', at) }
        } else {
          const read = readOf(byTier, tier)
          read.runs.push({ first: page, count: length })
          read.places.push({ first: place, count: length })
          for (const span of spans) append(read.spans, span)
        }
        done += length
        place += length
      }
    }
    return { byTier, missing }
  }

  async #copyFrom(
    { tier, runs, spans, places }: TierRead,
    options: TransferOptions,
  ): Promise<Stopped | undefined> {
    const epoch = tier.reads.enter()
    try {
      const stopped = await tier.pages.copy(runs, spans, options)
      const copied = stopped?.pages ?? places.reduce((pages, { count }) => pages + count, 0)
      readFrom(tier, copied, stopped?.error)
      this.#parts.mover.wasRead(tier, runs)
      return stopped && { pages: nth(places, copied), error: stopped.error }
    } finally {
      tier.reads.leave(epoch)
    }
  }
}

function readFrom(tier: Tier, pages: number, error: Error | undefined): void {
  tier.hits += pages
  if (error !== undefined && !isOfCaller(error)) tier.errors++
}

function readOf(byTier: TierRead[], tier: Tier): TierRead {
  const known = byTier.find((read) => read.tier === tier)
  if (known !== undefined) return known
  const read = { tier, runs: [], spans: [], places: [] }
  byTier.push(read)
  return read
}

/** `undefined` where this tier has not got the room, or cannot promise it. */
async function reservedIn(tier: Tier, bytes: number): Promise<Reservation | undefined> {
  try {
    return await tier.backup.reserve(bytes)
  } catch {
    return undefined
  }
}

function handlesOf(runs: readonly KeptRun[]): HandleRun[] {
  return runs.map(({ handle, count }) => ({ first: handle, count }))
}

function nth(runs: readonly HandleRun[], index: number): number {
  let before = 0
  for (const { first, count } of runs) {
    if (index < before + count) return first + index - before
    before += count
  }
  throw new RangeError(`there are ${before} pages; asked for number ${index}`)
}

/** Adds memory to spans, to the last of them where that ends at it. */
function append(spans: Uint8Array[], span: Uint8Array): void {
  const last = spans.at(-1)
  const goesOn = last?.buffer === span.buffer && last.byteOffset + last.byteLength === span.byteOffset
  if (last === undefined || !goesOn) spans.push(span)
  else {
    spans[spans.length - 1] = new Uint8Array(last.buffer, last.byteOffset, last.byteLength + span.byteLength)
  }
}
