import { SpillwayError } from '@spillway/core'
import type { ResponseHead, ResponseSink } from '../http/response-sink.ts'
import { pageChecksum } from '../segments/checksum.ts'
import type { SegmentObject } from '../segments/segment-table.ts'
import { added } from './short-list.ts'

/** Below this many bytes it costs more to hand memory to the socket than to copy out of its buffer. */
const directBytes = 64 * 1024
/** The most that is handed to the socket at once: libuv may read 32 times before the event loop turns. */
const mostDirectBytes = 128 * 1024
/** So many answers to another question are taken for accidents of something on the way. */
const mostMisanswers = 3

/** Adjacent pages of one segment that one call of `copyPages` wants. */
export interface RangePart {
  readonly slot: number
  readonly pages: number
  /** Their memory, in order, each a whole number of pages. */
  readonly memory: readonly Uint8Array[]
  /** Who wants them. When that was aborted, the memory belongs to its owner again and is not touched. */
  readonly call: { readonly isAborted: boolean }
  /** Pages that have come, from the first on. */
  arrived: number
  /** Those of them whose checksum did not match, ascending. */
  badPages: number[]
  /** Whether its memory was detached or shrunk meanwhile: what comes for it goes nowhere. */
  isMemoryGone: boolean
}

interface Piece {
  readonly part: RangePart | undefined
  readonly memory: Uint8Array | undefined
  readonly bytes: number
  /** Slot of its first page. */
  readonly slot: number
}

/**
 * The bytes of one ranged GET and where they go: pages of one or several calls, and gaps between them that are read
 * over. It remembers the byte that was reached, so a body that broke off is continued there by another request.
 *
 *   attempt ─▶ sink.begin ─▶ the one writer ─▶ pages in place, each checked as soon as it is whole
 *
 * At most one attempt writes at a time: a second one that is faster stops the first before it takes over.
 */
export class RangeTarget {
  readonly object: SegmentObject
  readonly offset: number
  readonly bytes: number
  /** Bytes that have come. */
  position = 0
  /** Bytes that came and were nobody's. */
  overReadBytes = 0
  /** Answers with another range than was asked for. */
  misanswers = 0
  writer: RangeSink | undefined
  /** Whose memory the socket may be writing into; it is stopped before that memory is given back. */
  lentTo: RangePart['call'] | undefined
  /** Who fills it; told whenever bytes have come. */
  fetch: { received(bytes: number): void } | undefined
  readonly #onProgress: (bytes: number) => void
  readonly #pageSizeBytes: number
  readonly #pieces: readonly Piece[]
  #piece = 0
  #pieceOffset = 0

  /**
   * @param parts ascending by slot, without overlap
   * @param onProgress called whenever bytes have come
   */
  constructor(
    object: SegmentObject,
    parts: readonly RangePart[],
    pageSizeBytes: number,
    onProgress: (bytes: number) => void,
  ) {
    this.object = object
    this.#onProgress = onProgress
    this.#pageSizeBytes = pageSizeBytes
    let slot = parts[0].slot
    this.offset = slot * pageSizeBytes
    let pieces: Piece[] = []
    for (let index = 0; index < parts.length; index++) {
      const part = parts[index]
      if (part.slot > slot) {
        const bytes = (part.slot - slot) * pageSizeBytes
        pieces = added(pieces, { part: undefined, memory: undefined, bytes, slot })
      }
      slot = part.slot
      for (let piece = 0; piece < part.memory.length; piece++) {
        const memory = part.memory[piece]
        pieces = added(pieces, { part, memory, bytes: memory.byteLength, slot })
        slot += memory.byteLength / pageSizeBytes
      }
      const missing = part.slot + part.pages - slot
      if (missing === 0) continue
      part.isMemoryGone = true
      pieces.push({ part, memory: undefined, bytes: missing * pageSizeBytes, slot })
      slot += missing
    }
    this.#pieces = pieces
    this.bytes = slot * pageSizeBytes - this.offset
  }

  get isComplete(): boolean {
    return this.position === this.bytes
  }

