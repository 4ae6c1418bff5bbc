import { closeSync, openSync } from 'node:fs'
import { isMainThread } from 'node:worker_threads'
import { assertBytes, assertFd } from './checks.ts'
import { systemError } from './errors.ts'
import { type Libc, libcFor } from './libc.ts'

const memfdCloseOnExec = 1
const memfdAllowSealing = 2
const memfdNotExecutable = 8
const fcntlAddSeals = 1033
const sealShrink = 2
const fallocateKeepSize = 1
const fallocatePunchHole = 2
const interrupted = 4
const invalid = 22

/**
 * A file in memory without a name, as a file descriptor of the caller: empty, closed on exec, gone with its last
 * descriptor and mapping. Give it a size with `fs.ftruncateSync`; it can grow but never shrink, so that a mapping of it
 * cannot lose its backing. `name` shows up in /proc for debugging. Errors: `EMFILE`, `ENOMEM`, `ENOSYS`.
 *
 * Huge pages need nothing here: ask for them where the file is mapped.
 */
export function createMemfd(name: string): number {
  if (typeof name !== 'string') throw new TypeError(`name is ${typeof name}; it must be a string`)
  // The kernel takes 249 bytes; a NUL would end the name early.
  if (Buffer.byteLength(name) > 249 || name.includes('\0')) {
    throw new RangeError(`name "${name}" must have at most 249 bytes and no NUL`)
  }
  const libc = libcFor('memfd_create')
  const flags = memfdCloseOnExec | memfdAllowSealing
  let fd = libc.memfd_create(name, flags | memfdNotExecutable)
  // Kernels before 6.3 do not know the flag that says "no program".
  if (fd < 0 && libc.errno() === invalid) fd = libc.memfd_create(name, flags)
  if (fd < 0) throw libc.lastError('memfd_create')
  if (libc.fcntl(fd, fcntlAddSeals, sealShrink) < 0) {
    const error = libc.lastError('fcntl')
    libc.close(fd)
    throw error
  }
  return isMainThread ? fd : ownedByNode(fd, libc)
}

/**
 * The same file through a descriptor that Node opened. A worker thread of Node warns when a descriptor is closed that it did
 * not open, and closes the ones that it did when it is terminated.
 */
function ownedByNode(fd: number, libc: Libc): number {
  let opened: number
  try {
    opened = openSync(`/proc/self/fd/${fd}`, 'r+')
  } catch {
    // No /proc, or no permission for it: the descriptor works all the same.
    return fd
  }
  libc.close(fd)
  return opened
}

/** Closes what `createMemfd` opened, by whom it was opened. */
export function closeMemfd(fd: number): void {
  if (isMainThread) libcFor('close').close(fd)
  else closeSync(fd)
}

/**
 * Makes sure that the range of the file has storage, and that the file is long enough: a later write there cannot run
 * out of space. What is stored stays. Errors: `ENOSPC`, `EFBIG`, `EBADF`, `EOPNOTSUPP` (the file system cannot), `ENOSYS`.
 */
export function allocate(fd: number, offsetBytes: number, lengthBytes: number): void {
  changeStorage(fd, 0, offsetBytes, lengthBytes)
}

/**
 * Gives the storage of the range back: it reads zero, the file's length stays. A mapping of the range must be
 * allocated again before it is written. Errors: `EBADF`, `EOPNOTSUPP` (the file system cannot), `ENOSYS`.
 */
export function punchHole(fd: number, offsetBytes: number, lengthBytes: number): void {
  changeStorage(fd, fallocatePunchHole | fallocateKeepSize, offsetBytes, lengthBytes)
}

/**
 * `allocate` in a thread of libuv's pool: a file system may have to wait for its disk. The descriptor must stay open until
 * the promise settles.
 */
export function allocateInThread(fd: number, offsetBytes: number, lengthBytes: number): Promise<void> {
  return changeStorageInThread(fd, 0, offsetBytes, lengthBytes)
}

/** `punchHole` in a thread of libuv's pool; otherwise as `allocateInThread`. */
export function punchHoleInThread(fd: number, offsetBytes: number, lengthBytes: number): Promise<void> {
  return changeStorageInThread(fd, fallocatePunchHole | fallocateKeepSize, offsetBytes, lengthBytes)
}

async function changeStorageInThread(
  fd: number,
  mode: number,
  offsetBytes: number,
  lengthBytes: number,
): Promise<void> {
  assertRange(fd, offsetBytes, lengthBytes)
  const libc: Libc = libcFor('fallocate')
  const errnoOf = () =>
    new Promise<number>((resolve, reject) => {
      libc.fallocateInThread(fd, mode, offsetBytes, lengthBytes, (failure, result) => {
        if (failure) reject(failure)
        else resolve(result < 0 ? libc.errno() : 0)
      })
    })
  for (let errno = await errnoOf(); errno !== 0; errno = await errnoOf()) {
    if (errno !== interrupted) throw storageError(errno, offsetBytes, lengthBytes)
  }
}

function storageError(errno: number, offsetBytes: number, lengthBytes: number): Error {
  return systemError(errno, 'fallocate', `${lengthBytes} bytes from offset ${offsetBytes}`)
}

function assertRange(fd: number, offsetBytes: number, lengthBytes: number): void {
  assertFd(fd)
  assertBytes(offsetBytes, 'offsetBytes')
  assertBytes(lengthBytes, 'lengthBytes', 1)
  assertBytes(offsetBytes + lengthBytes, 'offsetBytes + lengthBytes')
}

function changeStorage(fd: number, mode: number, offsetBytes: number, lengthBytes: number): void {
  assertRange(fd, offsetBytes, lengthBytes)
  const libc: Libc = libcFor('fallocate')
  while (libc.fallocate(fd, mode, offsetBytes, lengthBytes) < 0) {
    const errno = libc.errno()
    if (errno !== interrupted) throw storageError(errno, offsetBytes, lengthBytes)
  }
}
