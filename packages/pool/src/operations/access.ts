import type { TransferOptions } from '@spillway/core'
import { abortError } from '@spillway/core'
import { pace, sliceBytes } from '../ground/pace.ts'
import type { BufferState } from '../residency/buffer-state.ts'
import { closedBuffer } from '../residency/closed.ts'
import type { Holder, HoldOptions } from '../residency/hold.ts'
import { nonEmptyEnd, windowEnd } from '../residency/placement.ts'
import type { ResidentSet } from '../residency/resident-set.ts'
import { notReady, pageIn } from '../table/chunks.ts'
import type { Readahead } from './readahead.ts'

/**
 * Puts the bytes from `position` on into `target`, all of it, or takes them out of it; called in order, from 0 to the end.
 */
export type ByteSource = (target: Uint8Array, position: number) => void

/** The bytes of the caller, which may be detached or resized while the write waits: then nothing passes for written. */
export function bytesOf(bytes: Uint8Array): ByteSource {
  const total = bytes.byteLength
  return (target, position) => {
    if (bytes.byteLength !== total) {
      throw new TypeError('the bytes to write were detached or resized during the write')
    }
    target.set(target.byteLength === total ? bytes : bytes.subarray(position, position + target.byteLength))
  }
}

/**
 * Copies between a buffer and the caller's memory, any offset and length, any size: range by range through windows that
 * fit under the limit, so that reading a buffer of 10 GiB needs no more memory than reading a small one.
 */
export class Access {
  readonly #residents: ResidentSet
  readonly #holder: Holder
  readonly #pageSizeBytes: number
  readonly #readahead: Readahead

  constructor(residents: ResidentSet, holder: Holder, readahead: Readahead, pageSizeBytes: number) {
    this.#residents = residents
    this.#holder = holder
    this.#readahead = readahead
    this.#pageSizeBytes = pageSizeBytes
  }

