import { randomUUID } from 'node:crypto'
import { basename, dirname, resolve } from 'node:path'
import { SpillwayError, systemError } from '@spillway/core'
import { blockDeviceOf, openExclusively } from './block-device.ts'
import { codeOf, type FileStatus, type Files } from './file-system.ts'
import { servedBy } from './file-system-types.ts'
import { headerBytes } from './header-block.ts'
import { holdFile, isSameFile } from './held-files.ts'
import { isStoreHeader } from './images/store-header.ts'
import { inTurn } from './in-turn.ts'
import { dataOffsetBytes, decodeHeader, encodeHeader, type Header } from './layout.ts'
import type { NativeModule } from './native.ts'
import { keepsItsPlace, type OpenedFile, spacePathOf } from './opened-file.ts'
import { ownIdentity, stateOf } from './owner-identity.ts'
import { lockFor } from './owner-lock.ts'

/**
 * Opening a name that one owner at a time may hold:
 *
 *   create, O_EXCL, mode 0700 ──▶ lock ──▶ header says who ──▶ mode 0600 ──▶ ours
 *        │ exists
 *        ▼
 *   a block device ───────────────────────────────▶ opened exclusively, nothing is written to it
 *   a link, not a file, no header, a damaged one ─▶ EEXIST, untouched
 *   of another user ──────────────────────────────▶ EPERM,  untouched
 *   locked ───────────────────────────────────────▶ EBUSY,  untouched, whatever the header says
 *   header of a live owner, or one we cannot see ─▶ EBUSY,  untouched
 *   header of a dead owner ───────────────────────▶ unlinked, created anew
 *   empty and mode 0700: its creator died half way ▶ unlinked, created anew
 *
 * Whoever looks at a file holds its lock meanwhile, and looks again whether the name still means it. Without locks (no native code) the
 * header alone decides, and of two processes that open a dead owner's name at the same moment one may lose the name. A file is removed by
 * unlinking, never by truncating it: should a verdict be wrong all the same, its owner keeps every byte and loses only the name.
 */
const unfinishedMode = 0o700
const attempts = 5

type Native = NativeModule['native']

export async function openNamed(
  files: Files,
  path: string,
  pageSizeBytes: number,
  native: Native,
): Promise<OpenedFile> {
  const name = resolve(path)
  try {
    const target = await files.stat(name).catch(() => undefined)
    if (target?.isBlockDevice?.() === true) return await openDevice(files, name, native)
    const directory = await files.stat(dirname(name))
    const identity = `${files.isSystem} ${directory.dev} ${directory.ino} ${basename(name)}`
    return await inTurn(identity, () => openInTurn(files, name, pageSizeBytes, native))
  } catch (failure) {
    throw systemError(failure, `${name} cannot be opened`)
  }
}

/** A block device: for ourselves alone while it is open, as it is with what we wrote when it is closed. */
async function openDevice(files: Files, path: string, native: Native): Promise<OpenedFile> {
  const fileDescriptor = await openExclusively(files, path, path)
  let letGo: (() => void) | undefined
  try {
    const status = await files.fstat(fileDescriptor)
    letGo = holdFile(files.fileSystem, status, path)
    return {
      fileDescriptor,
      place: path,
      isOwnOpening: true,
      mayReopen: true,
      spacePath: undefined,
      isKept: true,
      device: await blockDeviceOf(files, fileDescriptor, status, native),
      overwritesInPlace: false,
      vanishes: { always: false, reason: 'what was written to a device stays there' },
      release: async () => {
        letGo?.()
        await files.close(fileDescriptor)
      },
    }
  } catch (failure) {
    letGo?.()
    await files.close(fileDescriptor)
    throw failure
  }
}

async function openInTurn(
  files: Files,
  path: string,
  pageSizeBytes: number,
  native: Native,
): Promise<OpenedFile> {
  for (let attempt = 1; ; attempt++) {
    try {
      const created = await create(files, path, pageSizeBytes, native)
      if (created !== undefined) return created
    } catch (failure) {
      if (codeOf(failure) !== 'EEXIST' || attempt === attempts) throw failure
    }
    if (attempt === attempts) throw new SpillwayError('EBUSY', `${path} is being opened by others`)
    await sweep(files, path, native)
  }
}

/** Creates the file; `undefined` when another opener took it for a dead one's before it was locked. */
async function create(
  files: Files,
  path: string,
  pageSizeBytes: number,
  native: Native,
): Promise<OpenedFile | undefined> {
  const flags = files.flag('O_RDWR') | files.flag('O_CREAT') | files.flag('O_EXCL') | files.flag('O_NOFOLLOW')
  const fileDescriptor = await files.open(path, flags, unfinishedMode)
  const created = await files.fstat(fileDescriptor)
  let letGo: (() => void) | undefined
  try {
    const lock = lockFor(fileDescriptor, native)
    if (lock === 'refused' || !(await stillMeans(files, path, created))) {
      await files.close(fileDescriptor)
      return undefined
    }
    const overwritesInPlace = keepsItsPlace(fileDescriptor, files, native)
    const owner = ownIdentity()
    const isLocked = lock === 'held'
    const header = { instance: randomUUID(), pageSizeBytes, dataOffsetBytes, owner, isLocked }
    const written = await files.write(fileDescriptor, encodeHeader(header), 0)
    if (written < headerBytes)
      throw new SpillwayError('ENOSPC', `there is no space for the header of ${path}`)
    await files.fchmod(fileDescriptor, 0o600)
    const status = await files.fstat(fileDescriptor)
    letGo = holdFile(files.fileSystem, status, path)
    return {
      fileDescriptor,
      place: path,
      isOwnOpening: true,
      mayReopen: true,
      spacePath: spacePathOf(files, fileDescriptor, dirname(path)),
      isKept: false,
      device: undefined,
      overwritesInPlace,
      vanishes: {
        always: false,
        reason: 'the name is removed at close, and after a crash by the next to open it',
      },
      release: async () => {
        letGo?.()
        try {
          await unlinkIfSame(files, path, status)
        } finally {
          await files.close(fileDescriptor)
        }
      },
    }
  } catch (failure) {
    letGo?.()
    await unlinkIfSame(files, path, created).catch(() => {})
    await files.close(fileDescriptor)
    throw failure
  }
}

