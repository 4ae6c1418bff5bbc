import { pace } from '../ground/pace.ts'
import { Accesses, type BufferState } from '../residency/buffer-state.ts'
import type { Pins } from '../residency/pins.ts'
import { nonEmptyEnd, windowEnd } from '../residency/placement.ts'
import type { Reclaim } from '../residency/reclaim.ts'
import type { ResidentSet } from '../residency/resident-set.ts'
import { ReadStreams } from './read-streams.ts'

/**
 * Restores what a sequential reader will want next, while it still uses what it has.
 *
 * It never waits for memory, because a claim in the queue would hold up claims that somebody needs: it takes what is free
 * or can be taken from clean chunks, and else does nothing.
 *
 *   left by a reader      where readers are      read ahead, all readers together
 *   ──────────────────▶   ────────────────▶      ────────────────────────────────
 *   the first to go       one block each         a quarter of the limit at most, less with many readers
 */
export class Readahead {
  readonly #residents: ResidentSet
  readonly #pins: Pins
  readonly #reclaim: Reclaim
  readonly #pageSizeBytes: number
  readonly #streams = new ReadStreams()
  readonly #running = new Set<Promise<void>>()

  constructor(residents: ResidentSet, pins: Pins, reclaim: Reclaim, pageSizeBytes: number) {
    this.#residents = residents
    this.#pins = pins
    this.#reclaim = reclaim
    this.#pageSizeBytes = pageSizeBytes
  }

