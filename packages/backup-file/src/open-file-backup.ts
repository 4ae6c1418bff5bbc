import * as nodeFileSystem from 'node:fs'
import { abortError, type BackupCapabilities, maxPageSizeBytes, systemError } from '@spillway/core'
import { ChecksumTable } from './checksum-table.ts'
import { chooseEngine } from './choose-engine.ts'
import { DataDescriptor } from './direct-io.ts'
import { DiskSpace } from './disk-space.ts'
import type { Engine } from './engine.ts'
import { type FileBackup, type FileBackupParts, SlottedFileBackup } from './file-backup.ts'
import { probeStorage } from './file-storage.ts'
import { type FileSystem, Files } from './file-system.ts'
import { type FoundStore, findStore, openImages } from './images/open-images.ts'
import { type OpenedStore, openStore } from './images/persistent-file.ts'
import { dataOffsetBytes as standardDataOffsetBytes } from './layout.ts'
import type { MoverParts } from './mover-parts.ts'
import { openNamed } from './named-file.ts'
import { type NativeModule, optionalNative } from './native.ts'
import { type OpenedFile, openDescriptor, openUnnamed } from './opened-file.ts'
import { assertOptions, type FileBackupOptions } from './options.ts'
import { openWhenFree } from './owner-wait.ts'
import { PageMover } from './page-mover.ts'
import { openPageSums } from './page-sum.ts'
import { SlotSpace } from './slot-space.ts'
import { StagingPool } from './staging.ts'
import { StartedReads } from './started-reads.ts'

const mebibyte = 1024 * 1024
/** A chunk of the pool's default size travels as one request from its own memory; what is gathered, in smaller ones. */
const requestBytes = 2 * mebibyte
const stagedRequestBytes = mebibyte / 2
const smallStagingBytes = 64 * 1024
/** Pieces whose sums are being made while the engine has all the requests it takes. */
const piecesAhead = 2
const largestDefaultCapacityBytes = 2 ** 40

/**
 * Opens a backup in a file or on a block device: exactly one of `path`, `directory` and `fd` says which. Throws `TypeError` or `RangeError`
 * for options that cannot be meant, a `capacityBytes` that a device does not have included. Rejects with `EEXIST` (the name is taken by
 * something that is not ours, or by a file with a damaged header), `EBUSY` (its owner lives or may live, another backup is in it, a device is
 * in use; each for `ownerWaitMs`), `EINTR` (`signal`), `EPERM` or `EACCES`, `ENOENT`, `EROFS`, `EINVAL` (`fd` is neither a regular file nor a block device open for reading and writing,
 * `direct: true` does not work, or nothing tells the free space that is to be kept), `ENOSYS` (`io: 'uring'` does not work, or checksums
 * where WebAssembly is switched off), `EMFILE`, `ENOSPC`.
 *
 * With `persistent` also with `EEXIST` (what has the name is no store of images; without it, that is what a store is), `EBADMSG` (its header or
 * both its roots are damaged), `ENOTSUP` (a newer version), `EINVAL` (made with another page size or capacity), `ENOSYS` (no locks), `EIO`; the
 * file is left as it is.
 */
export async function openFileBackup(options: FileBackupOptions): Promise<FileBackup> {
  return openAt(options, standardDataOffsetBytes)
}

/** `openFileBackup` with the first slot elsewhere: tests put it where offsets get large. */
export async function openAt(options: FileBackupOptions, dataOffsetBytes: number): Promise<FileBackup> {
  assertOptions(options)
  const system: FileSystem = nodeFileSystem
  const files = new Files(options.fs ?? system, options.fs === undefined || options.fs === system)
  // A stand-in for node:fs has numbers of its own, which mean nothing to the kernel.
  const loaded = files.isSystem
    ? await optionalNative.load()
    : { native: undefined, whyNot: 'the file system is injected' }
  if (options.signal?.aborted) throw abortError(options.signal)
  const store = options.persistent ? await openPersistent(files, options, loaded.native) : undefined
  const file = store?.file ?? (await openPlace(files, options, loaded.native))
  // What was opened so far, to be closed in the opposite order, whether opening fails or the backup is closed.
  const release: (() => Promise<void>)[] = [() => file.release()]
  const releaseAll = async (): Promise<void> => {
    let failure: unknown
    for (const step of release.reverse()) await step().catch((thrown: unknown) => (failure ??= thrown))
    if (failure !== undefined) throw systemError(failure, `${file.place} could not be closed`)
  }
  try {
    return await assemble({ options, files, file, store, loaded, dataOffsetBytes, release, releaseAll })
  } catch (failure) {
    await releaseAll().catch(() => {})
    throw systemError(failure, `${file.place} cannot be used`)
  }
}

