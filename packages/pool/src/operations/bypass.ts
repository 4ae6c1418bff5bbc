import { abortError, isSpillwayError, StagingBuffers, type TransferOptions } from '@spillway/core'
import { pace } from '../ground/pace.ts'
import { trace } from '../ground/trace.ts'
import type { BufferState } from '../residency/buffer-state.ts'
import { closedBuffer } from '../residency/closed.ts'
import { located, lost } from '../residency/failures.ts'
import type { Pins } from '../residency/pins.ts'
import type { ResidentSet } from '../residency/resident-set.ts'
import type { ByteRange, ByteVisit } from './byte-range.ts'

/**
 * Reads that take no memory of the pool, for when it is full of pages that no backup takes: what is stored has no room to come back
 * then, and would be out of reach though nothing is wrong with it.
 *
 *   in memory ─▶ from there
 *   stored ────▶ through one small buffer of the pool's own; nothing becomes resident
 *   neither ───▶ zeros
 *
 * Nothing holds a stored page meanwhile. So after each copy the page table is asked again, and what was not there all the time is
 * read once more from where it is now.
 */
export class Bypass {
  readonly #residents: ResidentSet
  readonly #pins: Pins
  readonly #pageSizeBytes: number
  readonly #staging: StagingBuffers

  constructor(residents: ResidentSet, pins: Pins, pageSizeBytes: number) {
    this.#residents = residents
    this.#pins = pins
    this.#pageSizeBytes = pageSizeBytes
    this.#staging = new StagingBuffers(1, Math.max(leastStagingBytes, pageSizeBytes))
  }

  /** Memory of its own, beside the limit: none before the first such read. */
  get heldBytes(): number {
    return this.#staging.heldBytes
  }

  /** Shows `visit` the bytes of a range in order; positions count from `range.offset`. Rejects as reads do, never for want of memory. */
  async read(
    buffer: BufferState,
    { offset, length }: ByteRange,
    visit: ByteVisit,
    options: TransferOptions,
  ): Promise<void> {
    for (let done = 0; done < length; ) {
      if (options.signal?.aborted) throw abortError(options.signal, { buffer: buffer.label })
      // Whoever frees the buffer waits for this call.
      if (buffer.closing) throw closedBuffer(buffer)
      const from = done
      const piece = { offset: offset + done, length: length - done }
      done += await this.#readPiece(buffer, piece, (bytes) => visit(bytes, from), options)
      const turn = pace()
      if (turn !== undefined) await turn
    }
  }

  /** Reads the first bytes of a range, which are at one place; resolves to how many, 0 when they are not there any more. */
  async #readPiece(
    buffer: BufferState,
    range: ByteRange,
    show: (bytes: Uint8Array) => void,
    options: TransferOptions,
  ): Promise<number> {
    const { table } = buffer
    const piece = this.#look(buffer, range)
    if (table.found === 'chunk') return this.#readResident(buffer, piece, show, options)
    const staging = await this.#staging.take(options.signal)
    try {
      return await this.#readThrough(buffer, range, { memory: staging.memory, show }, options)
    } finally {
      this.#staging.give(staging)
    }
  }

  /** Where the first bytes of a range are, and how many are there. */
  #look(buffer: BufferState, { offset, length }: ByteRange): Piece {
    const pageSizeBytes = this.#pageSizeBytes
    const page = Math.floor(offset / pageSizeBytes)
    const start = offset - page * pageSizeBytes
    const { table } = buffer
    table.look(page, page + this.#staging.bufferBytes / pageSizeBytes)
    const pages = Math.min(table.foundPages, Math.ceil((start + length) / pageSizeBytes))
    return { page, pages, start, stop: Math.min(start + length, pages * pageSizeBytes) }
  }

  /** What has a chunk needs no memory, but the chunk may be on its way in, or out. */
  async #readResident(
    buffer: BufferState,
    { page, pages, start, stop }: Piece,
    show: (bytes: Uint8Array) => void,
    { signal, retryMayFail }: TransferOptions,
  ): Promise<number> {
    const range = { first: page, end: page + pages }
    let pinned: number[]
    try {
      const options = { signal, retryMayFail, write: false, bypasses: true }
      pinned = await this.#pins.pin(buffer, range, options)
    } catch (failure) {
      if (isShortOfMemory(failure)) return 0
      throw failure
    }
    try {
      const chunk = pinned[0]!
      const { chunks } = this.#residents
      const base = (page - chunks.firstPageOf(chunk)) * this.#pageSizeBytes
      const end = Math.min(base + stop, chunks.pageCount(chunk) * this.#pageSizeBytes)
      show(this.#residents.bytes(chunk).subarray(base + start, end))
      return end - base - start
    } finally {
      this.#pins.letGo(buffer, pinned)
    }
  }

  async #readThrough(
    buffer: BufferState,
    range: ByteRange,
    { memory, show }: { readonly memory: Uint8Array; readonly show: (bytes: Uint8Array) => void },
    { signal, retryMayFail }: TransferOptions,
  ): Promise<number> {
    const piece = this.#look(buffer, range)
    const { page, pages, start } = piece
    const { store, table } = buffer
    if (table.found === 'chunk') return 0
    let { stop } = piece
    if (table.found === 'empty') {
      memory.fill(0, start, stop)
    } else {
      if (store === undefined) throw lost(buffer)
      const first = table.foundHandle
      const spans = [memory.subarray(0, pages * this.#pageSizeBytes)]
      const handles = [{ first, count: pages }]
      const { copied, error } = await store.copyPages(handles, spans, pages, { signal, retryMayFail })
      this.#note(buffer, store.name, copied, error)
      table.look(page, page + pages)
      const isThere =
        buffer.store === store &&
        table.found === 'handle' &&
        table.foundHandle === first &&
        table.foundPages === pages
      if (!isThere) return 0
      if (copied === 0 && error !== undefined) {
        throw located(error, 'restoring', { buffer: buffer.label, page, backup: store.name })
      }
      stop = Math.min(stop, copied * this.#pageSizeBytes)
    }
    show(memory.subarray(start, stop))
    return stop - start
  }

  #note(buffer: BufferState, backup: string, copied: number, error: Error | undefined): void {
    const { counters, poolName } = this.#residents
    counters.restoreCalls++
    counters.bypassedPages += copied
    if (error !== undefined) counters.restoreFailures++
    if (trace.restore.hasSubscribers) {
      trace.restore.publish({ pool: poolName, buffer: buffer.label, backup, pages: copied, error })
    }
  }
}

/** Bytes from `start` to `stop`, counted from the beginning of `page`; they lie in `pages` pages. */
interface Piece {
  readonly page: number
  readonly pages: number
  readonly start: number
  readonly stop: number
}

/**
 * Whether a claim was refused because a backup stores nothing, so that no memory could be had. A backup that had none itself says so
 * in its own name: its pages do not come by another way either.
 */
export function isShortOfMemory(failure: unknown): boolean {
  if (!isSpillwayError(failure) || failure.code !== 'ENOMEM') return false
  return failure.cause !== undefined && failure.backup === undefined
}

const leastStagingBytes = 64 * 1024
