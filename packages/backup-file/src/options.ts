import type { FileHandle } from 'node:fs/promises'
import { assertByteCount, assertKnownOptions, assertPageSize } from '@spillway/core'
import type { EngineName } from './engine.ts'
import type { FileSystem } from './file-system.ts'

export interface FileBackupOptions {
  /**
   * A file with a name: created exclusively with mode 0600, never through a symbolic link, held by one owner at a
   * time and removed at close. What a dead owner left under the name is swept. Or a block device, also by a link: opened
   * exclusively, overwritten beyond its first 2 MiB.
   */
  readonly path?: string | undefined
  /** A directory for a file without a name, which cannot be left behind. */
  readonly directory?: string | undefined
  /**
   * A regular file or block device that is open for reading and writing. It stays yours and is not closed here; you may close it, the
   * backup works on a descriptor of its own (without native code and /proc: on yours). What it holds beyond its first 2 MiB is
   * overwritten, and at close a file is cut back to the length it had.
   */
  readonly fd?: number | FileHandle | undefined
  /**
   * Whether the file at `path` stays when it is closed, and can hold images (`images`): buffers that outlive the process. Pages that no
   * image names are gone when it is opened again. Needs @spillway/native, for its locks. @default false
   */
  readonly persistent?: boolean | undefined
  /**
   * How long opening `path` waits, in milliseconds, for another who has it: the kernel lets go of the file of a process that was killed only
   * when its last request is over. @default 1000
   */
  readonly ownerWaitMs?: number | undefined
  /** Most bytes of pages it holds; a persistent file keeps what it was made with. @default the size of the file system, 1 TiB at most */
  readonly capacityBytes?: number | undefined
  /**
   * Free space of the file system that is left for others. A file in a tmpfs leaves 5 % of the memory that the process may use besides, 32 MiB
   * at least. @default 5 % of its size
   */
  readonly keepFreeBytes?: number | undefined
  /** Size of every page in bytes: a power of two from 4 KiB to 2 MiB. @default 4096 */
  readonly pageSizeBytes?: number | undefined
  /** Space of dropped pages that is kept for the next ones; what is beyond goes back to the file system. @default 64 MiB */
  readonly warmBytes?: number | undefined
  /** What moves the bytes: `'uring'` needs @spillway/native and Linux. `'auto'` takes the first that works. @default 'auto' */
  readonly io?: 'auto' | EngineName | undefined
  /** Whether pages bypass the page cache. `true` insists; `'auto'` does where it works. @default 'auto' */
  readonly direct?: 'auto' | boolean | undefined
  /** Whether each page has a checksum that is checked when it is read. @default true */
  readonly checksums?: boolean | undefined
  /** Stands in for `node:fs`. Then there is only the threads engine and no direct I/O. @default node:fs */
  readonly fs?: FileSystem | undefined
  /** Names it in errors and statistics. @default 'file' */
  readonly name?: string | undefined
  /** Ends an opening that goes on, with `EINTR`, and nothing later. */
  readonly signal?: AbortSignal | undefined
}

const known = [
  'path',
  'directory',
  'fd',
  'persistent',
  'ownerWaitMs',
  'capacityBytes',
  'keepFreeBytes',
  'pageSizeBytes',
  'warmBytes',
  'io',
  'direct',
  'checksums',
  'fs',
  'name',
  'signal',
] as const

