import { assertBytes, assertFd, assertKnownOptions } from './checks.ts'
import { systemError } from './errors.ts'
import { libcFor } from './libc.ts'

/** Which bytes a lock is on; they need not exist. */
export interface LockRange {
  /** Whether it stands against every other lock, or only against exclusive ones. @default true */
  readonly exclusive?: boolean
  /** @default 0 */
  readonly offsetBytes?: number
  /** @default 1 */
  readonly lengthBytes?: number
}

const getLock = 36
const setLock = 37
const shared = 0
const exclusive = 1
const none = 2
const wouldBlock = 11
const denied = 13
const interrupted = 4
/** struct flock of 64-bit Linux: type, whence, start, length, pid. */
const structBytes = 32

/**
 * Locks a range of a file for the open file description behind `fd`, without waiting (`F_OFD_SETLK`). False when another
 * description has a lock that stands against it. The lock ends with the last descriptor of that description, also when the
 * process is killed; forked processes share it, other descriptors of the same process do not. Locks bind only those who
 * ask. Errors: `EBADF` (exclusive needs a descriptor that may write, shared one that may read), `ENOLCK`, `EINVAL` (the
 * file system has no locks), `ENOSYS`.
 */
export function lockFile(fd: number, range: LockRange = {}): boolean {
  return callLock({ caller: 'lockFile', command: setLock, type: typeOf(range) }, fd, range) !== undefined
}

/** Ends what `lockFile` took on this range. Errors as `lockFile`. */
export function unlockFile(fd: number, range: LockRange = {}): void {
  callLock({ caller: 'unlockFile', command: setLock, type: none }, fd, range)
}

/** Whether another open file description has a lock that stands against this one. Takes none. Errors as `lockFile`. */
export function isFileLocked(fd: number, range: LockRange = {}): boolean {
  const found = callLock({ caller: 'isFileLocked', command: getLock, type: typeOf(range) }, fd, range)
  return found !== none
}

function typeOf(range: LockRange): number {
  return range.exclusive === false ? shared : exclusive
}

interface LockCall {
  /** Names the function in errors of misuse. */
  readonly caller: string
  readonly command: number
  readonly type: number
}

/** The type that the kernel left in the struct; undefined when somebody stands against the lock. */
function callLock({ caller, command, type }: LockCall, fd: number, range: LockRange): number | undefined {
  assertKnownOptions(range, ['exclusive', 'offsetBytes', 'lengthBytes'], caller)
  const { offsetBytes = 0, lengthBytes = 1 } = range
  assertFd(fd)
  assertBytes(offsetBytes, 'offsetBytes')
  assertBytes(lengthBytes, 'lengthBytes', 1)
  const libc = libcFor('fcntl')
  const lock = new Uint8Array(structBytes)
  const fields = new DataView(lock.buffer)
  fields.setInt16(0, type, true)
  fields.setBigInt64(8, BigInt(offsetBytes), true)
  fields.setBigInt64(16, BigInt(lengthBytes), true)
  while (libc.fcntlLock(fd, command, lock) < 0) {
    const errno = libc.errno()
    if (errno === wouldBlock || errno === denied) return undefined
    if (errno !== interrupted)
      throw systemError(errno, 'fcntl', `a lock on ${lengthBytes} bytes from ${offsetBytes}`)
  }
  return fields.getInt16(0, true)
}
