import { assertBytes, assertFd } from './checks.ts'
import { type NativeError, systemError } from './errors.ts'
import { type Libc, libcFor } from './libc.ts'

const interrupted = 4

const duplicateCloseOnExec = 1030
const getFlags = 3
const setFlags = 4

/** `O_DIRECT`, which differs between the processors that this package runs on. */
const directFlag = process.arch === 'arm64' ? 0o200000 : 0o40000

/** A second descriptor of what `fd` has open, closed on exec; the caller closes it. Errors: `EBADF`, `EMFILE`, `ENOSYS`. */
export function duplicate(fd: number): number {
  assertFd(fd)
  return call('fcntl', (libc) => libc.fcntl(fd, duplicateCloseOnExec, 3))
}

/** Switches direct I/O on or off for what `fd` has open: every descriptor of the same opening follows. Errors: `EINVAL`, `EBADF`, `ENOSYS`. */
export function setDirect(fd: number, direct: boolean): void {
  assertFd(fd)
  const flags = call('fcntl', (libc) => libc.fcntl(fd, getFlags, 0))
  call('fcntl', (libc) => libc.fcntl(fd, setFlags, direct ? flags | directFlag : flags & ~directFlag))
}

/** What direct I/O needs of a file. */
export interface DirectAlignment {
  /** Whether the kernel tells at all; the other fields are 0 if not. */
  readonly isKnown: boolean
  /** Memory has to lie on, and offsets and lengths have to be, a multiple of this; 0: direct I/O does not work here. */
  readonly memoryBytes: number
  readonly offsetBytes: number
}

const statxDirectAlignment = 0x2000

/** What `fd` needs for direct I/O, as `statx` tells (`STATX_DIOALIGN`; Linux 6.1, some file systems). Errors: `EBADF`, `ENOSYS`. */
export function directAlignment(fd: number): DirectAlignment {
  assertFd(fd)
  const status = new Uint8Array(256)
  call('statx', (libc) => libc.statx(fd, statxDirectAlignment, status))
  const fields = new DataView(status.buffer)
  const isKnown = (fields.getUint32(0, true) & statxDirectAlignment) !== 0
  if (!isKnown) return { isKnown, memoryBytes: 0, offsetBytes: 0 }
  return { isKnown, memoryBytes: fields.getUint32(152, true), offsetBytes: fields.getUint32(156, true) }
}

/** Bytes of the range that are in the page cache, as `cachestat` tells (Linux 6.5). Errors: `EOPNOTSUPP`, `EBADF`, `ENOSYS`. */
export function cachedBytes(fd: number, offsetBytes: number, lengthBytes: number): number {
  assertFd(fd)
  assertBytes(offsetBytes, 'offsetBytes')
  assertBytes(lengthBytes, 'lengthBytes', 1)
  const range = new BigUint64Array([BigInt(offsetBytes), BigInt(lengthBytes)])
  const counters = new BigUint64Array(5)
  const bytesOf = (words: BigUint64Array) => new Uint8Array(words.buffer)
  call('cachestat', (libc) => libc.cachestat(fd, bytesOf(range), bytesOf(counters)))
  return Number(counters[0]) * libcFor('getpagesize').getpagesize()
}

const mapExtents = 0xc020660b
const mapHeaderBytes = 32
const mapEntryBytes = 56

/**
 * Whether the file system can tell where on a device the pages of `fd` lie (FIEMAP): those on disks can, a tmpfs cannot, and an overlay
 * answers as the file system does that it writes to. Errors: `EBADF`, `ENOSYS`.
 */
export function tellsExtents(fd: number): boolean {
  assertFd(fd)
  const map = new Uint8Array(mapHeaderBytes + mapEntryBytes)
  const fields = new DataView(map.buffer)
  fields.setBigUint64(8, 4096n, true)
  fields.setUint32(24, 1, true)
  try {
    call('ioctl', (libc) => libc.ioctl(fd, mapExtents, map))
    return true
  } catch (failure) {
    if ((failure as NativeError).code === 'EBADF') throw failure
    return false
  }
}

const getFileFlags = 0x80086601
const setFileFlags = 0x40086602
const noCopyOnWrite = 0x00800000

/**
 * Has the empty file overwritten in place where its file system else writes every change elsewhere (btrfs); such a file has no
 * checksums of the file system. Errors: `ENOTTY` and `EOPNOTSUPP` (the file system knows no such thing), `EBADF`, `ENOSYS`.
 */
export function overwriteInPlace(fd: number): void {
  assertFd(fd)
  const flags = new Uint32Array(2)
  const bytes = new Uint8Array(flags.buffer)
  call('ioctl', (libc) => libc.ioctl(fd, getFileFlags, bytes))
  flags[0] |= noCopyOnWrite
  call('ioctl', (libc) => libc.ioctl(fd, setFileFlags, bytes))
}

const getDeviceSize = 0x80081272
const getLogicalBlock = 0x1268
const discard = 0x1277

/** Size of a block device and of its logical blocks. Errors: `ENOTTY` (not a block device), `EBADF`, `ENOSYS`. */
export function deviceGeometry(fd: number): { sizeBytes: number; logicalBlockBytes: number } {
  assertFd(fd)
  const size = new BigUint64Array(1)
  call('ioctl', (libc) => libc.ioctl(fd, getDeviceSize, new Uint8Array(size.buffer)))
  const block = new Uint32Array(1)
  call('ioctl', (libc) => libc.ioctl(fd, getLogicalBlock, new Uint8Array(block.buffer)))
  return { sizeBytes: Number(size[0]), logicalBlockBytes: block[0] }
}

/**
 * Tells a block device, in a thread of libuv's pool, that the range holds nothing any more. What is read there afterwards is undefined. The
 * descriptor must stay open until the promise settles. Errors: `EOPNOTSUPP` (the device cannot), `EINVAL` (not on blocks), `ENOSYS`.
 */
export async function discardInThread(fd: number, offsetBytes: number, lengthBytes: number): Promise<void> {
  assertFd(fd)
  assertBytes(offsetBytes, 'offsetBytes')
  assertBytes(lengthBytes, 'lengthBytes', 1)
  const libc = libcFor('ioctl')
  const range = new Uint8Array(new BigUint64Array([BigInt(offsetBytes), BigInt(lengthBytes)]).buffer)
  const errno = await new Promise<number>((resolve, reject) => {
    libc.ioctlInThread(fd, discard, range, (failure, result) => {
      if (failure) reject(failure)
      else resolve(result < 0 ? libc.errno() : 0)
    })
  })
  if (errno !== 0)
    throw systemError(errno, 'ioctl', `discard of ${lengthBytes} bytes from offset ${offsetBytes}`)
}

function call(name: string, work: (libc: Libc) => number): number {
  const libc = libcFor(name)
  for (;;) {
    const result = work(libc)
    if (result >= 0) return result
    if (libc.errno() !== interrupted) throw libc.lastError(name)
  }
}
