import { SpillwayError } from '@spillway/core'
import type { BufferState } from '../residency/buffer-state.ts'

/** `EBADF` for a buffer that was freed, or whose pool was closed. */
export function closedBuffer(buffer: BufferState): SpillwayError {
  return new SpillwayError('EBADF', `buffer ${buffer.label} is freed`, { buffer: buffer.label })
}

/** Throws `EBUSY` for a buffer that is pinned. */
export function assertNotPinned(buffer: BufferState): void {
  const { userPins, label } = buffer
  if (userPins === 0) return
  throw new SpillwayError('EBUSY', `buffer ${label} has ${userPins} pins`, { buffer: label })
}