  /** Notes an access; the second that begins where the last one ended makes the reader sequential. */
  note(buffer: BufferState, offsetBytes: number, length: number): void {
    // Nothing of a buffer of one block is left behind, or read ahead.
    if (buffer.table.pageCount <= buffer.table.blockPages) return
    buffer.accesses ??= new Accesses()
    const { accesses } = buffer
    const goesOn = offsetBytes === accesses.nextOffset
    const from = accesses.beforeLastOffset
    accesses.nextOffset = offsetBytes + length
    accesses.beforeLastOffset = accesses.lastOffset
    accesses.lastOffset = offsetBytes
    if (!goesOn && !buffer.sequential) {
      if (accesses.streak > 0) this.#streams.end(accesses)
      accesses.streak = 0
      return
    }
    // From the first access on, or the first of many readers would take what the others are about to need.
    this.#streams.note(accesses)
    if (++accesses.streak < streakLength && !buffer.sequential) return
    if (goesOn && from <= offsetBytes) this.#leaveBlocks(buffer, from, offsetBytes)
    if (buffer.random || buffer.readahead || buffer.table.storedPages === 0) return
    const page = Math.ceil(accesses.nextOffset / this.#pageSizeBytes)
    if (page >= buffer.table.pageCount) return
    // Stay at most one window ahead: begin when the reader enters the last block that is there.
    const next = buffer.table.blockEnd(Math.max(0, page - 1))
    if (next >= buffer.table.pageCount) return
    buffer.table.look(next, next + 1)
    if (buffer.table.found === 'handle') this.#startCapped(buffer, next, this.#windowEnd(buffer, next))
  }

  /** The buffer is read no more. */
  end(buffer: BufferState): void {
    if (buffer.accesses !== undefined) this.#streams.end(buffer.accesses)
  }

  /** What a long read comes to next. */
  goOn(buffer: BufferState, from: number, to: number): void {
    if (!buffer.random) this.#startCapped(buffer, from, to)
  }

  /** A reader has gone past these pages. */
  leave(buffer: BufferState, first: number, end: number): void {
    const { chunks } = this.#residents
    const { table } = buffer
    for (let page = first; page < end; page += table.foundPages) {
      table.look(page, end)
      if (table.found !== 'chunk') continue
      const chunk = table.foundChunk
      if (chunks.endPageOf(chunk) <= end) this.#residents.order.passed(chunk)
    }
  }

  /** Resolves when all that is being read ahead now is in memory, or given up. */
  async settled(): Promise<void> {
    await Promise.all(this.#running)
  }

  /** Restores a range that the application says it will need, up to half of the limit, window by window. */
  willNeed(buffer: BufferState, from: number, to: number): void {
    if (buffer.readahead || buffer.closing) return
    this.#run(buffer, this.#restoreWindows(buffer, from, to))
  }

  async #restoreWindows(buffer: BufferState, from: number, to: number): Promise<void> {
    let left = Math.floor(this.#residents.limit.limitPages / 2)
    for (let page = from; page < to && left > 0 && !buffer.closing; ) {
      const most = Math.min(to, windowEnd(buffer, page, this.#residents.limit.limitPages))
      const first = this.#firstStored(buffer, page, most)
      const end = nonEmptyEnd(buffer, first, Math.min(most, first + left))
      // Behind the empty page that ended it, if one did.
      page = end < most ? end + 1 : end
      if (first < end) {
        const pinning = this.#pin(buffer, first, end, false)
        if (pinning === undefined) return
        this.#pins.letGo(buffer, await pinning)
        left -= end - first
      }
      const turn = pace()
      if (turn !== undefined) await turn
    }
  }

  #leaveBlocks(buffer: BufferState, fromBytes: number, toBytes: number): void {
    const blockBytes = buffer.table.blockPages * this.#pageSizeBytes
    const to = Math.floor(toBytes / blockBytes)
    // What lies further back than the limit has left by itself.
    const mostBlocks = Math.ceil(this.#residents.limit.limitPages / buffer.table.blockPages)
    const from = Math.max(Math.floor(fromBytes / blockBytes), to - mostBlocks)
    if (from < to) this.leave(buffer, from * buffer.table.blockPages, to * buffer.table.blockPages)
  }

  /** The share of one reader in what may be read ahead, in whole blocks; then as far as all readers together may go. */
  #startCapped(buffer: BufferState, from: number, to: number): void {
    const { limit, chunks } = this.#residents
    const { blockPages } = buffer.table
    const readers = Math.max(1, this.#streams.count)
    // Each reader keeps a block to read in; half of what is left then may lie ahead of them, never more than a quarter.
    const most = Math.min(limit.limitPages / 4, (limit.limitPages - readers * blockPages) / 2)
    const share = Math.max(1, Math.floor(most / readers / blockPages)) * blockPages
    const room = Math.floor((most - chunks.aheadPages) / blockPages) * blockPages
    this.#start(buffer, from, to, Math.min(share, room))
  }

  /** Restores a range in the background if memory can be had at once; at most one such call for each buffer. */
  #start(buffer: BufferState, from: number, to: number, most: number): void {
    if (buffer.readahead || buffer.closing || most <= 0) return
    const first = this.#firstStored(buffer, from, to)
    const end = nonEmptyEnd(buffer, first, Math.min(to, first + most))
    if (first >= end) return
    const pinning = this.#pin(buffer, first, end, true)
    if (pinning === undefined) return
    this.#run(
      buffer,
      pinning.then((pinned) => this.#pins.letGo(buffer, pinned)),
    )
  }

  /** Pins a range if memory can be had at once. */
  #pin(buffer: BufferState, first: number, end: number, marked: boolean): Promise<number[]> | undefined {
    const room = (pages: number) => this.#reclaim.freeAtOnce(pages - this.#residents.limit.availablePages) > 0
    return this.#pins.pinAhead(buffer, { first, end }, { room, marked })
  }

  /** The buffer's one readahead, which it waits for when it is freed. */
  #run(buffer: BufferState, work: Promise<void>): void {
    buffer.readahead = true
    buffer.operations++
    this.#residents.counters.readaheads++
    const running = work
      // Nobody asked for it, so nobody is told; the access that needs the pages will meet the failure itself.
      .catch(() => {})
      .then(() => {
        this.#running.delete(running)
        buffer.readahead = false
        buffer.endOperation()
      })
    this.#running.add(running)
  }

  #firstStored(buffer: BufferState, from: number, to: number): number {
    const { table } = buffer
    for (let page = from; page < to; page += table.foundPages) {
      table.look(page, to)
      if (table.found === 'handle') return page
    }
    return to
  }

  #windowEnd(buffer: BufferState, page: number): number {
    const { table } = buffer
    const most = Math.floor(this.#residents.limit.limitPages / 8)
    const blocks = Math.max(1, Math.floor(most / table.blockPages))
    return Math.min(
      windowEnd(buffer, page, this.#residents.limit.limitPages),
      page + blocks * table.blockPages,
      table.pageCount,
    )
  }
}

const streakLength = 2