/** `EEXIST` for a name that is taken by what is neither a file nor a device. */
function notRegular(path: string, status: FileStatus): SpillwayError {
  const hint = status.isDirectory() ? '; it is a directory, which the option directory takes' : ''
  return new SpillwayError('EEXIST', `${path} exists and is not a regular file${hint}`)
}

async function stillMeans(files: Files, path: string, status: FileStatus): Promise<boolean> {
  try {
    return isSameFile(await files.lstat(path), status)
  } catch (failure) {
    if (codeOf(failure) === 'ENOENT') return false
    throw failure
  }
}

/** Removes the name when it still means this file. */
async function unlinkIfSame(files: Files, path: string, status: FileStatus): Promise<void> {
  if (!(await stillMeans(files, path, status))) return
  await files.unlink(path).catch((failure: unknown) => {
    if (codeOf(failure) !== 'ENOENT') throw failure
  })
}

/** Removes what a dead owner left under this name, or says why not. */
async function sweep(files: Files, path: string, native: Native): Promise<void> {
  let status: FileStatus
  try {
    status = await files.lstat(path)
  } catch (failure) {
    if (codeOf(failure) === 'ENOENT') return
    throw failure
  }
  if (status.isSymbolicLink())
    throw new SpillwayError('EEXIST', `${path} is a symbolic link, which is not followed`)
  if (!status.isFile()) throw notRegular(path, status)
  const user = process.geteuid?.()
  if (user !== undefined && status.uid !== user) {
    throw new SpillwayError(
      'EPERM',
      `${path} belongs to user ${status.uid}, and this process is user ${user}`,
    )
  }
  const access = native === undefined ? files.flag('O_RDONLY') : files.flag('O_RDWR')
  const flags = access | files.flag('O_NOFOLLOW') | files.flag('O_NONBLOCK')
  const fileDescriptor = await files.open(path, flags).catch((failure: unknown) => {
    // Its owner removed it meanwhile.
    if (codeOf(failure) === 'ENOENT') return undefined
    throw failure
  })
  if (fileDescriptor === undefined) return
  try {
    if (!isSameFile(await files.fstat(fileDescriptor), status)) return
    const lock = lockFor(fileDescriptor, native)
    if (!(await stillMeans(files, path, status))) return
    await assertOwnerDead(files, { path, fileDescriptor, status, lock })
    await unlinkIfSame(files, path, status)
  } finally {
    await files.close(fileDescriptor)
  }
}

/** A file that somebody left or has under a name, open for looking. */
interface FoundFile {
  readonly path: string
  readonly fileDescriptor: number
  readonly status: FileStatus
  readonly lock: ReturnType<typeof lockFor>
}

async function assertOwnerDead(files: Files, found: FoundFile): Promise<void> {
  const { path, fileDescriptor, status, lock } = found
  const block = new Uint8Array(headerBytes)
  await files.read(fileDescriptor, block, 0)
  const header = decodeHeader(block)
  if (lock === 'refused') {
    if (typeof header === 'object') throw heldBy(header.owner.processId, path)
    const who = 'somebody, whose header is damaged or not written yet'
    throw new SpillwayError('EBUSY', `${path} is held by ${who}`)
  }
  const isUnfinished = status.size === 0 && (status.mode & 0o777) === unfinishedMode
  if (isUnfinished) return
  if (header === 'damaged') {
    throw new SpillwayError(
      'EEXIST',
      `${path} begins like a backup file, but its header is damaged or of another version, so that nothing tells whose it is; remove it if nobody uses it`,
    )
  }
  if (header === undefined && isStoreHeader(block)) {
    throw new SpillwayError('EEXIST', `${path} is a persistent backup file; open it with persistent: true`)
  }
  if (header === undefined) {
    throw new SpillwayError('EEXIST', `${path} exists and is not a backup file; it was left as it is`)
  }
  const space = spacePathOf(files, fileDescriptor, dirname(path))
  const server = servedBy((await files.statfs(space).catch(() => undefined))?.type)
  const state = ownerState(header, lock === 'held', server !== undefined)
  const { processId, machine } = header.owner
  if (state === 'live') throw heldBy(processId, path)
  if (state === 'unknown') {
    throw new SpillwayError(
      'EBUSY',
      `${path} was opened by process ${processId} of another container or machine (${machine.trim()}), which may be ` +
        'alive; remove the file if it is not',
    )
  }
}

function heldBy(processId: number, path: string): SpillwayError {
  const isOwn = processId === process.pid
  const who = isOwn
    ? 'another backup of this process; share that one with shareBackup'
    : `process ${processId}`
  return new SpillwayError('EBUSY', `${path} is held by ${who}`)
}

/** A lock that its owner took and we have now is no longer his; on a served file system only if both are of one machine. */
function ownerState(header: Header, isLockOurs: boolean, isServed: boolean): ReturnType<typeof stateOf> {
  const self = ownIdentity()
  const isLocal = !isServed || header.owner.machine === self.machine
  return header.isLocked && isLockOurs && isLocal ? 'dead' : stateOf(header.owner, self)
}
