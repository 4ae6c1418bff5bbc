import { abortError, type TransferOptions } from '@spillway/core'
import { pace, sliceBytes } from '../ground/pace.ts'
import type { BufferState } from '../residency/buffer-state.ts'
import { closedBuffer } from '../residency/closed.ts'
import type { PinOptions, PinWaiter } from '../residency/miss.ts'
import type { Pins } from '../residency/pins.ts'
import { nonEmptyEnd, type PageRange, windowEnd } from '../residency/placement.ts'
import type { ResidentSet } from '../residency/resident-set.ts'
import { busy, notReady, pageIn, partial } from '../table/chunks.ts'
import { type Bypass, isShortOfMemory } from './bypass.ts'
import { type ByteRange, type ByteVisit, memoryGone, memoryOf } from './byte-range.ts'
import type { Readahead } from './readahead.ts'

/** Told once that a call is over, and what stopped it. */
export type Done = (error?: Error) => void

/** What reads and writes work with. */
export interface ReadWriteParts {
  readonly residents: ResidentSet
  readonly pins: Pins
  readonly readahead: Readahead
  readonly bypass: Bypass
  readonly pageSizeBytes: number
}

/**
 * Copies between a buffer and the caller's memory, any offset and length, any size:
 *
 *   all there, little ───────▶ tryRead, tryWrite: at once, nothing is pinned
 *   one window, little ──────▶ readThen, writeThen: one miss, and no promise
 *   anything else ───────────▶ window by window that fits under the limit, so that reading a buffer of 10 GiB needs no more
 *                              memory than reading a small one
 *   no backup stores anything, and memory is full ─▶ reads bypass it
 */
export class ReadWrite {
  readonly #residents: ResidentSet
  readonly #pins: Pins
  readonly #readahead: Readahead
  readonly #bypass: Bypass
  readonly #pageSizeBytes: number

  constructor({ residents, pins, readahead, bypass, pageSizeBytes }: ReadWriteParts) {
    this.#residents = residents
    this.#pins = pins
    this.#readahead = readahead
    this.#bypass = bypass
    this.#pageSizeBytes = pageSizeBytes
  }

