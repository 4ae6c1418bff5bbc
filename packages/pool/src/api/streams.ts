import { pace, smallCallBytes } from '@spillway/core'
import { closedBuffer } from '../residency/closed.ts'
import { type ByteSource, type Bytes, bytesAtHand, piecesOfSource } from './byte-sources.ts'
import type { FillOptions, ReadWriteOptions } from './options.ts'
import type { NumbersType } from './pin.ts'
import { assertRange, howToFit } from './ranges.ts'

/** What streams and copies need of a buffer. */
export interface ByteStore {
  readonly label: string
  readonly sizeBytes: number
  readonly freed: boolean
  /** Of a buffer that grows. */
  readonly maxBytes?: number | undefined
  read(offsetBytes: number, into: Uint8Array, options?: ReadWriteOptions): Promise<void>
  write(offsetBytes: number, bytes: Uint8Array, options?: ReadWriteOptions): Promise<void>
}

/** A place in a buffer, in bytes. */
export interface BytePlace {
  readonly buffer: ByteStore
  readonly offset: number
}

/** Staging memory of a copy between buffers; the one that was used last is used again. */
const stageBytes = 1024 ** 2
let idleStage: Uint8Array | undefined

function takeStage(length: number): Uint8Array {
  if (length <= stageBytes / 16) return new Uint8Array(length)
  const stage = idleStage ?? new Uint8Array(stageBytes)
  idleStage = undefined
  return stage
}

function giveStageBack(stage: Uint8Array): void {
  if (stage.byteLength === stageBytes) idleStage = stage
}

/** Copies through a stage of its own, so that no pin of one buffer is held while the other waits for memory. */
export async function copyBetween(
  from: BytePlace,
  to: BytePlace,
  length: number,
  { signal, retryMayFail, onProgress }: FillOptions,
): Promise<void> {
  const { buffer: source, offset: sourceOffset } = from
  const { buffer: target, offset: targetOffset } = to
  if (target.freed) throw closedBuffer(target)
  assertRange(target, targetOffset, length, 'targetOffset')
  const stage = takeStage(length)
  // When the target begins inside the source's range, going forward would overwrite what is still to be read.
  const backward = source === target && targetOffset > sourceOffset && targetOffset < sourceOffset + length
  try {
    for (let done = 0; done < length; ) {
      const step = Math.min(stage.byteLength, length - done)
      const position = backward ? length - done - step : done
      const piece = stage.subarray(0, step)
      await source.read(sourceOffset + position, piece, { signal, retryMayFail })
      await target.write(targetOffset + position, piece, { signal, retryMayFail })
      done += step
      onProgress?.({ bytes: done, totalBytes: length })
    }
  } finally {
    giveStageBack(stage)
  }
}

/** The bytes of a range in pieces of their own. */
export async function* readPieces(
  { buffer, offset }: BytePlace,
  length: number,
  pieceBytes: number,
  { signal, retryMayFail }: ReadWriteOptions,
): AsyncGenerator<Uint8Array<ArrayBuffer>, void, undefined> {
  for (let done = 0; done < length; ) {
    const piece = new Uint8Array(Math.min(pieceBytes, length - done))
    await buffer.read(offset + done, piece, { signal, retryMayFail })
    yield piece
    done += piece.byteLength
  }
  // A range without bytes is over without a read.
  await pace(smallCallBytes)
}

/** A range as a stream of bytes. A reader that brings its own memory (`mode: 'byob'`) has it filled, and nothing is allocated. */
export function readableOf(
  { buffer, offset }: BytePlace,
  length: number,
  pieceBytes: number,
  { signal, retryMayFail }: ReadWriteOptions,
): ReadableStream<Uint8Array<ArrayBuffer>> {
  let done = 0
  return new ReadableStream(
    {
      type: 'bytes',
      async pull(controller) {
        const request = controller.byobRequest
        if (done === length) {
          await pace(smallCallBytes)
          controller.close()
          request?.respond(0)
          return
        }
        const view = request?.view
        const step = Math.min(view?.byteLength ?? pieceBytes, length - done)
        const piece =
          view == null
            ? new Uint8Array(step)
            : new Uint8Array(view.buffer as ArrayBuffer, view.byteOffset, step)
        await buffer.read(offset + done, piece, { signal, retryMayFail })
        done += step
        if (request == null) controller.enqueue(piece)
        else request.respond(step)
      },
      cancel: () => pace(smallCallBytes),
    },
    // Nothing is read before somebody asks for it.
    { highWaterMark: 0 },
  )
}

/** The same as numbers of a type. */
export async function* readTyped<Numbers>(
  type: NumbersType<Numbers>,
  pieces: AsyncGenerator<Uint8Array<ArrayBuffer>, void, undefined>,
): AsyncGenerator<Numbers, void, undefined> {
  for await (const { buffer, byteLength } of pieces) {
    yield new type(buffer, 0, byteLength / type.BYTES_PER_ELEMENT)
  }
}

/** Writes the pieces of a source as they come; the next is asked for when the last is written. */
export async function writeSource(
  { buffer, offset }: BytePlace,
  source: ByteSource,
  { signal, retryMayFail }: ReadWriteOptions,
): Promise<void> {
  // What tells its size is refused before anything is written.
  assertRange(buffer, offset, source instanceof Blob ? source.size : 0)
  let done = 0
  for await (const piece of piecesOfSource(source, 'the source of write', signal)) {
    await buffer.write(offset + done, piece, { signal, retryMayFail })
    done += piece.byteLength
  }
}

/** A stream into a buffer; a string that it is given is written as UTF-8. */
export interface BufferWritable extends WritableStream<Bytes> {
  /** Bytes that are in the buffer: of all writes that have settled. */
  readonly bytesWritten: number
}

export function writableOf(
  { buffer, offset }: BytePlace,
  length: number,
  { signal, retryMayFail }: ReadWriteOptions,
): BufferWritable {
  let done = 0
  const stream = new WritableStream<Bytes>({
    async write(chunk) {
      const bytes = bytesAtHand(chunk, 'the chunk')
      if (bytes === undefined) throw new TypeError('the chunk is not made of bytes')
      if (done + bytes.byteLength > length) {
        throw new RangeError(
          `the stream has more than the ${length} bytes that fit into buffer ${buffer.label}${howToFit(buffer)}`,
        )
      }
      await buffer.write(offset + done, bytes, { signal, retryMayFail })
      done += bytes.byteLength
    },
    close: () => pace(smallCallBytes),
    abort: () => pace(smallCallBytes),
  })
  return Object.defineProperty(stream, 'bytesWritten', { get: () => done }) as BufferWritable
}
