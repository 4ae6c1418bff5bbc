import { randomBytes } from 'node:crypto'
import { SpillwayError, systemError } from '@spillway/core'
import { codeOf, type Files } from './file-system.ts'

/** A file that is open for reading and writing, and how to be done with it. */
export interface OpenedFile {
  readonly fileDescriptor: number
  /** Where it is, for errors and statistics. */
  readonly place: string
  /** A path on the same file system, for its free space; `undefined` where none is known. */
  readonly spacePath: string | undefined
  /** Removes, cuts or closes what is ours. Called once. */
  release(): Promise<void>
}

/** Linux's flag for a file without a name; `node:fs` does not list it. */
const tmpFile = 0o20000000
const withoutTmpFile: ReadonlySet<string | undefined> = new Set(['EISDIR', 'EOPNOTSUPP', 'ENOTSUP', 'EINVAL'])

/**
 * A file without a name in `directory`, mode 0600: gone with the process, however that ends. Where the file system has
 * no such files, one is created exclusively and unlinked at once. Errors: `ENOENT`, `EACCES`, `EROFS`, `ENOSPC`, `EMFILE`.
 */
export async function openUnnamed(files: Files, directory: string): Promise<OpenedFile> {
  try {
    const opened = (await openTmpFile(files, directory)) ?? (await openUnlinked(files, directory))
    return {
      fileDescriptor: opened,
      place: `an unnamed file in ${directory}`,
      spacePath: directory,
      release: () => files.close(opened),
    }
  } catch (failure) {
    throw systemError(failure, `no file can be created in directory ${directory}`)
  }
}

async function openTmpFile(files: Files, directory: string): Promise<number | undefined> {
  if (!files.isSystem || process.platform !== 'linux') return undefined
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
 * A file that the caller opened. It stays the caller's: never closed here, and cut back at the end to the length it had.
 * What lies beyond the first 2 MiB is overwritten. `EINVAL` unless it is a regular file, open for reading and
 * writing at any position; `EBADF` when it is not open at all.
 */
export async function openDescriptor(files: Files, fileDescriptor: number): Promise<OpenedFile> {
  const place = `file descriptor ${fileDescriptor}`
  let lengthBytes: number
  try {
    const status = await files.fstat(fileDescriptor)
    if (!status.isFile()) throw new SpillwayError('EINVAL', `${place} is not a regular file`)
    lengthBytes = status.size
  } catch (failure) {
    throw systemError(failure, `${place} cannot be used`)
  }
  await assertReadWrite(files, fileDescriptor, place)
  return {
    fileDescriptor,
    place,
    spacePath: files.isSystem && process.platform === 'linux' ? `/proc/self/fd/${fileDescriptor}` : undefined,
    release: () => files.ftruncate(fileDescriptor, lengthBytes),
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