  /** Memory for the next bytes when that is worth it. */
  memory(): Uint8Array | undefined {
    const piece = this.#pieces[this.#piece]
    if (piece?.memory === undefined || piece.part!.call.isAborted) return undefined
    if (piece.bytes - this.#pieceOffset < directBytes || piece.memory.byteLength < piece.bytes)
      return undefined
    this.lentTo = piece.part!.call
    return piece.memory.subarray(this.#pieceOffset, this.#pieceOffset + mostDirectBytes)
  }

  write(source: Buffer, from: number, end: number): void {
    for (let at = from; at < end; ) {
      const piece = this.#pieces[this.#piece]
      if (piece === undefined) throw new SpillwayError('EIO', 'the answer is longer than what was asked for')
      const bytes = Math.min(end - at, piece.bytes - this.#pieceOffset)
      // The memory of an aborted call belongs to its owner again.
      if (piece.memory !== undefined && !piece.part!.call.isAborted) {
        const copied = source.copy(piece.memory, this.#pieceOffset, at, at + bytes)
        if (copied < bytes) piece.part!.isMemoryGone = true
      }
      this.filled(bytes)
      at += bytes
    }
  }

  filled(bytes: number): void {
    const piece = this.#pieces[this.#piece]
    const before = this.#pieceOffset
    this.#pieceOffset += bytes
    this.position += bytes
    if (piece.part === undefined) this.overReadBytes += bytes
    else this.#check(piece, piece.part, before)
    if (this.#pieceOffset === piece.bytes) {
      this.#piece++
      this.#pieceOffset = 0
    }
    this.#onProgress(bytes)
    this.fetch?.received(bytes)
  }

  /** Checks the pages that became whole. */
  #check(piece: Piece, part: RangePart, before: number): void {
    const size = this.#pageSizeBytes
    const first = Math.floor(before / size)
    const end = Math.floor(this.#pieceOffset / size)
    const { checksums, seed } = this.object
    for (let page = first; page < end; page++) {
      if (part.call.isAborted || part.isMemoryGone) return
      const slot = piece.slot + page
      const { memory } = piece
      const bytes = piece.bytes === size ? memory! : memory!.subarray(page * size, (page + 1) * size)
      if (pageChecksum(bytes, seed, slot) !== checksums![slot]) part.badPages.push(slot - part.slot)
      part.arrived++
    }
  }
}

/** One request for a target, as its sink sees it. */
export interface AttemptAtRange {
  /** Ends it. */
  stop(reason: Error): void
  /** Its answer has begun, and it is the one that writes. */
  began(): void
}

/** One attempt's way into a target. */
export class RangeSink implements ResponseSink {
  readonly #target: RangeTarget
  /** First byte that this attempt asked for, counted from the target's. */
  readonly from: number
  readonly #attempt: AttemptAtRange
  #skip = 0

  constructor(target: RangeTarget, attempt: AttemptAtRange) {
    this.#target = target
    this.from = target.position
    this.#attempt = attempt
  }

  get isComplete(): boolean {
    return this.#target.isComplete
  }

  get #isWriter(): boolean {
    return this.#target.writer === this
  }

  begin(head: ResponseHead): boolean {
    const target = this.#target
    if (target.isComplete) return false
    const start = target.offset + this.from
    if (
      head.status !== 206 ||
      !head.contentRange?.startsWith(`bytes ${start}-${target.offset + target.bytes - 1}/`)
    ) {
      throw new SpillwayError(
        'EIO',
        `bytes ${start}-${target.offset + target.bytes - 1} were asked for; the answer has status ${head.status} and ` +
          `${head.contentRange ?? 'no range'}: the object is short, or the service does not honour ranges`,
        { retryable: ++target.misanswers <= mostMisanswers },
      )
    }
    target.writer?.interrupt(new SpillwayError('EINTR', 'another request for the same bytes was faster'))
    target.writer = this
    this.#skip = target.position - this.from
    this.#attempt.began()
    return true
  }

  memory(): Uint8Array | undefined {
    return this.#isWriter && this.#skip === 0 ? this.#target.memory() : undefined
  }

  filled(bytes: number): void {
    if (this.#isWriter) this.#target.filled(bytes)
  }

  write(bytes: Buffer, from: number, end: number): void {
    if (!this.#isWriter) return
    const skipped = Math.min(this.#skip, end - from)
    this.#skip -= skipped
    if (from + skipped < end) this.#target.write(bytes, from + skipped, end)
  }

  /** Stops this attempt. */
  interrupt(reason: Error): void {
    this.#attempt.stop(reason)
  }

  /** Ends this attempt's part in it, if it still has one. */
  detach(): void {
    if (this.#isWriter) this.#target.writer = undefined
  }
}
