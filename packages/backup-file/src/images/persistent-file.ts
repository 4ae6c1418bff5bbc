import { randomBytes, randomUUID } from 'node:crypto'
import { basename, dirname, resolve } from 'node:path'
import { SpillwayError, systemError } from '@spillway/core'
import { codeOf, type FileStatus, type Files } from '../file-system.ts'
import { headerBytes } from '../header-block.ts'
import { holdFile, isSameFile } from '../held-files.ts'
import { inTurn } from '../in-turn.ts'
import { dataOffsetBytes } from '../layout.ts'
import type { NativeModule } from '../native.ts'
import { keepsItsPlace, type OpenedFile, spacePathOf } from '../opened-file.ts'
import { lockFor } from '../owner-lock.ts'
import { encodeRoot, rootOffset } from './root.ts'
import {
  decodeStoreHeader,
  encodeStoreHeader,
  keyOf,
  layoutOf,
  type StoreHeader,
  slotsFor,
} from './store-header.ts'

/**
 * Opening a store of images, which stays when it is closed:
 *
 *   create, O_EXCL, mode 0700 ──▶ lock ──▶ header and roots ──▶ sync ──▶ mode 0600 ──▶ sync ──▶ directory synced ──▶ ours
 *        │ exists
 *        ▼
 *   a link, not a file, no header of a store ─▶ EEXIST,  untouched
 *   of another user ─────────────────────────▶ EPERM,   untouched
 *   locked ──────────────────────────────────▶ EBUSY,   untouched
 *   mode 0700: its creator died half way ────▶ unlinked, created anew: it never held anything
 *   damaged header, newer version, other size ▶ EBADMSG, ENOTSUP, EINVAL, untouched
 *   else ────────────────────────────────────▶ ours
 *
 * The lock is on the opening that does the I/O, so that it is held as long as a request of a dead process can still change the file. Without
 * locks two owners would write over each other's slots: `ENOSYS`.
 */
const unfinishedMode = 0o700
const attempts = 5

type Native = NativeModule['native']

export interface StoreWanted {
  readonly path: string
  readonly pageSizeBytes: number
  /** Pages that it may hold; `undefined`: what the store has, and for a new one `defaultPages`. */
  readonly pages: number | undefined
  readonly defaultPages: (directory: string) => Promise<number>
}

export interface OpenedStore {
  readonly file: OpenedFile
  readonly header: StoreHeader
  /** Rejects with `ESTALE` when the file was cut or its name means another by now. */
  readonly assertUnchanged: () => Promise<void>
}

export async function openStore(files: Files, wanted: StoreWanted, native: Native): Promise<OpenedStore> {
  const path = resolve(wanted.path)
  assertLocks(files, path, native)
  try {
    const directory = await files.stat(dirname(path))
    const identity = `${files.isSystem} ${directory.dev} ${directory.ino} ${basename(path)}`
    return await inTurn(identity, () => openInTurn(files, { ...wanted, path }, native))
  } catch (failure) {
    throw systemError(failure, `${path} cannot be opened`)
  }
}

/** A store that is only looked at, and that nobody can open meanwhile. */
export interface LookedAtStore {
  readonly fileDescriptor: number
  readonly header: StoreHeader
  readonly release: () => Promise<void>
}

/** Opens a store, whoever's it is, and changes nothing; rejects with `ENOENT` where there is none, else as `openStore` does. */
export async function openStoreToLook(files: Files, path: string, native: Native): Promise<LookedAtStore> {
  assertLocks(files, path, native)
  try {
    assertRegular(path, await files.lstat(path))
    const fileDescriptor = await openWithoutFollowing(files, path)
    try {
      assertLocked(lockFor(fileDescriptor, native), path)
      const status = await files.fstat(fileDescriptor)
      const header = await readHeader(files, fileDescriptor, path)
      const letGo = holdFile(files.fileSystem, status, path)
      const release = async () => {
        letGo()
        await files.close(fileDescriptor)
      }
      return { fileDescriptor, header, release }
    } catch (failure) {
      await files.close(fileDescriptor)
      throw failure
    }
  } catch (failure) {
    throw systemError(failure, `${path} cannot be opened`)
  }
}

