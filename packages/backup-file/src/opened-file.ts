import { randomBytes } from 'node:crypto'
import { resolve } from 'node:path'
import { SpillwayError, systemError } from '@spillway/core'
import { type BlockDevice, blockDeviceOf, openExclusively } from './block-device.ts'
import { codeOf, type FileStatus, type Files } from './file-system.ts'
import { servedBy } from './file-system-types.ts'
import { holdFile, isSameFile } from './held-files.ts'
import type { NativeModule } from './native.ts'
import { descriptorOf, type GivenDescriptor } from './options.ts'

/** A file that is open for reading and writing, and how to be done with it. */
export interface OpenedFile {
  readonly fileDescriptor: number
  /** Where it is, for errors and statistics. */
  readonly place: string
  /** Nobody else has a descriptor of this opening, so its flags may be changed. */
  readonly isOwnOpening: boolean
  /** Whether it may be opened once more: some file systems bring a removed file back when that is closed. */
  readonly mayReopen: boolean
  /** What is asked for the free space of its file system; `undefined` where nothing tells. */
  readonly spacePath: string | undefined
  /** Whether it stays when it is closed: as the caller's, as long as it was, or as a store of images. */
  readonly isKept: boolean
  readonly device: BlockDevice | undefined
  /** Set where the file system would write changes elsewhere, and was told not to. */
  readonly overwritesInPlace: boolean
  /** Whether nothing of it is left when the process ends, however that happens, and why. */
  readonly vanishes: { readonly always: boolean; readonly reason: string }
  /** Removes, cuts or closes what is ours. Called once. */
  release(): Promise<void>
}

type Native = NativeModule['native']

/** Linux's flag for a file without a name; `node:fs` does not list it. */
const tmpFile = 0o20000000
const withoutTmpFile: ReadonlySet<string | undefined> = new Set(['EISDIR', 'EOPNOTSUPP', 'ENOTSUP', 'EINVAL'])

/**
 * A file without a name in `directory`, mode 0600: gone with the process, however that ends. Where the file system has
 * no such files, one is created exclusively and unlinked at once. Errors: `ENOENT`, `EACCES`, `EROFS`, `ENOSPC`, `EMFILE`.
 */
export async function openUnnamed(files: Files, directory: string, native: Native): Promise<OpenedFile> {
  try {
    const withoutName = await openTmpFile(files, directory)
    const opened = withoutName ?? (await openUnlinked(files, directory))
    const place = `an unnamed file in ${directory}`
    const space = spacePathOf(files, opened, directory)
    const server = servedBy((await files.statfs(space).catch(() => undefined))?.type)
    const vanishes = vanishing(withoutName !== undefined, server)
    if (!vanishes.always) warnThatItMayStay(directory, vanishes.reason)
    return {
      fileDescriptor: opened,
      place,
      isOwnOpening: true,
      mayReopen: server === undefined,
      spacePath: space,
      isKept: false,
      device: undefined,
      overwritesInPlace: keepsItsPlace(opened, files, native),
      vanishes,
      release: () => files.close(opened),
    }
  } catch (failure) {
    throw systemError(failure, `no file can be created in directory ${directory}`)
  }
}

function vanishing(neverHadName: boolean, server: string | undefined): OpenedFile['vanishes'] {
  if (neverHadName) return { always: true, reason: 'the file never had a name' }
  if (server === undefined) return { always: true, reason: 'the name was removed at once' }
  const reason =
    `the name was removed at once, but ${server} is served by another program or machine, which may keep the file under a ` +
    'name of its own until it is closed, and longer when this machine stops'
  return { always: false, reason }
}

const warnedDirectories = new Set<string>()

/** Once for each directory: scratch files hold what the application keeps in memory. */
function warnThatItMayStay(directory: string, reason: string): void {
  if (warnedDirectories.has(directory)) return
  warnedDirectories.add(directory)
  process.emitWarning(`a scratch file in ${directory} may outlive this process: ${reason}`, {
    type: 'SpillwayWarning',
    code: 'SPILLWAY_SCRATCH_MAY_STAY',
  })
}

