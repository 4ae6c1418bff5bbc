import type { Files } from './file-system.ts'
import { copiesOnWrite, freesWholePieces } from './file-system-types.ts'
import { messageOf, type NativeModule } from './native.ts'
import type { OpenedFile } from './opened-file.ts'
import { inThread } from './thread-budget.ts'

/** In what pieces the file system takes space back. */
export interface HoleUnits {
  /** Slots of one piece, 1 or a power of two: part of it is not given back. */
  readonly slots: number
  /** Whether holes in parts of a piece add up (btrfs). Otherwise they only write zeros, and are not made. */
  readonly partsAddUp: boolean
}

/** What can be done with the space behind the slots. Bytes are counted from the first slot. */
export interface FileStorage {
  /** Gives space back; absent where nothing can, and `whyNoHoles` says why. */
  readonly punch: StorageCall | undefined
  readonly whyNoHoles: string
  /** Takes space so that writing there cannot fail for want of it; absent where nothing can. */
  readonly allocate: StorageCall | undefined
  /** Gives all space back; absent for a file that stays. */
  readonly empty: (() => Promise<void>) | undefined
  /** In what pieces the file system gives and takes space. */
  readonly units: HoleUnits
  /** Whether what has its space can be overwritten without more. */
  readonly overwritesInPlace: boolean
}

/** Done in a thread: a file system may have to wait for its disk. */
export type StorageCall = (offsetBytes: number, lengthBytes: number) => Promise<void>

export interface StorageOptions {
  readonly dataOffsetBytes: number
  readonly pageSizeBytes: number
  /** A page beyond all that the file holds, counted from the first slot. */
  readonly probeOffsetBytes: number
  /** What `statfs` calls the file system; `undefined` where it was not asked. */
  readonly type: number | undefined
  readonly loaded: NativeModule
}

/** On btrfs a piece of the file that was written or allocated at once comes back when none of it is used. */
const copiedPieceBytes = 1024 * 1024
const singleSlots: HoleUnits = { slots: 1, partsAddUp: false }

/** Finds out, on this file, whether holes and allocation work and in what pieces. The file's length stays. */
export async function probeStorage(
  files: Files,
  file: OpenedFile,
  options: StorageOptions,
): Promise<FileStorage> {
  const { dataOffsetBytes, pageSizeBytes, probeOffsetBytes, type, loaded } = options
  const { fileDescriptor } = file
  if (file.device !== undefined) return probeDevice(files, file, options)
  const empty = file.isKept ? undefined : () => files.ftruncate(fileDescriptor, dataOffsetBytes)
  const overwritesInPlace = file.overwritesInPlace || !copiesOnWrite(type)
  const { native } = loaded
  if (native === undefined || !files.isSystem) {
    const whyNoHoles = files.isSystem ? loaded.whyNot : 'the file system is injected'
    const nothing = { punch: undefined, allocate: undefined, units: singleSlots }
    return { ...nothing, whyNoHoles, empty, overwritesInPlace }
  }
  const punch: StorageCall = (offsetBytes, lengthBytes) =>
    inThread(() => native.punchHoleInThread(fileDescriptor, dataOffsetBytes + offsetBytes, lengthBytes))
  const allocate: StorageCall = (offsetBytes, lengthBytes) =>
    inThread(() => native.allocateInThread(fileDescriptor, dataOffsetBytes + offsetBytes, lengthBytes))
  const { size, blocks } = await files.fstat(fileDescriptor)
  const whyNoAllocation = await attempt(() => allocate(probeOffsetBytes, pageSizeBytes))
  const grownBytes = ((await files.fstat(fileDescriptor)).blocks - blocks) * 512
  const whyNoHoles = await attempt(() => punch(probeOffsetBytes, pageSizeBytes))
  await files.ftruncate(fileDescriptor, size)
  return {
    punch: whyNoHoles === '' ? punch : undefined,
    whyNoHoles,
    allocate: whyNoAllocation === '' ? allocate : undefined,
    empty,
    units: unitsOf(type, grownBytes, pageSizeBytes),
    overwritesInPlace,
  }
}

/** The pieces of a file system of which allocating one page took `grownBytes`. */
function unitsOf(type: number | undefined, grownBytes: number, pageSizeBytes: number): HoleUnits {
  if (freesWholePieces(type)) {
    return { slots: Math.max(1, copiedPieceBytes / pageSizeBytes), partsAddUp: true }
  }
  const slots = grownBytes / pageSizeBytes
  // What is no power of two, or larger than any block, is not one block.
  const isBlock = slots > 1 && slots <= 1024 && Number.isInteger(Math.log2(slots))
  return isBlock ? { slots, partsAddUp: false } : singleSlots
}

/** A block device has all its space; what is not used any more is discarded, where it can be. */
async function probeDevice(files: Files, file: OpenedFile, options: StorageOptions): Promise<FileStorage> {
  const { dataOffsetBytes, pageSizeBytes, loaded } = options
  const { native, whyNot } = loaded
  const discard: StorageCall = (offsetBytes, lengthBytes) =>
    native === undefined
      ? Promise.reject(new Error(files.isSystem ? whyNot : 'the file system is injected'))
      : inThread(() =>
          native.discardInThread(file.fileDescriptor, dataOffsetBytes + offsetBytes, lengthBytes),
        )
  const whyNoHoles = await attempt(() => discard(0, pageSizeBytes))
  return {
    punch: whyNoHoles === '' ? discard : undefined,
    whyNoHoles,
    allocate: async () => {},
    empty: undefined,
    units: singleSlots,
    overwritesInPlace: true,
  }
}

async function attempt(work: () => Promise<void>): Promise<string> {
  try {
    await work()
    return ''
  } catch (failure) {
    return messageOf(failure)
  }
}
