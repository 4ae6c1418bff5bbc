import { assertByteCount, assertKnownOptions } from '@spillway/core'
import type { BufferState } from '../residency/buffer-state.ts'
import { assertAttached } from './byte-sources.ts'
import type { RangeOptions } from './options.ts'

/** Throws `TypeError` unless `bytes` is a Uint8Array, `EFAULT` when it is detached; `name` says which argument it is. */
export function assertBytes(bytes: Uint8Array, name: string): void {
  if (!(bytes instanceof Uint8Array)) throw new TypeError(`${name} is not a Uint8Array`)
  if (bytes.byteLength === 0) assertAttached(bytes, name)
}

/** Throws `RangeError` unless a range lies in the buffer and is whole pages; the buffer's end is the end of a page. */
export function assertWholePages(
  { sizeBytes, label }: BufferState,
  offsetBytes: number,
  length: number,
  pageSizeBytes: number,
): void {
  assertRange({ sizeBytes, label }, offsetBytes, length)
  const end = offsetBytes + length
  if (offsetBytes % pageSizeBytes === 0 && (end % pageSizeBytes === 0 || end === sizeBytes)) return
  throw new RangeError(
    `bytes ${offsetBytes} to ${end} of buffer ${label} are not whole pages; both must be multiples of ${pageSizeBytes}`,
  )
}

/** A buffer as far as ranges lie in it or not. */
export interface Extent {
  readonly sizeBytes: number
  readonly label: string
  /** One of both, of a buffer that grows: as the machinery sees it, and as the application does. */
  readonly growth?: unknown
  readonly maxBytes?: number | undefined
}

/** What to do about bytes that do not fit, where something can be done. */
export function howToFit({ growth, maxBytes }: Extent): string {
  return growth === undefined && maxBytes === undefined ? '' : '; append adds bytes to it'
}

/** Throws `RangeError` unless the range lies in the buffer; `name` is what the caller calls the offset. */
export function assertRange(buffer: Extent, offsetBytes: number, length: number, name = 'offset'): void {
  const { sizeBytes } = buffer
  assertByteCount(offsetBytes, name)
  if (offsetBytes > sizeBytes) throw outside(`${name} ${offsetBytes} is`, buffer)
  assertByteCount(length, 'length')
  if (offsetBytes + length <= sizeBytes) return
  throw outside(`bytes ${offsetBytes} to ${offsetBytes + length} are`, buffer)
}

function outside(what: string, buffer: Extent): RangeError {
  const { sizeBytes, label } = buffer
  return new RangeError(`${what} outside of buffer ${label}, which has ${sizeBytes} bytes${howToFit(buffer)}`)
}

/** Throws `RangeError` unless `value` is a byte. */
export function assertByte(value: number): void {
  if (Number.isInteger(value) && value >= 0 && value <= 255) return
  throw new RangeError(`value is ${value}; it must be a byte, an integer from 0 to 255`)
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