async function openInTurn(files: Files, wanted: StoreWanted, native: Native): Promise<OpenedStore> {
  for (let attempt = 1; attempt <= attempts; attempt++) {
    const opened = (await openFound(files, wanted, native)) ?? (await create(files, wanted, native))
    if (opened !== undefined) return opened
  }
  throw new SpillwayError('EBUSY', `${wanted.path} is being opened by others`)
}

/** Opens what has the name; `undefined` when nothing has, or nothing that was finished, which is removed. */
async function openFound(
  files: Files,
  wanted: StoreWanted,
  native: Native,
): Promise<OpenedStore | undefined> {
  const { path } = wanted
  const status = await statusOf(files, path)
  if (status === undefined) return undefined
  assertRegular(path, status)
  assertOurs(path, status)
  const fileDescriptor = await openWithoutFollowing(files, path)
  let isKept = false
  try {
    assertLocked(lockFor(fileDescriptor, native), path)
    const found = await files.fstat(fileDescriptor)
    if (!isSameFile(found, status) || !(await stillMeans(files, path, found))) return undefined
    if ((found.mode & 0o777) === unfinishedMode) {
      await files.unlink(path)
      return undefined
    }
    const header = await readHeader(files, fileDescriptor, path)
    assertWanted(header, wanted)
    const opened = await openedStore(files, { path, fileDescriptor, native, header })
    isKept = true
    return opened
  } finally {
    if (!isKept) await files.close(fileDescriptor)
  }
}

/** Creates an empty store; `undefined` when somebody else is about to. */
async function create(files: Files, wanted: StoreWanted, native: Native): Promise<OpenedStore | undefined> {
  const { path, pageSizeBytes, pages, defaultPages } = wanted
  const flags = files.flag('O_RDWR') | files.flag('O_CREAT') | files.flag('O_EXCL') | files.flag('O_NOFOLLOW')
  const fileDescriptor = await files.open(path, flags, unfinishedMode).catch((failure: unknown) => {
    if (codeOf(failure) === 'EEXIST') return undefined
    throw failure
  })
  if (fileDescriptor === undefined) return undefined
  const created = await files.fstat(fileDescriptor)
  try {
    const lock = lockFor(fileDescriptor, native)
    if (lock === 'refused' || !(await stillMeans(files, path, created))) {
      await files.close(fileDescriptor)
      return undefined
    }
    assertLocked(lock, path)
    const header: StoreHeader = {
      instance: randomUUID(),
      pageSizeBytes,
      dataOffsetBytes,
      ...slotsFor(pages ?? (await defaultPages(dirname(path)))),
      salt: randomBytes(4).readUInt32LE(),
    }
    // It has to be asked for while the file is empty.
    keepsItsPlace(fileDescriptor, files, native)
    await writeFirst(files, fileDescriptor, header, path)
    await files.fsync(fileDescriptor)
    await files.fchmod(fileDescriptor, 0o600)
    await files.fsync(fileDescriptor)
    await syncDirectory(files, dirname(path))
    return await openedStore(files, { path, fileDescriptor, native, header })
  } catch (failure) {
    if (await stillMeans(files, path, created).catch(() => false)) await files.unlink(path).catch(() => {})
    await files.close(fileDescriptor)
    throw failure
  }
}

/** Header and first root; the places of both roots have their space from now on, so that a full disk can remove images. */
async function writeFirst(
  files: Files,
  fileDescriptor: number,
  header: StoreHeader,
  path: string,
): Promise<void> {
  const layout = layoutOf(header)
  // Handles of another store are taken for this one's with a chance of one in 16.7 million.
  const generation = randomBytes(3).readUIntLE(0, 3)
  const root = { sequence: 0, generation, images: new Map(), damaged: new Map() }
  const first = new Uint8Array(dataOffsetBytes)
  first.set(encodeStoreHeader(header))
  first.set(encodeRoot(root, keyOf(header), layout), rootOffset(root, layout))
  for (let written = 0; written < first.byteLength; ) {
    const more = await files.write(fileDescriptor, first.subarray(written), written)
    if (more === 0) throw new SpillwayError('ENOSPC', `there is no space for the first 2 MiB of ${path}`)
    written += more
  }
}

