import { assertKnownOptions } from '@spillway/core'
import type { BufferState } from '../residency/buffer-state.ts'
import type { RangeOptions } from './options.ts'

/** Throws `TypeError` unless `bytes` is a Uint8Array; `name` says which argument it is. */
export function assertBytes(bytes: Uint8Array, name: string): void {
  if (!(bytes instanceof Uint8Array)) throw new TypeError(`${name} is not a Uint8Array`)
}

/** Throws `RangeError` unless a range of the buffer begins and ends with a page; the buffer's end is the end of a page. */
export function assertWholePages(
  { sizeBytes, label }: BufferState,
  offsetBytes: number,
  length: number,
  pageSizeBytes: number,
): void {
  const end = offsetBytes + length
  if (offsetBytes % pageSizeBytes === 0 && (end % pageSizeBytes === 0 || end === sizeBytes)) return
  throw new RangeError(
    `bytes ${offsetBytes} to ${end} of buffer ${label} are not whole pages; both must be multiples of ${pageSizeBytes}`,
  )
}

/** Throws `RangeError` unless the range lies in the buffer. */
export function assertRange({ sizeBytes, label }: BufferState, offsetBytes: number, length: number): void {
  if (!Number.isSafeInteger(offsetBytes) || offsetBytes < 0 || !Number.isSafeInteger(length) || length < 0) {
    throw new RangeError(`offset ${offsetBytes} and length ${length} must be whole numbers, 0 or more`)
  }
  if (offsetBytes + length <= sizeBytes) return
  throw new RangeError(
    `bytes ${offsetBytes} to ${offsetBytes + length} are outside of buffer ${label}, which has ${sizeBytes}`,
  )
}

/** The range that options name, the whole buffer by default; `RangeError` when it is not in the buffer. */
export function rangeOf(
  buffer: BufferState,
  options: RangeOptions,
  caller: string,
  more: string[] = [],
): { offset: number; length: number } {
  assertKnownOptions(options, ['offset', 'length', 'signal', ...more], caller)
  const { offset = 0, length = buffer.sizeBytes - offset } = options
  assertRange(buffer, offset, length)
  return { offset, length }
}