/** Throws `TypeError` or `RangeError` for options that cannot be meant. */
export function assertOptions(options: FileBackupOptions): void {
  if (typeof options !== 'object' || options === null) {
    const given = typeof options === 'string' ? JSON.stringify(options) : String(options)
    throw new TypeError(
      `openFileBackup takes an object of options, such as { directory: '/var/tmp' }; it was given ${given}`,
    )
  }
  assertKnownOptions(options, known, 'openFileBackup')
  assertPlace(options)
  const { capacityBytes, keepFreeBytes, warmBytes, pageSizeBytes = 4096 } = options
  assertPageSize(pageSizeBytes)
  if (capacityBytes !== undefined) assertByteCount(capacityBytes, 'capacityBytes')
  if (keepFreeBytes !== undefined) assertByteCount(keepFreeBytes, 'keepFreeBytes')
  if (warmBytes !== undefined) assertByteCount(warmBytes, 'warmBytes')
  if (capacityBytes !== undefined && capacityBytes < pageSizeBytes) {
    throw new RangeError(`capacityBytes is ${capacityBytes}; it must hold a page of ${pageSizeBytes}`)
  }
  assertOneOf(options.io, ['auto', 'uring', 'threads'], 'io')
  assertOneOf(options.direct, ['auto', true, false], 'direct')
  assertOneOf(options.checksums, [true, false], 'checksums')
  assertOneOf(options.persistent, [true, false], 'persistent')
  if (options.persistent === true) assertPersistent(options)
  assertWait(options)
  if (options.name !== undefined && (typeof options.name !== 'string' || options.name === '')) {
    throw new TypeError(`name is ${String(options.name)}; it must be a string that is not empty`)
  }
  assertInjected(options)
}

function assertPersistent({ path, checksums }: FileBackupOptions): void {
  if (path === undefined)
    throw new TypeError('persistent is true, which needs a path to be found under again')
  if (checksums === false) {
    throw new TypeError('checksums is false: a page that never reached the disk would be served as data')
  }
}

function assertWait({ path, ownerWaitMs, signal }: FileBackupOptions): void {
  if (ownerWaitMs !== undefined) {
    if (path === undefined) throw new TypeError('ownerWaitMs is given, and no path that another could have')
    if (typeof ownerWaitMs !== 'number' || !(ownerWaitMs >= 0)) {
      throw new RangeError(
        `ownerWaitMs is ${String(ownerWaitMs)}; it must be a number of milliseconds, 0 or more`,
      )
    }
  }
  if (signal !== undefined && !(signal instanceof AbortSignal)) {
    throw new TypeError(`signal is ${String(signal)}; it must be an AbortSignal`)
  }
}

function assertPlace({ path, directory, fd }: FileBackupOptions): void {
  const given = [path, directory, fd].filter((value) => value !== undefined).length
  if (given !== 1) {
    throw new TypeError(`${given} of path, directory and fd are given; exactly one says where the pages go`)
  }
  for (const [value, name] of [
    [path, 'path'],
    [directory, 'directory'],
  ]) {
    if (value === undefined) continue
    if (typeof value !== 'string' || value === '' || value.includes('\0')) {
      throw new TypeError(`${name} is ${JSON.stringify(value)}; it must be a path`)
    }
  }
  if (fd === undefined) return
  const number = descriptorOf(fd)
  if (!Number.isInteger(number) || number < 0 || number > 2 ** 31 - 1) {
    throw new TypeError(`fd is ${String(number)}; it must be an open file descriptor or FileHandle`)
  }
}

/** What `fd` may be. */
export type GivenDescriptor = number | FileHandle

/** The number of a descriptor or FileHandle; −1 for a closed handle. */
export function descriptorOf(fd: GivenDescriptor): number {
  return typeof fd === 'number' ? fd : fd?.fd
}

function assertOneOf(value: unknown, allowed: readonly unknown[], name: string): void {
  if (value === undefined || allowed.includes(value)) return
  const choices = allowed.map((choice) => (typeof choice === 'string' ? `'${choice}'` : String(choice)))
  throw new TypeError(`${name} is ${String(value)}; it must be ${choices.join(', ')}`)
}

function assertInjected({ fs, io, direct }: FileBackupOptions): void {
  if (fs === undefined) return
  if (
    typeof fs !== 'object' ||
    fs === null ||
    typeof fs.open !== 'function' ||
    typeof fs.read !== 'function'
  ) {
    throw new TypeError('fs must have the callback functions of node:fs')
  }
  if (io === 'uring') throw new TypeError("io is 'uring', which does not go through the fs that was given")
  if (direct === true) throw new TypeError('direct is true, which the fs that was given cannot do')
}