/** Has the file overwritten in place where that has to be asked for (btrfs). Whoever cannot is asked for nothing. */
export function keepsItsPlace(fileDescriptor: number, files: Files, native: Native): boolean {
  if (native === undefined || !files.isSystem) return false
  try {
    native.overwriteInPlace(fileDescriptor)
    return true
  } catch {
    return false
  }
}

/** Leads to the open file itself where the system has such a path: the directory may be removed or mean another later. */
export function spacePathOf(files: Files, fileDescriptor: number, path: string): string {
  if (!files.isSystem) return path
  return process.platform === 'linux' ? `/proc/self/fd/${fileDescriptor}` : resolve(path)
}

async function openTmpFile(files: Files, directory: string): Promise<number | undefined> {
  try {
    return await files.open(directory, tmpFile | files.flag('O_DIRECTORY') | files.flag('O_RDWR'), 0o600)
  } catch (failure) {
    if (withoutTmpFile.has(codeOf(failure))) return undefined
    throw failure
  }
}

async function openUnlinked(files: Files, directory: string): Promise<number> {
  const path = `${directory}/.spillway-${randomBytes(12).toString('hex')}`
  const flags = files.flag('O_RDWR') | files.flag('O_CREAT') | files.flag('O_EXCL') | files.flag('O_NOFOLLOW')
  const fileDescriptor = await files.open(path, flags, 0o600)
  try {
    await files.unlink(path)
    return fileDescriptor
  } catch (failure) {
    await files.close(fileDescriptor)
    throw failure
  }
}

/**
 * A file or block device that the caller opened. What was given is kept, so that a FileHandle is not collected; the backup works on a
 * descriptor of its own, so that closing the other does not matter. At the end a file is cut back to the length it had, once it is sure that it is
 * still the same one. What lies beyond the first 2 MiB is overwritten. `EINVAL` unless it is a regular file or block device, open for reading
 * and writing at any position; `EBADF` when it is not open at all; `EBUSY` when another backup is in it, or a device is mounted.
 */
export async function openDescriptor(
  files: Files,
  given: GivenDescriptor,
  native: Native,
): Promise<OpenedFile> {
  const number = descriptorOf(given)
  const place = `file descriptor ${number}`
  // Before anything is waited for, so that it is the file that the caller means now.
  const own = duplicateOf(number, files, native)
  let fileDescriptor = own ?? number
  let isOwn = own !== undefined
  let letGo: (() => void) | undefined
  try {
    const status = await files.fstat(fileDescriptor)
    const isDevice = status.isBlockDevice?.() === true
    if (!status.isFile() && !isDevice) {
      throw new SpillwayError('EINVAL', `${place} is neither a regular file nor a block device`)
    }
    const device = isDevice ? await blockDeviceOf(files, fileDescriptor, status, native) : undefined
    await assertReadWrite(files, fileDescriptor, place)
    letGo = holdFile(files.fileSystem, status, place)
    const space =
      files.isSystem && process.platform === 'linux' ? `/proc/self/fd/${fileDescriptor}` : undefined
    const type = space === undefined ? undefined : (await files.statfs(space).catch(() => undefined))?.type
    const mayReopen = !(servedBy(type) !== undefined && status.nlink === 0)
    if (isDevice || (!isOwn && mayReopen)) {
      const reopened = await reopen(files, fileDescriptor, status, isDevice)
      if (reopened !== undefined) {
        if (isOwn) await files.close(fileDescriptor)
        fileDescriptor = reopened
        isOwn = true
      }
    }
    return {
      fileDescriptor,
      place,
      isOwnOpening: isDevice,
      mayReopen,
      spacePath: space === undefined ? undefined : `/proc/self/fd/${fileDescriptor}`,
      isKept: true,
      device,
      overwritesInPlace: false,
      vanishes: { always: false, reason: 'the file is the caller’s' },
      release: () => releaseDescriptor({ files, given, fileDescriptor, isOwn, status, letGo: letGo! }),
    }
  } catch (failure) {
    letGo?.()
    if (isOwn) await files.close(fileDescriptor).catch(() => {})
    throw systemError(failure, `${place} cannot be used`)
  }
}

