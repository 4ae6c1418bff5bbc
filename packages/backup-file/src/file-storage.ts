import type { Files } from './file-system.ts'
import { messageOf, type NativeModule } from './native.ts'
import { inThread } from './thread-budget.ts'

/** What can be done with the space behind the slots. Bytes are counted from the first slot. */
export interface FileStorage {
  /** Gives space back; absent where nothing can, and `whyNoHoles` says why. */
  readonly punch: StorageCall | undefined
  readonly whyNoHoles: string
  /** Takes space so that writing there cannot fail for want of it; absent where nothing can. */
  readonly allocate: StorageCall | undefined
  /** Gives all space back; absent for a file of the caller's. */
  readonly empty: (() => Promise<void>) | undefined
}

/** Done in a thread: a file system may have to wait for its disk. */
export type StorageCall = (offsetBytes: number, lengthBytes: number) => Promise<void>

/** Finds out, on this file, whether holes and allocation work. The file's length stays. */
export async function probeStorage(
  files: Files,
  fileDescriptor: number,
  dataOffsetBytes: number,
  pageSizeBytes: number,
  ours: boolean,
  { native, whyNot }: NativeModule,
): Promise<FileStorage> {
  const empty = ours ? () => files.ftruncate(fileDescriptor, dataOffsetBytes) : undefined
  if (native === undefined || !files.isSystem) {
    const whyNoHoles = files.isSystem ? whyNot : 'the file system is injected'
    return { punch: undefined, whyNoHoles, allocate: undefined, empty }
  }
  const punch: StorageCall = (offsetBytes, lengthBytes) =>
    inThread(() => native.punchHoleInThread(fileDescriptor, dataOffsetBytes + offsetBytes, lengthBytes))
  const allocate: StorageCall = (offsetBytes, lengthBytes) =>
    inThread(() => native.allocateInThread(fileDescriptor, dataOffsetBytes + offsetBytes, lengthBytes))
  const { size } = await files.fstat(fileDescriptor)
  const whyNoAllocation = await attempt(() => allocate(0, pageSizeBytes))
  const whyNoHoles = await attempt(() => punch(0, pageSizeBytes))
  await files.ftruncate(fileDescriptor, size)
  return {
    punch: whyNoHoles === '' ? punch : undefined,
    whyNoHoles,
    allocate: whyNoAllocation === '' ? allocate : undefined,
    empty,
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