function openPlace(
  files: Files,
  options: FileBackupOptions,
  native: NativeModule['native'],
): Promise<OpenedFile> {
  const { path, pageSizeBytes = 4096 } = options
  if (path !== undefined) return openWhenFree(() => openNamed(files, path, pageSizeBytes, native), options)
  if (options.directory !== undefined) return openUnnamed(files, options.directory, native)
  return openDescriptor(files, options.fd!, native)
}

function openPersistent(
  files: Files,
  options: FileBackupOptions,
  native: NativeModule['native'],
): Promise<OpenedStore> {
  const { path, pageSizeBytes = 4096, capacityBytes } = options
  const pagesOf = (bytes: number) => Math.max(1, Math.floor(bytes / pageSizeBytes))
  const defaultPages = async (directory: string) => {
    const { blocks, bsize } = await files.statfs(directory)
    return pagesOf(Math.min(blocks * bsize, largestDefaultCapacityBytes))
  }
  const pages = capacityBytes === undefined ? undefined : pagesOf(capacityBytes)
  const wanted = { path: path!, pageSizeBytes, pages, defaultPages }
  return openWhenFree(() => openStore(files, wanted, native), options)
}

/** What a backup is assembled of. */
interface Opening {
  readonly options: FileBackupOptions
  readonly files: Files
  readonly file: OpenedFile
  readonly store: OpenedStore | undefined
  readonly loaded: NativeModule
  readonly dataOffsetBytes: number
  readonly release: (() => Promise<void>)[]
  readonly releaseAll: () => Promise<void>
}

/** What pages travel to, and what is known of it. */
type Medium = Awaited<ReturnType<typeof openMedium>>

async function openMedium(opening: Opening, sums: ChecksumTable | undefined) {
  const { options, files, file, store, loaded, dataOffsetBytes, release } = opening
  const { pageSizeBytes = 4096, io = 'auto', direct = 'auto' } = options
  const { fileDescriptor, spacePath } = file
  const found = store && (await findStore(files, store, { checksums: sums!, signal: options.signal }))
  const probeOffsetBytes = (found?.endSlot ?? 0) * pageSizeBytes
  const deviceId = `device ${(await files.fstat(fileDescriptor)).dev} of ${files.isSystem}`
  const disk = await DiskSpace.open(files, {
    path: file.device === undefined ? spacePath : undefined,
    keepFreeBytes: file.device === undefined ? options.keepFreeBytes : 0,
    deviceId: files.isSystem && file.device === undefined ? deviceId : undefined,
    isOnDevice: () => loaded.native?.tellsExtents(fileDescriptor) !== false,
  })
  release.push(async () => disk.close())
  const data = await DataDescriptor.open(files, file, {
    wanted: direct,
    tryOffsetBytes: dataOffsetBytes + probeOffsetBytes,
    pageSizeBytes,
    isInMemory: disk.isInMemory,
    native: loaded.native,
  })
  release.push(() => data.close())
  const { engine, reason } = await chooseEngine(files, data, io, pageSizeBytes, loaded)
  release.push(() => engine.close())
  const storage = await probeStorage(files, file, {
    ...{ dataOffsetBytes, pageSizeBytes, probeOffsetBytes, loaded },
    type: disk.type,
  })
  return { found, deviceId, disk, data, engine, reason, storage }
}

async function assemble(opening: Opening): Promise<FileBackup> {
  const { options, files, file, store, loaded, dataOffsetBytes, release, releaseAll } = opening
  const { pageSizeBytes = 4096, name = 'file', checksums = true } = options
  if (checksums) await openPageSums()
  const sums = checksums ? new ChecksumTable(store?.header.salt) : undefined
  const medium = await openMedium(opening, sums)
  const { found, deviceId, disk, data, engine, storage } = medium
  const capacityBytes = capacityOf(options.capacityBytes, file, disk, dataOffsetBytes)
  const space = new SlotSpace({
    name,
    pageSizeBytes,
    ...slotsOf(capacityBytes, pageSizeBytes, found),
    warmBytes: options.warmBytes ?? 64 * mebibyte,
    disk,
    storage,
    deviceId,
  })
  const images = found && (await openImages(found, { name, space, checksums: sums! }))
  const staging = stagingFor(engine, pageSizeBytes, loaded.native)
  release.push(async () => staging.close())
  const moverParts: MoverParts = {
    ...{ name, pageSizeBytes, dataOffsetBytes, engine, data },
    largeStaging: staging.large,
    smallStaging: staging.small,
    checksums: sums,
    slotOf: (handle) => space.slots.slotOf(handle),
    isLive: (first, count) => space.slots.isLive(first, count),
    onCorrupt: (handle) => space.quarantine(handle),
  }
  const mover = new PageMover(moverParts)
  return new SlottedFileBackup({
    name,
    capabilities: capabilitiesOf({
      pageSizeBytes,
      persistent: images !== undefined,
      reserves: storage.allocate !== undefined,
      detectsCorruption: checksums,
      preferredCallsInFlight: engine.largeRequests,
    }),
    ...limitsFor(engine, pageSizeBytes),
    space,
    mover,
    reads: new StartedReads(moverParts, mover),
    images,
    sync: () => images?.sync.sync() ?? files.fdatasync(file.fileDescriptor),
    release: releaseAll,
    details: () => detailsOf(opening, medium, space, staging.large.heldBytes + staging.small.heldBytes),
  })
}