/** A descriptor of the same opening, at once; `undefined` where that needs native code that is not there. */
function duplicateOf(fileDescriptor: number, files: Files, native: Native): number | undefined {
  if (native === undefined || !files.isSystem) return undefined
  try {
    return native.duplicate(fileDescriptor)
  } catch (failure) {
    throw systemError(failure, `file descriptor ${fileDescriptor} cannot be used`)
  }
}

/** Another opening of the same file; `undefined` where the system has none to give. A device is opened for ourselves alone. */
async function reopen(
  files: Files,
  fileDescriptor: number,
  status: FileStatus,
  isDevice: boolean,
): Promise<number | undefined> {
  if (isDevice)
    return openExclusively(files, `/proc/self/fd/${fileDescriptor}`, `file descriptor ${fileDescriptor}`)
  if (!files.isSystem || process.platform !== 'linux') return undefined
  let opened: number
  try {
    opened = await files.open(`/proc/self/fd/${fileDescriptor}`, files.flag('O_RDWR'))
  } catch {
    // Without /proc, or without the right to open it again, what was given has to do.
    return undefined
  }
  if (isSameFile(await files.fstat(opened), status)) return opened
  await files.close(opened)
  throw new SpillwayError('EBADF', `file descriptor ${fileDescriptor} was closed while it was opened here`)
}

async function releaseDescriptor(held: {
  files: Files
  given: GivenDescriptor
  fileDescriptor: number
  isOwn: boolean
  status: FileStatus
  letGo: () => void
}): Promise<void> {
  const { files, given, isOwn, status, letGo } = held
  const fileDescriptor = isOwn ? held.fileDescriptor : descriptorOf(given)
  try {
    // Without a descriptor of our own the number may mean another file by now, which must not be cut.
    const found = await files.fstat(fileDescriptor).catch(() => undefined)
    if (status.isFile() && found !== undefined && isSameFile(found, status)) {
      await files.ftruncate(fileDescriptor, status.size)
    }
  } finally {
    letGo()
    if (isOwn) await files.close(fileDescriptor)
  }
}

/** Reading and writing nothing tells whether both are allowed, and moves nothing. */
async function assertReadWrite(files: Files, fileDescriptor: number, place: string): Promise<void> {
  const nothing = new Uint8Array(0)
  try {
    await files.write(fileDescriptor, nothing, 0)
    await files.read(fileDescriptor, nothing, 0)
  } catch (failure) {
    throw new SpillwayError('EINVAL', `${place} is not open for both reading and writing`, { cause: failure })
  }
  if (!files.isSystem || process.platform !== 'linux') return
  const flags = await descriptorFlags(files, fileDescriptor)
  // A file opened for appending ignores where a write should go.
  if ((flags & files.flag('O_APPEND')) !== 0) {
    throw new SpillwayError('EINVAL', `${place} is open for appending; open it with 'r+' or 'w+'`)
  }
  if ((flags & 3) !== files.flag('O_RDWR')) {
    throw new SpillwayError('EINVAL', `${place} is not open for both reading and writing`)
  }
}

/** The flags a descriptor was opened with, as /proc tells them; reading and writing when it does not. */
async function descriptorFlags(files: Files, fileDescriptor: number): Promise<number> {
  const information = new Uint8Array(512)
  try {
    const opened = await files.open(`/proc/self/fdinfo/${fileDescriptor}`, files.flag('O_RDONLY'))
    try {
      await files.read(opened, information, 0)
    } finally {
      await files.close(opened)
    }
  } catch {
    return files.flag('O_RDWR')
  }
  const flags = /flags:\s+([0-7]+)/.exec(new TextDecoder().decode(information))?.[1]
  return flags === undefined ? files.flag('O_RDWR') : Number.parseInt(flags, 8)
}
