import { abortError, orAbort, SpillwayError, type TransferOptions } from '@spillway/core'
import { pace } from '../ground/pace.ts'
import type { BufferState } from '../residency/buffer-state.ts'
import { closedBuffer } from '../residency/closed.ts'
import type { Growth } from '../residency/growth.ts'
import { bytesOf } from './byte-range.ts'
import type { Discards } from './discards.ts'
import type { ReadWrite } from './read-write.ts'

/** What is appended. */
export interface AppendSource {
  readonly pieces: (signal: AbortSignal) => AsyncIterable<Uint8Array>
  /** How much it is at least, before the first piece is there. */
  readonly leastBytes: number
}

/**
 * Changes the length of buffers that grow. The bytes of an append are written behind the length, which moves when all of them
 * are there; until then nobody can reach them, so a failure needs no undoing: what was written is given up.
 */
export class Appends {
  readonly #readWrite: ReadWrite
  readonly #discards: Discards

  constructor(readWrite: ReadWrite, discards: Discards) {
    this.#readWrite = readWrite
    this.#discards = discards
  }

  /** Appends at once when it is nobody's turn, all is ready and little; says where, or undefined. Throws `EFBIG`. */
  tryAppend(buffer: BufferState, growth: Growth, bytes: Uint8Array): number | undefined {
    if (!growth.isIdle) return undefined
    const offset = buffer.sizeBytes
    this.#reach(buffer, growth, offset + bytes.byteLength)
    if (!this.#readWrite.tryWrite(buffer, offset, bytes)) return undefined
    buffer.sizeBytes = offset + bytes.byteLength
    return offset
  }

  /** Appends pieces as they come; resolves to where the first byte is. */
  append(
    buffer: BufferState,
    growth: Growth,
    source: AppendSource,
    options: TransferOptions,
  ): Promise<number> {
    return growth.inTurn(options.signal, async (turn) => {
      const offset = buffer.sizeBytes
      this.#assertRoom(buffer, growth, offset + source.leastBytes)
      let end = offset
      try {
        for await (const piece of source.pieces(turn.signal)) {
          this.#reach(buffer, growth, end + piece.byteLength)
          await this.#write(buffer, end, piece, { ...options, signal: turn.signal })
          end += piece.byteLength
        }
        if (turn.signal.aborted) throw abortError(turn.signal, { buffer: buffer.label })
      } catch (failure) {
        turn.rest = this.#giveUpRest(buffer)
        throw failure
      }
      buffer.sizeBytes = end
      return offset
    })
  }

  /** Gives up all from `bytes` on; resolves when it is given up. Rejects with `EBUSY` when somebody holds some of it. */
  truncate(buffer: BufferState, growth: Growth, bytes: number, options: TransferOptions): Promise<void> {
    return growth.inTurn(options.signal, async (turn) => {
      const { label, sizeBytes } = buffer
      if (bytes > sizeBytes)
        throw new RangeError(`${bytes} bytes are more than the ${sizeBytes} that buffer ${label} has`)
      const held = growth.heldBeyond(bytes)
      if (held !== undefined) {
        const range = `bytes ${held.offsetBytes} to ${held.offsetBytes + held.length}`
        const what = `${range} of buffer ${label} are pinned, or a call about them is under way`
        throw new SpillwayError('EBUSY', what, { buffer: label })
      }
      buffer.sizeBytes = bytes
      turn.rest = this.#giveUpRest(buffer)
      // What is given up is given up, whoever waits for it.
      await orAbort(turn.rest, turn.signal)
    })
  }

  async #write(
    buffer: BufferState,
    offset: number,
    bytes: Uint8Array,
    options: TransferOptions,
  ): Promise<void> {
    if (buffer.closing) throw closedBuffer(buffer)
    if (options.signal?.aborted) throw abortError(options.signal, { buffer: buffer.label })
    if (this.#readWrite.tryWrite(buffer, offset, bytes)) {
      const turn = pace()
      if (turn !== undefined) await turn
      return
    }
    buffer.operations++
    try {
      await new Promise<void>((resolve, reject) => {
        const range = { offset, length: bytes.byteLength }
        this.#readWrite.writeThen(buffer, range, { ...options, source: bytesOf(bytes) }, (error) => {
          if (error === undefined) resolve()
          else reject(error)
        })
      })
    } finally {
      buffer.endOperation()
    }
  }

  /** Gives up what lies behind the length. What shares a chunk with bytes that the application pins stays with it. */
  async #giveUpRest(buffer: BufferState): Promise<void> {
    if (buffer.closing) return
    buffer.operations++
    try {
      await this.#discards.giveUp(buffer, { destination: 'idle', first: buffer.pageCount, pinned: 'leave' })
      await buffer.store?.settled()
    } catch {
      // Nobody can reach it, and the next append writes over it.
    } finally {
      buffer.endOperation()
    }
  }

  #reach(buffer: BufferState, growth: Growth, end: number): void {
    this.#assertRoom(buffer, growth, end)
    buffer.reach(end)
  }

  #assertRoom({ label, sizeBytes }: BufferState, { maxBytes }: Growth, end: number): void {
    if (end <= maxBytes) return
    const what = `buffer ${label} has ${sizeBytes} bytes, and ${end - sizeBytes} more are beyond its maxBytes of ${maxBytes}`
    throw new SpillwayError('EFBIG', what, { buffer: label })
  }
}