  /** Copies at once when all is ready and little; says whether it did. */
  tryRead(buffer: BufferState, offset: number, into: Uint8Array): boolean {
    const length = into.byteLength
    if (length > sliceBytes || !this.#allReady(buffer, offset, length, notReady)) return false
    const { chunks, order } = this.#residents
    for (let done = 0; done < length; ) {
      const chunk = buffer.table.chunkAt(Math.floor((offset + done) / this.#pageSizeBytes))
      const start = offset + done - chunks.firstPageOf(chunk) * this.#pageSizeBytes
      const step = Math.min(length - done, (this.#pageSizeBytes << chunks.orderOf(chunk)) - start)
      order.used(chunk)
      into.set(partOf(this.#residents.bytes(chunk), start, step), done)
      done += step
    }
    return true
  }

  /** The same for a write. */
  tryWrite(buffer: BufferState, offset: number, bytes: Uint8Array): boolean {
    const length = bytes.byteLength
    if (length > sliceBytes || !this.#allReady(buffer, offset, length, busy | partial)) return false
    const { chunks } = this.#residents
    for (let done = 0; done < length; ) {
      const chunk = buffer.table.chunkAt(Math.floor((offset + done) / this.#pageSizeBytes))
      const start = offset + done - chunks.firstPageOf(chunk) * this.#pageSizeBytes
      const step = Math.min(length - done, (this.#pageSizeBytes << chunks.orderOf(chunk)) - start)
      this.#residents.written(buffer, chunk)
      this.#residents.bytes(chunk).set(partOf(bytes, done, step), start)
      done += step
    }
    return true
  }

  /** Fills `into` with the bytes from `offset` on. */
  readThen(buffer: BufferState, place: ReadPlace, options: TransferOptions, done: Done): void {
    const { offset, into } = place
    const range = this.#oneWindow(buffer, { offset, length: into.byteLength })
    if (range === undefined || nonEmptyEnd(buffer, range.first, range.end) < range.end) {
      this.#read(buffer, place, options).then(() => done(), done)
      return
    }
    const bytes = { offset, length: into.byteLength }
    const copyOut = memoryOf(into)
    const delivered = (pinned: number[] | undefined, failure: Error | undefined) => {
      if (isShortOfMemory(failure)) {
        this.#bypass.read(buffer, bytes, copyOut, options).then(() => done(), done)
        return
      }
      let error = failure
      if (pinned !== undefined) {
        error = thrownBy(() => this.#copyAtOnce(pinned, bytes, copyOut))
        this.#pins.letGo(buffer, pinned)
      }
      done(error)
    }
    this.#pins.pinThen(buffer, range, readOptions(options), { delivered })
  }

  async #read(buffer: BufferState, { offset, into }: ReadPlace, options: TransferOptions): Promise<void> {
    const total = into.byteLength
    const { table } = buffer
    const copyOut = memoryOf(into)
    for (let done = 0; done < total; ) {
      this.#assertGoing(buffer, options)
      const { limitPages } = this.#residents.limit
      const page = Math.floor((offset + done) / this.#pageSizeBytes)
      const lastPage = Math.ceil((offset + total) / this.#pageSizeBytes)
      table.look(page, lastPage)
      if (table.found === 'empty') {
        const end = Math.min(total, (page + table.foundPages) * this.#pageSizeBytes - offset)
        await clear(into, done, end)
        done = end
        continue
      }
      const endPage = nonEmptyEnd(buffer, page, Math.min(lastPage, windowEnd(buffer, page, limitPages)))
      const end = Math.min(total, endPage * this.#pageSizeBytes - offset)
      const pinned =
        this.#pins.tryPin(buffer, page, endPage, false) ??
        (await this.#pinToRead(buffer, { first: page, end: endPage }, options))
      if (pinned === undefined) {
        const from = done
        const range = { offset: offset + from, length: end - from }
        await this.#bypass.read(buffer, range, (bytes, at) => copyOut(bytes, from + at), options)
        done = end
        continue
      }
      const goesOn = endPage < lastPage && !buffer.random
      if (goesOn) {
        this.#readahead.goOn(buffer, endPage, Math.min(lastPage, windowEnd(buffer, endPage, limitPages)))
      }
      if (end - done > sliceBytes) this.#pins.keep(pinned)
      try {
        done = await this.#copySliced(pinned, { offset, from: done, end }, copyOut)
      } finally {
        this.#pins.letGo(buffer, pinned)
      }
      if (goesOn) this.#readahead.leave(buffer, page, endPage)
      // A backup that answers at once gives the event loop no turn of its own.
      const turn = done < total ? pace() : undefined
      if (turn !== undefined) await turn
    }
  }

  /** Pins a range, or resolves to undefined where the read has to bypass memory. */
  async #pinToRead(
    buffer: BufferState,
    range: PageRange,
    options: TransferOptions,
  ): Promise<number[] | undefined> {
    try {
      return await this.#pins.pin(buffer, range, readOptions(options))
    } catch (failure) {
      if (isShortOfMemory(failure)) return undefined
      throw failure
    }
  }

  /** Writes the bytes of a range, which `source` puts into place piece by piece. */
  writeThen(buffer: BufferState, range: ByteRange, { source, ...options }: WriteOptions, done: Done): void {
    const window = this.#oneWindow(buffer, range)
    if (window === undefined) {
      this.#write(buffer, range, source, options).then(() => done(), done)
      return
    }
    const delivered = (pinned: number[] | undefined, failure: Error | undefined) => {
      let error = failure
      if (pinned !== undefined) {
        error = thrownBy(() => this.#copyAtOnce(pinned, range, source, this.#overwritten(buffer)))
        this.#letGoWritten(buffer, pinned)
      }
      done(error)
    }
    this.#pins.pinThen(buffer, window, this.#writePinOptions(buffer, range, options), { delivered })
  }

  async #write(
    buffer: BufferState,
    range: ByteRange,
    source: ByteVisit,
    options: TransferOptions,
  ): Promise<void> {
    const pageSizeBytes = this.#pageSizeBytes
    const { offset, length: total } = range
    const pinForWrite = this.#writePinOptions(buffer, range, options)
    const overwritten = this.#overwritten(buffer)
    for (let done = 0; done < total; ) {
      this.#assertGoing(buffer, options)
      const page = Math.floor((offset + done) / pageSizeBytes)
      const lastPage = Math.ceil((offset + total) / pageSizeBytes)
      const endPage = Math.min(lastPage, windowEnd(buffer, page, this.#residents.limit.limitPages))
      const pinned =
        this.#pins.tryPin(buffer, page, endPage, true) ??
        (await this.#pins.pin(buffer, { first: page, end: endPage }, pinForWrite))
      if (total - done > sliceBytes) this.#pins.keepWriting(pinned)
      try {
        done = await this.#copySliced(pinned, { offset, from: done, end: total }, source, overwritten)
      } finally {
        this.#letGoWritten(buffer, pinned)
      }
      const turn = done < total ? pace() : undefined
      if (turn !== undefined) await turn
    }
  }

  /**
   * Pins a range however long it is. One of more chunks than can be dealt with in one go is brought in window by window
   * before, and not pinned meanwhile: then little is left to do, and the claim for all of it comes when most is there.
   */
  pinThen(buffer: BufferState, range: PageRange, options: PinOptions, waiter: PinWaiter): void {
    const { first, end } = range
    const { limitPages } = this.#residents.limit
    const isLong =
      end - first > chunksPerPin * buffer.table.blockPages && windowEnd(buffer, first, limitPages) < end
    if (!isLong || end - first > limitPages) {
      this.#pins.pinThen(buffer, range, options, waiter)
      return
    }
    this.#bringIn(buffer, range, options).then(
      () => this.#pins.pinThen(buffer, range, options, waiter),
      (error) => waiter.delivered(undefined, error),
    )
  }

  async #bringIn(buffer: BufferState, { first, end }: PageRange, options: TransferOptions): Promise<void> {
    const ahead = { ...pinOptions(options, false), ahead: true }
    for (let page = first; page < end; ) {
      const endPage = Math.min(end, windowEnd(buffer, page, this.#residents.limit.limitPages))
      this.#pins.letGo(buffer, await this.#pins.pin(buffer, { first: page, end: endPage }, ahead))
      page = endPage
      const turn = pace()
      if (turn !== undefined) await turn
    }
  }

  #assertGoing(buffer: BufferState, options: TransferOptions): void {
    if (options.signal?.aborted) throw abortError(options.signal, { buffer: buffer.label })
    if (buffer.closing) throw closedBuffer(buffer)
  }

  /** The pages of a range that can be copied in one go; undefined when it is longer, or empty. */
  #oneWindow(buffer: BufferState, { offset, length }: ByteRange): PageRange | undefined {
    if (length === 0 || length > sliceBytes) return undefined
    const first = Math.floor(offset / this.#pageSizeBytes)
    const end = Math.ceil((offset + length) / this.#pageSizeBytes)
    return windowEnd(buffer, first, this.#residents.limit.limitPages) < end ? undefined : { first, end }
  }

  #allReady(buffer: BufferState, offset: number, length: number, blocked: number): boolean {
    const { chunks } = this.#residents
    const end = Math.ceil((offset + length) / this.#pageSizeBytes)
    for (let page = Math.floor(offset / this.#pageSizeBytes); page < end; ) {
      const chunk = buffer.table.chunkAt(page)
      if (chunk === 0 || chunks.has(chunk, blocked)) return false
      page = chunks.endPageOf(chunk)
    }
    return true
  }

  #writePinOptions(buffer: BufferState, { offset, length }: ByteRange, options: TransferOptions): PinOptions {
    const endBytes = offset + length
    return {
      ...pinOptions(options, true),
      overwriteFrom: Math.ceil(offset / this.#pageSizeBytes),
      // Nobody sees what follows the buffer's last byte, so its last page counts as overwritten whole: unless it grows, for then
      // an append may be writing there.
      overwriteEnd:
        endBytes === buffer.sizeBytes && buffer.growth === undefined
          ? buffer.table.pageCount
          : Math.floor(endBytes / this.#pageSizeBytes),
    }
  }

  /** Told of each chunk that a write is through with, and where in it the write ends. */
  #overwritten(buffer: BufferState): ChunkPassed {
    return (chunk, bytes, endInChunk) => {
      if (!this.#residents.chunks.has(chunk, pageIn)) return
      bytes.fill(0, endInChunk)
      this.#residents.overwritten(buffer, chunk)
    }
  }

  /** Lets go of chunks after a write, which may have failed half way. */
  #letGoWritten(buffer: BufferState, pinned: number[]): void {
    for (const chunk of pinned) {
      if (this.#residents.chunks.has(chunk, pageIn)) this.#residents.overwriteFailed(chunk)
    }
    this.#pins.letGo(buffer, pinned)
  }

  /** Shows `visit` the bytes of a range, chunk by chunk; then tells `passed` of each chunk. */
  #copyAtOnce(
    pinned: readonly number[],
    { offset, length }: ByteRange,
    visit: ByteVisit,
    passed?: ChunkPassed,
  ): void {
    let done = 0
    for (const chunk of pinned) {
      const bytes = this.#residents.bytes(chunk)
      const base = this.#residents.chunks.firstPageOf(chunk) * this.#pageSizeBytes - offset
      const stop = Math.min(length, base + bytes.byteLength)
      visit(partOf(bytes, done - base, stop - done), done)
      done = stop
      passed?.(chunk, bytes, stop - base)
    }
  }

  /**
   * Shows `visit` the bytes from `from` to `end` of an access at `offset`, as far as the pinned chunks have them, slice by
   * slice with turns between; then tells `passed` of each chunk. Resolves to where it came to.
   */
  async #copySliced(
    pinned: readonly number[],
    { offset, from, end }: { readonly offset: number; readonly from: number; readonly end: number },
    visit: ByteVisit,
    passed?: ChunkPassed,
  ): Promise<number> {
    let done = from
    let sinceTurn = 0
    for (const chunk of pinned) {
      const bytes = this.#residents.bytes(chunk)
      const base = this.#residents.chunks.firstPageOf(chunk) * this.#pageSizeBytes - offset
      const stop = Math.min(end, base + bytes.byteLength)
      while (done < stop) {
        const step = Math.min(sliceBytes - sinceTurn, stop - done)
        visit(partOf(bytes, done - base, step), done)
        done += step
        sinceTurn += step
        if (sinceTurn < sliceBytes) continue
        sinceTurn = 0
        const turn = pace()
        if (turn !== undefined) await turn
      }
      passed?.(chunk, bytes, stop - base)
    }
    return done
  }
}

/** Where a read puts the bytes from `offset` on. */
export interface ReadPlace {
  readonly offset: number
  readonly into: Uint8Array
}

export interface WriteOptions extends TransferOptions {
  readonly source: ByteVisit
}

type ChunkPassed = (chunk: number, bytes: Uint8Array, endInChunk: number) => void

/** A range of more chunks is brought in window by window before it is pinned. */
const chunksPerPin = 32

function partOf(bytes: Uint8Array, start: number, length: number): Uint8Array {
  return length === bytes.byteLength ? bytes : bytes.subarray(start, start + length)
}

function pinOptions({ signal, retryMayFail }: TransferOptions, write: boolean): PinOptions {
  return { signal, retryMayFail, write }
}

function readOptions({ signal, retryMayFail }: TransferOptions): PinOptions {
  return { signal, retryMayFail, write: false, bypasses: true }
}

async function clear(into: Uint8Array, from: number, to: number): Promise<void> {
  for (let done = from; done < to; done += sliceBytes) {
    if (into.byteLength < to) throw memoryGone('the memory to read into was', 'read')
    into.fill(0, done, Math.min(done + sliceBytes, to))
    const turn = to - done > sliceBytes ? pace() : undefined
    if (turn !== undefined) await turn
  }
}

function thrownBy(work: () => void): Error | undefined {
  try {
    work()
    return undefined
  } catch (failure) {
    return failure as Error
  }
}
