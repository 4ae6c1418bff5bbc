import type { BufferState } from '../residency/buffer-state.ts'

/** Throws `TypeError` unless `bytes` is a Uint8Array; `name` says which argument it is. */
export function assertBytes(bytes: Uint8Array, name: string): void {
  if (!(bytes instanceof Uint8Array)) throw new TypeError(`${name} is not a Uint8Array`)
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
