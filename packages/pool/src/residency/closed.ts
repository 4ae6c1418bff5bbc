import { SpillwayError } from '@spillway/core'
import type { ProviderGuard } from '../providers/guard.ts'
import type { BufferState } from './buffer-state.ts'

/** `EBADF` for a buffer that was freed, or whose pool was closed. */
export function closedBuffer({ label }: { readonly label: string }): SpillwayError {
  return new SpillwayError('EBADF', `buffer ${label} is freed`, { buffer: label })
}

/** Throws `EBADF` for a buffer that was freed, and `EINVAL` when a page provider calls its own pool. */
export function assertUsable(buffer: BufferState, guard: ProviderGuard): void {
  if (buffer.closing) throw closedBuffer(buffer)
  guard.assertIdle()
}

/** Throws `EBUSY` for a buffer that is pinned. */
export function assertNotPinned(buffer: BufferState): void {
  const { userPins, label } = buffer
  if (userPins === 0) return
  const pins = userPins === 1 ? 'a pin' : `${userPins} pins`
  throw new SpillwayError('EBUSY', `buffer ${label} has ${pins}, to be released first`, { buffer: label })
}
