import { createHash, randomUUID } from 'node:crypto'
import { basename, dirname, resolve } from 'node:path'
import { SpillwayError, systemError } from '@spillway/core'
import { codeOf, type FileStatus, type Files } from './file-system.ts'
import { dataOffsetBytes, decodeHeader, encodeHeader, headerBytes } from './layout.ts'
import { withOpenLock } from './open-lock.ts'
import type { OpenedFile } from './opened-file.ts'
import { ownIdentity, stateOf } from './owner-identity.ts'

/**
 * Opening a name that one owner at a time may hold:
 *
 *   create, O_EXCL, mode 0700 ──▶ header says who ──▶ mode 0600 ──▶ ours
 *        │ exists
 *        ▼
 *   a link, not a file, no header ────────────────▶ EEXIST, untouched
 *   of another user ──────────────────────────────▶ EPERM,  untouched
 *   header of a live owner, or one we cannot see ─▶ EBUSY,  untouched
 *   header of a dead owner ───────────────────────▶ unlinked, created anew
 *   empty and mode 0700: its creator died half way ▶ unlinked, created anew
 *
 * All of it under the open lock. A file is removed by unlinking, never by truncating it: should a verdict be wrong all the
 * same, its owner keeps every byte and loses only the name.
 */
const unfinishedMode = 0o700
const attempts = 3

export async function openNamed(files: Files, path: string, pageSizeBytes: number): Promise<OpenedFile> {
  const name = resolve(path)
  try {
    const directory = await files.stat(dirname(name))
    const identity = `${files.isSystem} ${directory.dev} ${directory.ino} ${basename(name)}`
    const lockName = createHash('sha256').update(identity).digest('hex').slice(0, 40)
    return await withOpenLock(lockName, () => openLocked(files, name, pageSizeBytes))
  } catch (failure) {
    throw systemError(failure, `${name} cannot be opened`)
  }
}

async function openLocked(files: Files, path: string, pageSizeBytes: number): Promise<OpenedFile> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await create(files, path, pageSizeBytes)
    } catch (failure) {
      if (codeOf(failure) !== 'EEXIST' || attempt === attempts) throw failure
    }
    await sweep(files, path)
  }
}

async function create(files: Files, path: string, pageSizeBytes: number): Promise<OpenedFile> {
  const flags = files.flag('O_RDWR') | files.flag('O_CREAT') | files.flag('O_EXCL') | files.flag('O_NOFOLLOW')
  const fileDescriptor = await files.open(path, flags, unfinishedMode)
  try {
    const header = { instance: randomUUID(), pageSizeBytes, dataOffsetBytes, owner: ownIdentity() }
    const written = await files.write(fileDescriptor, encodeHeader(header), 0)
    if (written < headerBytes)
      throw new SpillwayError('ENOSPC', `there is no space for the header of ${path}`)
    await files.fchmod(fileDescriptor, 0o600)
    const status = await files.fstat(fileDescriptor)
    return {
      fileDescriptor,
      place: path,
      spacePath: dirname(path),
      release: async () => {
        await unlinkIfSame(files, path, status)
        await files.close(fileDescriptor)
      },
    }
  } catch (failure) {
    await files.unlink(path).catch(() => {})
    await files.close(fileDescriptor)
    throw failure
  }
}

/** Removes the name when it still means this file. */
async function unlinkIfSame(files: Files, path: string, status: FileStatus): Promise<void> {
  try {
    const found = await files.lstat(path)
    if (found.ino === status.ino && found.dev === status.dev) await files.unlink(path)
  } catch (failure) {
    if (codeOf(failure) !== 'ENOENT') throw failure
  }
}

/** Removes what a dead owner left under this name, or says why not. */
async function sweep(files: Files, path: string): Promise<void> {
  let status: FileStatus
  try {
    status = await files.lstat(path)
  } catch (failure) {
    if (codeOf(failure) === 'ENOENT') return
    throw failure
  }
  if (status.isSymbolicLink())
    throw new SpillwayError('EEXIST', `${path} is a symbolic link, which is not followed`)
  if (!status.isFile()) throw new SpillwayError('EEXIST', `${path} exists and is not a regular file`)
  const user = process.geteuid?.()
  if (user !== undefined && status.uid !== user) {
    throw new SpillwayError(
      'EPERM',
      `${path} belongs to user ${status.uid}, and this process is user ${user}`,
    )
  }
  const unfinished = status.size === 0 && (status.mode & 0o777) === unfinishedMode
  if (!unfinished) await assertOwnerDead(files, path)
  await unlinkIfSame(files, path, status)
}

async function assertOwnerDead(files: Files, path: string): Promise<void> {
  const flags = files.flag('O_RDONLY') | files.flag('O_NOFOLLOW') | files.flag('O_NONBLOCK')
  const block = new Uint8Array(headerBytes)
  const fileDescriptor = await files.open(path, flags)
  try {
    await files.read(fileDescriptor, block, 0)
  } finally {
    await files.close(fileDescriptor)
  }
  const header = decodeHeader(block)
  if (header === undefined) {
    throw new SpillwayError('EEXIST', `${path} exists and is not a backup file; it was left as it is`)
  }
  const { processId, machine } = header.owner
  const state = stateOf(header.owner)
  if (state === 'live') throw new SpillwayError('EBUSY', `${path} is held by process ${processId}`)
  if (state === 'unknown') {
    throw new SpillwayError(
      'EBUSY',
      `${path} was opened by process ${processId} of another container or machine (${machine.trim()}), which may be ` +
        'alive; remove the file if it is not',
    )
  }
}
