import { delay, nextTurn, pace, SpillwayError, systemError } from '@spillway/core'
import { codeOf } from './file-system.ts'
import type { MoverParts } from './mover-parts.ts'
import type { Piece } from './piece-plan.ts'
import type { Progress } from './pieces-in-flight.ts'

const transientCodes: ReadonlySet<string | undefined> = new Set(['EAGAIN', 'EINTR'])
const transientRetries = 5

/**
 * Moves one piece either way. The work of the processor and that of the disk overlap: the sums of a piece that is being
 * written are made while it travels, and those of a piece that was read while the next ones do.
 *
 *   write   gather (if staged) ─▶ request ─────────────▶ done
 *                                  └─▶ sums ──┘
 *   read    request ─▶ sums ─▶ scatter (if staged) ─▶ done
 *                       └─▶ no match: read that page once more ─▶ EBADMSG
 */
export class PageMover {
  /** Bytes that travelled without and with staging. */
  directBytes = 0
  stagedBytes = 0
  rereadPages = 0
  readonly #parts: MoverParts

  constructor(parts: MoverParts) {
    this.#parts = parts
  }

  write(piece: Piece, retryMayFail: boolean): Promise<Progress> {
    if (piece.staged) return this.#writeStaged(piece, retryMayFail)
    this.directBytes += piece.pageCount * this.#parts.pageSizeBytes
    return this.#send(piece, piece.parts[0], retryMayFail)
  }

  read(piece: Piece, retryMayFail: boolean): Promise<Progress> {
    if (piece.staged) return this.#readStaged(piece, retryMayFail)
    this.directBytes += piece.pageCount * this.#parts.pageSizeBytes
    return this.#receive(piece, piece.parts[0], retryMayFail)
  }

  /** Goes on with a read whose first request is over, as if `read` had made it. */
  goOn(piece: Piece, outcome: number | Error): Promise<Progress> {
    // What was refused as it was is asked anew: another request may have turned direct I/O off since.
    const begun = codeOf(outcome) === 'EINVAL' ? undefined : outcome
    return this.#receive(piece, piece.parts[0], false, typeof begun === 'object' ? asProblem(begun) : begun)
  }

