import { SpillwayError } from '@spillway/core'

/** Bytes of a buffer. */
export interface ByteRange {
  readonly offset: number
  readonly length: number
}

/**
 * Puts the bytes from `position` on into `target`, all of it, or takes them out of it; called in order, from 0 to the end.
 */
export type ByteVisit = (target: Uint8Array, position: number) => void

/** The bytes of the caller, which may be detached or resized while the write waits: then nothing passes for written. */
export function bytesOf(bytes: Uint8Array): ByteVisit {
  const total = bytes.byteLength
  return (target, position) => {
    if (bytes.byteLength !== total) {
      throw memoryGone('the bytes to write were', 'write')
    }
    target.set(target.byteLength === total ? bytes : bytes.subarray(position, position + target.byteLength))
  }
}

/** The memory of the caller that a read fills, which may be detached or resized while the read waits. */
export function memoryOf(into: Uint8Array): ByteVisit {
  const total = into.byteLength
  return (from, position) => {
    if (into.byteLength !== total) throw memoryGone('the memory to read into was', 'read')
    into.set(from, position)
  }
}

export function memoryGone(what: string, call: string): SpillwayError {
  return new SpillwayError('EFAULT', `${what} detached or resized during the ${call}`)
}