async function openedStore(
  files: Files,
  found: { path: string; fileDescriptor: number; native: Native; header: StoreHeader },
): Promise<OpenedStore> {
  const { path, fileDescriptor, native, header } = found
  const status = await files.fstat(fileDescriptor)
  const letGo = holdFile(files.fileSystem, status, path)
  const file: OpenedFile = {
    fileDescriptor,
    place: path,
    isOwnOpening: true,
    mayReopen: false,
    spacePath: spacePathOf(files, fileDescriptor, dirname(path)),
    isKept: true,
    device: undefined,
    overwritesInPlace: keepsItsPlace(fileDescriptor, files, native),
    vanishes: { always: false, reason: 'it is persistent' },
    release: async () => {
      letGo()
      await files.close(fileDescriptor)
    },
  }
  let leastBytes = status.size
  const assertUnchanged = async () => {
    const [{ size }, isSame] = await Promise.all([
      files.fstat(fileDescriptor),
      stillMeans(files, path, status),
    ])
    if (size < leastBytes || !isSame) {
      throw new SpillwayError('ESTALE', `${path} was cut, or means another file by now`)
    }
    leastBytes = size
  }
  return { file, header, assertUnchanged }
}

function openWithoutFollowing(files: Files, path: string): Promise<number> {
  const flags = files.flag('O_RDWR') | files.flag('O_NOFOLLOW') | files.flag('O_NONBLOCK')
  return files.open(path, flags)
}

async function readHeader(files: Files, fileDescriptor: number, path: string): Promise<StoreHeader> {
  const block = new Uint8Array(headerBytes)
  await files.read(fileDescriptor, block, 0)
  return decodeStoreHeader(block, path)
}

function assertLocks(files: Files, path: string, native: Native): asserts native is NonNullable<Native> {
  if (native !== undefined && files.isSystem) return
  const what = `${path} cannot be held: a persistent file needs the locks of @spillway/native`
  throw new SpillwayError('ENOSYS', what)
}

function assertRegular(path: string, status: FileStatus): void {
  if (status.isSymbolicLink())
    throw new SpillwayError('EEXIST', `${path} is a symbolic link, which is not followed`)
  if (!status.isFile()) {
    const hint = status.isDirectory() ? '; it is a directory: give the path of a file in it' : ''
    throw new SpillwayError('EEXIST', `${path} exists and is not a regular file${hint}`)
  }
}

function assertOurs(path: string, status: FileStatus): void {
  const user = process.geteuid?.()
  if (user !== undefined && status.uid !== user) {
    throw new SpillwayError(
      'EPERM',
      `${path} belongs to user ${status.uid}, and this process is user ${user}`,
    )
  }
}

function assertLocked(lock: ReturnType<typeof lockFor>, path: string): void {
  if (lock === 'refused') throw new SpillwayError('EBUSY', `${path} is open elsewhere`)
  if (lock === 'none')
    throw new SpillwayError('ENOSYS', `${path} cannot be held: its file system has no locks`)
}

function assertWanted({ pageSizeBytes, slots, metadataSlots }: StoreHeader, wanted: StoreWanted): void {
  const found = slots - metadataSlots
  const { path, pages = found } = wanted
  if (pageSizeBytes === wanted.pageSizeBytes && pages === found) return
  const made = `${path} was made for ${found} pages of ${pageSizeBytes} bytes`
  throw new SpillwayError('EINVAL', `${made}, and is opened for ${pages} of ${wanted.pageSizeBytes}`)
}

async function statusOf(files: Files, path: string): Promise<FileStatus | undefined> {
  try {
    return await files.lstat(path)
  } catch (failure) {
    if (codeOf(failure) === 'ENOENT') return undefined
    throw failure
  }
}

async function stillMeans(files: Files, path: string, status: FileStatus): Promise<boolean> {
  const found = await statusOf(files, path)
  return found !== undefined && isSameFile(found, status)
}

async function syncDirectory(files: Files, directory: string): Promise<void> {
  const opened = await files.open(directory, files.flag('O_RDONLY') | files.flag('O_DIRECTORY'))
  try {
    await files.fsync(opened)
  } finally {
    await files.close(opened)
  }
}