  #writeStaged(piece: Piece, retryMayFail: boolean): Promise<Progress> {
    const bytes = piece.pageCount * this.#parts.pageSizeBytes
    return this.#staged(bytes, async (memory) => {
      const turn = pace(bytes)
      if (turn !== undefined) await turn
      gather(memory, piece.parts)
      return this.#send(piece, memory, retryMayFail)
    })
  }

  #readStaged(piece: Piece, retryMayFail: boolean): Promise<Progress> {
    const bytes = piece.pageCount * this.#parts.pageSizeBytes
    return this.#staged(bytes, async (memory) => {
      const progress = await this.#receive(piece, memory, retryMayFail)
      const turn = pace(bytes)
      if (turn !== undefined) await turn
      scatter(memory, piece.parts, progress.pages * this.#parts.pageSizeBytes)
      return progress
    })
  }

  async #staged(bytes: number, move: (memory: Uint8Array) => Promise<Progress>): Promise<Progress> {
    this.stagedBytes += bytes
    const { smallStaging, largeStaging } = this.#parts
    const pool = bytes <= smallStaging.bufferBytes ? smallStaging : largeStaging
    const buffer = await pool.take(bytes)
    try {
      return await move(buffer.byteLength === bytes ? buffer : buffer.subarray(0, bytes))
    } finally {
      pool.give(buffer)
    }
  }

  async #send(piece: Piece, memory: Uint8Array, retryMayFail: boolean): Promise<Progress> {
    const { checksums, pageSizeBytes, slotOf, data } = this.#parts
    const offset = this.#offsetOf(piece)
    const wasDirect = data.direct
    // Left alone while the sums are made.
    const written = this.#request('write', memory, offset)
    if (checksums !== undefined) {
      await nextTurn(memory.byteLength)
      checksums.record(piece.handle, slotOf(piece.handle), memory, pageSizeBytes, piece.pageCount)
    }
    const first = await written
    if (first === memory.byteLength) return { pages: piece.pageCount }
    const { bytes, failure } = await this.#goOn('write', memory, offset, retryMayFail, first)
    if (failure === undefined) return { pages: piece.pageCount }
    if (wasRefused(piece, memory, bytes, failure)) return this.#writeStaged(piece, retryMayFail)
    if (wasDirect && this.#fallsBack(failure)) return this.#send(piece, memory, retryMayFail)
    const pages = Math.floor(bytes / pageSizeBytes)
    return { pages, error: this.#ioError(failure, 'written', piece, pages) }
  }

  async #receive(
    piece: Piece,
    memory: Uint8Array,
    retryMayFail: boolean,
    begun?: number | Problem,
  ): Promise<Progress> {
    const { checksums, pageSizeBytes, isLive, data } = this.#parts
    const offset = this.#offsetOf(piece)
    const wasDirect = data.direct
    const first = begun ?? (await this.#request('read', memory, offset))
    let bytes = memory.byteLength
    let failure: unknown
    if (first !== bytes) ({ bytes, failure } = await this.#goOn('read', memory, offset, retryMayFail, first))
    if (wasRefused(piece, memory, bytes, failure)) return this.#readStaged(piece, retryMayFail)
    if (wasDirect && this.#fallsBack(failure)) return this.#receive(piece, memory, retryMayFail)
    const arrived = Math.floor(bytes / pageSizeBytes)
    let good = arrived
    if (checksums !== undefined && arrived > 0) {
      const turn = pace(arrived * pageSizeBytes)
      if (turn !== undefined) await turn
      good = this.#firstMismatch(piece, memory, arrived, 0)
      if (good < arrived) good = await this.#firstBad(piece, memory, arrived, good, retryMayFail)
    }
    // A page that was dropped meanwhile may have been another's when it was read.
    if (!isLive(piece.handle, piece.pageCount)) {
      const first = firstNot(piece.pageCount, (page) => isLive(piece.handle + page, 1))
      const stale = this.#error(
        'ESTALE',
        `handle ${piece.handle + first} was dropped meanwhile`,
        piece,
        first,
      )
      if (first <= good) {
        memory.fill(0, first * pageSizeBytes)
        return { pages: first, error: stale }
      }
    }
    if (good < arrived || (failure === undefined && good < piece.pageCount)) {
      // Short files end here too: bytes that are not there are no data.
      pageOf(memory, good, pageSizeBytes).fill(0)
      this.#parts.onCorrupt(piece.handle + good)
      const what = good < arrived ? 'does not match its checksum' : 'lies beyond the end of the file'
      return { pages: good, error: this.#error('EBADMSG', `the stored page ${what}`, piece, good) }
    }
    if (failure !== undefined) return { pages: good, error: this.#ioError(failure, 'read', piece, good) }
    return { pages: piece.pageCount }
  }

  /** Whether a request that was refused as it was is worth another try, without direct I/O. */
  #fallsBack(failure: unknown): boolean {
    return codeOf(failure) === 'EINVAL' && this.#parts.data.fallBack(failure)
  }

  /** The first page that does not match its sum, from page `from` on of those that arrived; their number if all do. */
  #firstMismatch(piece: Piece, memory: Uint8Array, arrived: number, from: number): number {
    const { checksums, pageSizeBytes, slotOf } = this.#parts
    return checksums!.firstMismatch(piece.handle, slotOf(piece.handle), memory, pageSizeBytes, from, arrived)
  }

  /** The same, once page `mismatch` did not match: pages that do when they are read again are good. */
  async #firstBad(
    piece: Piece,
    memory: Uint8Array,
    arrived: number,
    mismatch: number,
    retryMayFail: boolean,
  ): Promise<number> {
    for (let page = mismatch; ; ) {
      if (page === arrived || !(await this.#readAgain(piece, memory, page, retryMayFail))) return page
      page = this.#firstMismatch(piece, memory, arrived, page + 1)
    }
  }

  /** One more chance for a page that does not match: the fault may have been on the way. */
  async #readAgain(piece: Piece, memory: Uint8Array, page: number, retryMayFail: boolean): Promise<boolean> {
    this.rereadPages++
    const { checksums, pageSizeBytes, slotOf } = this.#parts
    const target = pageOf(memory, page, pageSizeBytes)
    const offset = this.#offsetOf(piece) + page * pageSizeBytes
    const first = await this.#request('read', target, offset)
    const { bytes } = await this.#goOn('read', target, offset, retryMayFail, first)
    if (bytes < pageSizeBytes) return false
    const handle = piece.handle + page
    return checksums!.firstMismatch(handle, slotOf(handle), target, pageSizeBytes, 0, 1) === 1
  }

  /** One request: resolves to the bytes it moved, or to the problem that it met. */
  #request(verb: 'read' | 'write', memory: Uint8Array, offset: number): Promise<number | Problem> {
    try {
      return this.#parts.engine[verb](memory, offset).catch(asProblem)
    } catch (failure) {
      return Promise.resolve(asProblem(failure))
    }
  }

  /** Goes on after the outcome of a first request, until all is moved or cannot be; reading stops at the end of the file. */
  async #goOn(
    verb: 'read' | 'write',
    memory: Uint8Array,
    offset: number,
    retryMayFail: boolean,
    first: number | Problem,
  ): Promise<{ bytes: number; failure?: unknown }> {
    let done = 0
    let retries = 0
    for (let moved = first; ; moved = await this.#request(verb, memory.subarray(done), offset + done)) {
      if (typeof moved === 'number') {
        done += moved
        if (done >= memory.byteLength || (moved === 0 && verb === 'read')) return { bytes: done }
        if (moved === 0) return { bytes: done, failure: new SpillwayError('EIO', 'a write stored nothing') }
      } else {
        const { failure } = moved
        if (!isTransient(failure, retryMayFail) || ++retries > transientRetries)
          return { bytes: done, failure }
        await delay(2 ** retries)
      }
    }
  }

  #offsetOf(piece: Piece): number {
    return this.#parts.dataOffsetBytes + this.#parts.slotOf(piece.handle) * this.#parts.pageSizeBytes
  }

  #fields(piece: Piece, page: number) {
    const handle = piece.handle + page
    return {
      backup: this.#parts.name,
      handle,
      page: piece.page + page,
      offsetBytes: this.#offsetOf(piece) + page * this.#parts.pageSizeBytes,
    }
  }

  #error(code: 'EBADMSG' | 'ESTALE', message: string, piece: Piece, page: number): SpillwayError {
    return new SpillwayError(code, message, this.#fields(piece, page))
  }

  #ioError(failure: unknown, done: string, piece: Piece, page: number): Error {
    const reason = failure instanceof Error ? failure.message : String(failure)
    return systemError(failure, `a page could not be ${done}: ${reason}`, this.#fields(piece, page))
  }
}

