import {
  assertByteCount,
  assertKnownOptions,
  assertPageSize,
  type SystemMemoryDirectories,
} from '@spillway/core'
import { assertSharedName } from './shared/names.ts'

export interface ShmemBackupOptions {
  /** Most bytes it holds: a multiple of the page size. Memory is taken only as pages are stored. */
  readonly capacityBytes: number
  /** Size of every page in bytes: a power of two from 4 KiB to 2 MiB. @default 4096 */
  readonly pageSizeBytes?: number | undefined
  /**
   * Memory of dropped pages that is kept for the next ones, because the first touch of new memory costs ten times a
   * copy. What is above it goes back to the system. @default 64 MiB: a handful of batches each way
   */
  readonly warmBytes?: number | undefined
  /**
   * Memory that is left to everybody else: at the machine, and in each control group above this process. Beyond that,
   * storing is `ENOSPC`; without it, the next allocation of anybody in a full group would be the end of a process.
   * @default 5 % of the limit of the machine or group, 32 MiB at least
   */
  readonly keepFreeBytes?: number | undefined
  /**
   * `'memfd'`: memory without a name, mapped; needs native code. `'tmpfs'`: unnamed files in `directory`, through
   * `node:fs`. `'auto'`: the first that works; `stats()` tells which and why. @default 'auto'
   */
  readonly medium?: 'auto' | 'memfd' | 'tmpfs' | undefined
  /** Lets other processes of the same user attach with `attachShmemBackup({ name })`. @default not shared */
  readonly shared?: { readonly name: string } | undefined
  /** A directory on a tmpfs, for everything that is no memfd. @default '/dev/shm' */
  readonly directory?: string | undefined
  /** Names it in errors and statistics. @default 'shmem' */
  readonly name?: string | undefined
  /** Where the system tells about its memory; for tests and unusual mounts. */
  readonly system?: SystemMemoryDirectories | undefined
}

/** Options with every default filled in. */
export interface ShmemSettings {
  readonly capacityBytes: number
  readonly pageSizeBytes: number
  readonly warmBytes: number
  readonly keepFreeBytes: number | undefined
  readonly medium: 'auto' | 'memfd' | 'tmpfs'
  readonly sharedName: string | undefined
  readonly directory: string
  readonly name: string
  readonly system: SystemMemoryDirectories
}

const knownOptions = [
  'capacityBytes',
  'pageSizeBytes',
  'warmBytes',
  'keepFreeBytes',
  'medium',
  'shared',
  'directory',
  'name',
  'system',
]
const media = ['auto', 'memfd', 'tmpfs']
const defaultWarmBytes = 64 * 1024 ** 2
/** A file of 8 EiB less one table: more cannot be addressed exactly. */
const maxCapacityBytes = 2 ** 50

/** Throws `TypeError` or `RangeError` that names the bad value and says what would be right. */
export function settingsOf(options: ShmemBackupOptions): ShmemSettings {
  assertObject(options, 'openShmemBackup needs options')
  assertKnownOptions(options, knownOptions, 'openShmemBackup')
  const { capacityBytes, pageSizeBytes = 4096, medium = 'auto', shared, system = {} } = options
  const { directory = '/dev/shm', name = 'shmem', warmBytes = defaultWarmBytes, keepFreeBytes } = options
  assertPageSize(pageSizeBytes)
  assertByteCount(capacityBytes, 'capacityBytes')
  assertByteCount(warmBytes, 'warmBytes')
  if (keepFreeBytes !== undefined) assertByteCount(keepFreeBytes, 'keepFreeBytes')
  if (
    capacityBytes < pageSizeBytes ||
    capacityBytes % pageSizeBytes !== 0 ||
    capacityBytes > maxCapacityBytes
  ) {
    throw new RangeError(
      `capacityBytes is ${capacityBytes}; it must be a multiple of the page size of ${pageSizeBytes}, at most 2^50`,
    )
  }
  if (!media.includes(medium)) {
    throw new RangeError(`medium is ${String(medium)}; it must be one of ${media.join(', ')}`)
  }
  assertDirectory(directory)
  assertName(name)
  assertObject(system, `system is ${String(system)}; it must be an object`)
  assertKnownOptions(system, ['procDirectory', 'cgroupDirectory'], 'system')
  for (const key of ['procDirectory', 'cgroupDirectory'] as const) {
    if (system[key] !== undefined && typeof system[key] !== 'string') {
      throw new TypeError(`system.${key} is ${String(system[key])}; it must be a path`)
    }
  }
  if (shared !== undefined) {
    assertObject(shared, `shared is ${String(shared)}; it must be { name }`)
    assertKnownOptions(shared, ['name'], 'shared')
    assertSharedName(shared.name, 'shared.name')
    if (medium === 'memfd') {
      throw new RangeError("medium is memfd, which has no name; a shared backup needs 'auto' or 'tmpfs'")
    }
  }
  return {
    capacityBytes,
    pageSizeBytes,
    warmBytes: Math.min(warmBytes, capacityBytes),
    keepFreeBytes,
    medium,
    sharedName: shared?.name,
    directory,
    name,
    system,
  }
}

/** Throws `TypeError` with `message` unless `value` is an object. */
export function assertObject(value: unknown, message: string): void {
  if (typeof value !== 'object' || value === null) throw new TypeError(message)
}

export function assertDirectory(directory: unknown): void {
  if (typeof directory !== 'string' || directory === '' || directory.includes('\0')) {
    throw new TypeError(`directory is ${String(directory)}; it must be the path of a directory on a tmpfs`)
  }
}

function assertName(name: unknown): void {
  if (typeof name !== 'string' || name === '' || name.length > 200 || name.includes('\0')) {
    throw new TypeError(`name is ${String(name)}; it must be a string of 1 to 200 characters`)
  }
}
