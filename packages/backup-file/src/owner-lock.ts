import { codeOf } from './file-system.ts'
import type { NativeModule } from './native.ts'

/** The byte that is locked: far beyond all pages, so that nobody who locks what he reads meets it. */
const lockOffsetBytes = 2 ** 52

const withoutLocks: ReadonlySet<string | undefined> = new Set([
  'ENOLCK',
  'EINVAL',
  'ENOSYS',
  'EOPNOTSUPP',
  'ENOTSUP',
])

/**
 * Tries to lock a file for the opening that does the I/O. The kernel ends the lock with the last descriptor of that opening, however the
 * process ends: so it tells a live owner from a dead one across containers and restarts. `'none'`: without native code, or on a file
 * system without locks.
 */
export function lockFor(fileDescriptor: number, native: NativeModule['native']): 'held' | 'refused' | 'none' {
  if (native === undefined) return 'none'
  try {
    return native.lockFile(fileDescriptor, { offsetBytes: lockOffsetBytes }) ? 'held' : 'refused'
  } catch (failure) {
    if (withoutLocks.has(codeOf(failure))) return 'none'
    throw failure
  }
}
