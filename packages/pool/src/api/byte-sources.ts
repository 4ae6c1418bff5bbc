import { abortError, pace, SpillwayError, smallCallBytes } from '@spillway/core'
import type { ByteVisit } from '../operations/byte-range.ts'

/** Bytes that are at hand. A string stands for its UTF-8. */
export type Bytes = ArrayBufferView | ArrayBufferLike | string

/**
 * Bytes in any form: at hand, a Blob, or an iterable, async or not, that gives pieces in these forms or single bytes as numbers.
 * Streams are async iterables.
 */
export type ByteSource = Bytes | Blob | Iterable<Bytes | Blob | number> | AsyncIterable<Bytes | Blob | number>

/** Single bytes of an iterable are gathered into pieces of this size. */
const gatheredBytes = 64 * 1024
/** A pattern is repeated to about this size, so that filling does not go by pieces of a few bytes. */
const patternBytes = 64 * 1024
const encoder = new TextEncoder()

/** Throws `EFAULT` when memory that the caller gives was detached. */
export function assertAttached(bytes: ArrayBufferView | ArrayBufferLike, name: string): void {
  const memory = ArrayBuffer.isView(bytes) ? bytes.buffer : bytes
  if (!('detached' in memory) || !memory.detached) return
  throw new SpillwayError('EFAULT', `the memory of ${name} is detached: it was transferred to somebody else`)
}

/** The bytes of a source that are at hand, without a copy unless it is a string; undefined when they have to be waited for. */
export function bytesAtHand(source: ByteSource, name: string): Uint8Array | undefined {
  if (typeof source === 'string') return encoder.encode(source)
  if (ArrayBuffer.isView(source)) {
    assertAttached(source, name)
    return new Uint8Array(source.buffer, source.byteOffset, source.byteLength)
  }
  if (isMemory(source)) {
    assertAttached(source, name)
    return new Uint8Array(source)
  }
  if (isBlob(source) || isIterable(source)) return undefined
  const hint = hasBody(source) ? '; give its body' : ''
  throw new TypeError(`${name} is no ArrayBufferView, ArrayBuffer, Blob, string or iterable of bytes${hint}`)
}

/** Whether it is a Response or Request, whose bytes are a stream in it. */
function hasBody(source: unknown): boolean {
  return typeof source === 'object' && source !== null && 'body' in source && isIterable(source.body)
}

function isMemory(source: object): source is ArrayBufferLike {
  if (source instanceof ArrayBuffer) return true
  return typeof SharedArrayBuffer !== 'undefined' && source instanceof SharedArrayBuffer
}

function isBlob(source: unknown): source is Blob {
  return typeof Blob !== 'undefined' && source instanceof Blob
}

function isIterable(source: unknown): source is AsyncIterable<unknown> | Iterable<unknown> {
  if (typeof source !== 'object' || source === null) return false
  return Symbol.asyncIterator in source || Symbol.iterator in source
}

/** Waits for a source that waits for something itself; an abort ends the wait with `EINTR`. */
function unlessAborted<Result>(
  promise: Promise<Result> | Result,
  signal: AbortSignal | undefined,
): Promise<Result> {
  return new Promise((resolve, reject) => {
    const stop = () => reject(abortError(signal!))
    const end = () => signal?.removeEventListener('abort', stop)
    signal?.addEventListener('abort', stop)
    Promise.resolve(promise).then(resolve, reject).finally(end)
    if (signal?.aborted) stop()
  })
}

/** The pieces of a source, one after the other. The source is told when nobody wants the rest of it (`return`). */
export async function* piecesOfSource(
  source: ByteSource,
  name: string,
  signal: AbortSignal | undefined,
): AsyncGenerator<Uint8Array, void, undefined> {
  const atHand = bytesAtHand(source, name)
  if (atHand !== undefined) {
    yield atHand
    return
  }
  const items = (isBlob(source) ? source.stream() : source) as
    | AsyncIterable<Bytes | Blob | number>
    | Iterable<Bytes | Blob | number>
  const iterator = Symbol.asyncIterator in items ? items[Symbol.asyncIterator]() : items[Symbol.iterator]()
  let gathered: number[] = []
  let isOver = false
  try {
    for (;;) {
      const next = await unlessAborted(iterator.next(), signal)
      // A source that answers at once would otherwise hold the event loop, and its own abort, until it ends.
      const turn = pace(smallCallBytes)
      if (turn !== undefined) await turn
      isOver = next.done === true
      if (!isOver && typeof next.value === 'number') gathered.push(byteOf(next.value, name))
      if (
        gathered.length > 0 &&
        (isOver || typeof next.value !== 'number' || gathered.length === gatheredBytes)
      ) {
        yield Uint8Array.from(gathered)
        gathered = []
      }
      if (isOver) return
      if (typeof next.value === 'number') continue
      if (isIterable(next.value) && !isPiece(next.value))
        throw new TypeError(`${name} has iterables in an iterable`)
      yield* piecesOfSource(next.value, name, signal)
    }
  } finally {
    // Not waited for: a source that is stuck must not keep its reader.
    if (!isOver) void leave(iterator)
  }
}

/** Tells an iterator that nobody wants the rest. What it says to that is not what ended the call. */
async function leave(iterator: AsyncIterator<unknown> | Iterator<unknown>): Promise<void> {
  try {
    await iterator.return?.()
  } catch {
    // The caller is told why its call ended.
  }
}

function isPiece(item: object): boolean {
  return ArrayBuffer.isView(item) || isMemory(item) || isBlob(item)
}

function byteOf(value: number, name: string): number {
  if (Number.isInteger(value) && value >= 0 && value <= 255) return value
  throw new RangeError(`${name} has ${value}; a byte is an integer from 0 to 255`)
}

/** The first bytes of a source, `limit` at most, in memory of their own. */
export async function firstBytes(
  source: ByteSource,
  limit: number,
  name: string,
  signal: AbortSignal | undefined,
): Promise<Uint8Array> {
  const pieces: Uint8Array[] = []
  let length = 0
  for await (const piece of piecesOfSource(source, name, signal)) {
    pieces.push(piece.slice(0, limit - length))
    length += pieces.at(-1)!.byteLength
    if (length === limit) break
  }
  const bytes = new Uint8Array(length)
  let offset = 0
  for (const piece of pieces) {
    bytes.set(piece, offset)
    offset += piece.byteLength
  }
  return bytes
}

/** Puts the bytes of a pattern, over and over, into what it is given. Throws `RangeError` when the pattern has no bytes. */
export function repeating(pattern: Uint8Array): ByteVisit {
  const { byteLength } = pattern
  if (byteLength === 0) throw new RangeError('the pattern has no bytes')
  const times = Math.max(1, Math.floor(patternBytes / byteLength))
  const repeated = new Uint8Array(byteLength * times)
  for (let time = 0; time < times; time++) repeated.set(pattern, time * byteLength)
  return (target, position) => {
    let from = position % byteLength
    for (let done = 0; done < target.byteLength; from = 0) {
      const piece = repeated.subarray(from, from + target.byteLength - done)
      target.set(piece, done)
      done += piece.byteLength
    }
  }
}