function detailsOf(
  { files, file }: Opening,
  { engine, reason, data, storage, disk }: Medium,
  space: SlotSpace,
  stagingBytes: number,
): ReturnType<FileBackupParts['details']> {
  return {
    io: { engine: engine.name, reason },
    direct: { used: data.direct, reason: data.reason },
    holes: {
      used: storage.punch !== undefined,
      reason: storage.punch === undefined ? storage.whyNoHoles : 'tried on this file',
      punchedBytes: space.punchedBytes,
    },
    keepFreeBytes: disk.keepFreeBytes,
    stagingBytes,
    vanishes: file.vanishes,
    mediumBytes: file.device === undefined ? bytesOnMedium(files, file.fileDescriptor) : space.backedBytes,
  }
}

/** How the pages of a call are cut into requests, and how many of them may be under way. */
function limitsFor(engine: Engine, pageSizeBytes: number): Pick<FileBackupParts, 'plan' | 'flight'> {
  const largeBytes = Math.max(requestBytes, pageSizeBytes)
  return {
    plan: {
      pageSizeBytes,
      requestBytes: largeBytes,
      stagedBytes: Math.max(stagedRequestBytes, pageSizeBytes),
      directBytes: Math.max(128 * 1024, pageSizeBytes),
      takes: (memory) => engine.takes(memory),
    },
    flight: {
      pageSizeBytes,
      bytes: (engine.largeRequests + piecesAhead) * largeBytes,
      requests: engine.smallRequests + piecesAhead,
    },
  }
}

/** Staging memory for whole requests and for single pages; mapped where the engine can use that. */
function stagingFor(
  engine: Engine,
  pageSizeBytes: number,
  native: NativeModule['native'],
): { large: StagingPool; small: StagingPool; close(): void } {
  const largeBytes = Math.max(requestBytes, pageSizeBytes)
  const smallBytes = Math.min(Math.max(smallStagingBytes, pageSizeBytes), largeBytes)
  const mapped = engine.name === 'uring' ? native : undefined
  const large = new StagingPool(engine.largeRequests + piecesAhead, largeBytes, mapped)
  const smallCount = Math.min(engine.smallRequests + piecesAhead, (4 * mebibyte) / smallBytes)
  const small = new StagingPool(Math.max(1, smallCount), smallBytes, mapped)
  return {
    large,
    small,
    close: () => {
      large.close()
      small.close()
    },
  }
}

/** Bytes of pages that it may hold. Throws `RangeError` for more than a device has. */
function capacityOf(
  wantedBytes: number | undefined,
  { device, place }: OpenedFile,
  disk: DiskSpace,
  dataOffsetBytes: number,
): number {
  if (device === undefined) return wantedBytes ?? Math.min(disk.sizeBytes, largestDefaultCapacityBytes)
  const roomBytes = device.sizeBytes - dataOffsetBytes
  if (roomBytes < (wantedBytes ?? 1)) {
    throw new RangeError(
      `${place} has room for ${Math.max(0, roomBytes)} bytes beyond its first ${dataOffsetBytes}; capacityBytes is ${wantedBytes ?? 'its size'}`,
    )
  }
  return wantedBytes ?? roomBytes
}

/** Slots for pages, and in a store those for metadata besides. */
function slotsOf(
  capacityBytes: number,
  pageSizeBytes: number,
  found: FoundStore | undefined,
): { capacitySlots: number; metadataSlots?: number; generation?: number } {
  if (found === undefined) return { capacitySlots: Math.max(1, Math.floor(capacityBytes / pageSizeBytes)) }
  const { slots, metadataSlots } = found.store.header
  return { capacitySlots: slots, metadataSlots, generation: found.found.root.generation }
}

/** What the file takes, 0 when its descriptor was closed by its owner. */
function bytesOnMedium(files: Files, fileDescriptor: number): number {
  try {
    return files.fileSystem.fstatSync(fileDescriptor).blocks * 512
  } catch {
    return 0
  }
}

type OwnCapabilities =
  | 'pageSizeBytes'
  | 'persistent'
  | 'reserves'
  | 'detectsCorruption'
  | 'preferredCallsInFlight'

function capabilitiesOf(own: Pick<BackupCapabilities, OwnCapabilities>): BackupCapabilities {
  return Object.freeze({
    ...own,
    medium: 'file',
    preferredBatchPages: Math.max(1, (2 * maxPageSizeBytes) / own.pageSizeBytes),
    shareable: false,
    stores: true,
  })
}