function pageOf(memory: Uint8Array, page: number, pageSizeBytes: number): Uint8Array {
  if (memory.byteLength === pageSizeBytes) return memory
  return memory.subarray(page * pageSizeBytes, (page + 1) * pageSizeBytes)
}

function isTransient(failure: unknown, retryMayFail: boolean): boolean {
  return !retryMayFail && transientCodes.has(codeOf(failure))
}

/** What a request failed with. */
interface Problem {
  readonly failure: unknown
}

function asProblem(failure: unknown): Problem {
  return { failure }
}

/** The kernel would not take the caller's memory after all, though it looked aligned: staging memory it takes. */
function wasRefused(piece: Piece, memory: Uint8Array, bytes: number, failure: unknown): boolean {
  return bytes === 0 && memory === piece.parts[0] && codeOf(failure) === 'EINVAL'
}

function gather(memory: Uint8Array, parts: readonly Uint8Array[]): void {
  let at = 0
  for (const part of parts) {
    memory.set(part, at)
    at += part.byteLength
  }
}

function scatter(memory: Uint8Array, parts: readonly Uint8Array[], bytes: number): void {
  let at = 0
  for (const part of parts) {
    const length = Math.min(part.byteLength, bytes - at)
    if (length <= 0) return
    part.set(memory.subarray(at, at + length))
    at += length
  }
}

function firstNot(count: number, holds: (index: number) => boolean): number {
  for (let index = 0; index < count; index++) if (!holds(index)) return index
  return count
}