  /** Copies at once when all is ready and little; says whether it did. */
  tryRead(buffer: BufferState, offsetBytes: number, into: Uint8Array): boolean {
    if (into.byteLength > sliceBytes || !this.#allReady(buffer, offsetBytes, into.byteLength, notReady))
      return false
    this.#eachPart(buffer, offsetBytes, into.byteLength, (chunk, start, done, length) => {
      this.#residents.order.used(chunk)
      into.set(partOf(this.#residents.bytes(chunk), start, length), done)
    })
    return true
  }

  async read(
    buffer: BufferState,
    offsetBytes: number,
    into: Uint8Array,
    options: TransferOptions,
  ): Promise<void> {
    const total = into.byteLength
    const { table } = buffer
    const copyOut: ByteSource = (bytes, position) => into.set(bytes, position)
    for (let done = 0; done < total; ) {
      this.#assertGoing(buffer, options)
      const { limitPages } = this.#residents.limit
      const page = Math.floor((offsetBytes + done) / this.#pageSizeBytes)
      const lastPage = Math.ceil((offsetBytes + total) / this.#pageSizeBytes)
      table.look(page, lastPage)
      if (table.found === 'empty') {
        const end = Math.min(total, (page + table.foundPages) * this.#pageSizeBytes - offsetBytes)
        await this.#clear(into, done, end)
        done = end
        continue
      }
      const endPage = nonEmptyEnd(buffer, page, Math.min(lastPage, windowEnd(buffer, page, limitPages)))
      const end = Math.min(total, endPage * this.#pageSizeBytes - offsetBytes)
      const held =
        this.#holder.tryHold(buffer, page, endPage, false) ??
        (await this.#holder.hold(buffer, page, endPage, holdOptions(options, false)))
      const goesOn = endPage < lastPage && !buffer.random
      if (goesOn) {
        this.#readahead.goOn(buffer, endPage, Math.min(lastPage, windowEnd(buffer, endPage, limitPages)))
      }
      if (end - done > sliceBytes) this.#holder.holdOn(held)
      try {
        done = await this.#eachSlice(held, offsetBytes, done, end, copyOut)
      } finally {
        this.#holder.letGo(buffer, held)
      }
      if (goesOn) this.#readahead.leave(buffer, page, endPage)
      // A backup that answers at once gives the event loop no turn of its own.
      const turn = done < total ? pace() : undefined
      if (turn !== undefined) await turn
    }
  }

  /** Writes `total` bytes, which `source` puts into place piece by piece. */
  async write(
    buffer: BufferState,
    offsetBytes: number,
    total: number,
    source: ByteSource,
    options: TransferOptions,
  ): Promise<void> {
    const pageSizeBytes = this.#pageSizeBytes
    const endBytes = offsetBytes + total
    const { pageCount } = buffer.table
    const overwriteFrom = Math.ceil(offsetBytes / pageSizeBytes)
    // Nobody sees what follows the buffer's last byte, so its last page counts as overwritten whole.
    const overwriteEnd = endBytes === buffer.sizeBytes ? pageCount : Math.floor(endBytes / pageSizeBytes)
    const written = (chunk: number, bytes: Uint8Array, endInChunk: number) => {
      if (!this.#residents.chunks.has(chunk, pageIn)) return
      bytes.fill(0, endInChunk)
      this.#residents.overwritten(buffer, chunk)
    }
    for (let done = 0; done < total; ) {
      this.#assertGoing(buffer, options)
      const page = Math.floor((offsetBytes + done) / pageSizeBytes)
      const windowsEnd = windowEnd(buffer, page, this.#residents.limit.limitPages)
      const endPage = Math.min(Math.ceil(endBytes / pageSizeBytes), windowsEnd)
      const held =
        this.#holder.tryHold(buffer, page, endPage, true) ??
        (await this.#holder.hold(buffer, page, endPage, {
          ...holdOptions(options, true),
          overwriteFrom,
          overwriteEnd,
        }))
      if (total - done > sliceBytes) this.#holder.holdOn(held)
      try {
        done = await this.#eachSlice(held, offsetBytes, done, total, source, written)
      } finally {
        for (const chunk of held) {
          if (this.#residents.chunks.has(chunk, pageIn)) this.#residents.overwriteFailed(chunk)
        }
        this.#holder.letGo(buffer, held)
      }
      const turn = done < total ? pace() : undefined
      if (turn !== undefined) await turn
    }
  }

  /**
   * Holds a range however long it is. One of more chunks than can be dealt with in one go is brought in window by window
   * before, and not held meanwhile: then little is left to do, and the claim for all of it comes when most is there.
   */
  async hold(buffer: BufferState, first: number, end: number, options: HoldOptions): Promise<number[]> {
    const { limitPages } = this.#residents.limit
    const isLong =
      end - first > chunksPerHold * buffer.table.blockPages && windowEnd(buffer, first, limitPages) < end
    if (isLong && end - first <= limitPages) {
      const ahead = { ...holdOptions(options, false), ahead: true }
      for (let page = first; page < end; ) {
        const endPage = Math.min(end, windowEnd(buffer, page, this.#residents.limit.limitPages))
        this.#holder.letGo(buffer, await this.#holder.hold(buffer, page, endPage, ahead))
        page = endPage
        const turn = pace()
        if (turn !== undefined) await turn
      }
    }
    return this.#holder.hold(buffer, first, end, options)
  }

  #assertGoing(buffer: BufferState, options: TransferOptions): void {
    if (options.signal?.aborted) throw abortError(options.signal, { buffer: buffer.label })
    if (buffer.closing) throw closedBuffer(buffer)
  }

  #allReady(buffer: BufferState, offsetBytes: number, length: number, blocked: number): boolean {
    const { chunks } = this.#residents
    const end = Math.ceil((offsetBytes + length) / this.#pageSizeBytes)
    for (let page = Math.floor(offsetBytes / this.#pageSizeBytes); page < end; ) {
      const chunk = buffer.table.chunkAt(page)
      if (chunk === 0 || chunks.has(chunk, blocked)) return false
      page = chunks.endPageOf(chunk)
    }
    return true
  }

  /** Each chunk's part of a range that is ready: offset within the chunk, bytes before it, its length. */
  #eachPart(
    buffer: BufferState,
    offsetBytes: number,
    length: number,
    visit: (chunk: number, start: number, done: number, length: number) => void,
  ): void {
    const { chunks } = this.#residents
    for (let done = 0; done < length; ) {
      const position = offsetBytes + done
      const chunk = buffer.table.chunkAt(Math.floor(position / this.#pageSizeBytes))
      const start = position - chunks.firstPageOf(chunk) * this.#pageSizeBytes
      const part = Math.min(length - done, (this.#pageSizeBytes << chunks.orderOf(chunk)) - start)
      visit(chunk, start, done, part)
      done += part
    }
  }

  /**
   * Shows `visit` the bytes from `from` to `end` of an access at `offsetBytes`, as far as the chunks that are held have them,
   * slice by slice with turns between; then tells `passed` of each chunk and where in it the access ends. Resolves to where
   * it came to.
   */
  async #eachSlice(
    held: readonly number[],
    offsetBytes: number,
    from: number,
    end: number,
    visit: ByteSource,
    passed: (chunk: number, bytes: Uint8Array, endInChunk: number) => void = () => {},
  ): Promise<number> {
    let done = from
    let sinceTurn = 0
    for (const chunk of held) {
      const bytes = this.#residents.bytes(chunk)
      const base = this.#residents.chunks.firstPageOf(chunk) * this.#pageSizeBytes - offsetBytes
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
      passed(chunk, bytes, stop - base)
    }
    return done
  }

  async #clear(into: Uint8Array, from: number, to: number): Promise<void> {
    for (let done = from; done < to; done += sliceBytes) {
      into.fill(0, done, Math.min(done + sliceBytes, to))
      const turn = to - done > sliceBytes ? pace() : undefined
      if (turn !== undefined) await turn
    }
  }
}

/** A range of more chunks is brought in window by window before it is held. */
const chunksPerHold = 32

function partOf(bytes: Uint8Array, start: number, length: number): Uint8Array {
  return length === bytes.byteLength ? bytes : bytes.subarray(start, start + length)
}

function holdOptions({ signal, retryMayFail }: TransferOptions, write: boolean): HoldOptions {
  return { signal, retryMayFail, write }
}
