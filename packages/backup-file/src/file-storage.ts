import type { Files } from './file-system.ts'
import { messageOf, type NativeModule } from './native.ts'

/** What can be done with the space behind the slots. Bytes are counted from the first slot. */
export interface FileStorage {
  /** Gives space back at once; absent where nothing can, and `whyNoHoles` says why. */
  readonly punch: ((offsetBytes: number, lengthBytes: number) => void) | undefined
  readonly whyNoHoles: string
  /** Takes space so that writing there cannot fail for want of it; absent where nothing can. */
  readonly allocate: ((offsetBytes: number, lengthBytes: number) => void) | undefined
  /** Gives all space back; absent for a file of the caller's. */
  readonly empty: (() => Promise<void>) | undefined
}

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
  const punch = (offsetBytes: number, lengthBytes: number) =>
    native.punchHole(fileDescriptor, dataOffsetBytes + offsetBytes, lengthBytes)
  const allocate = (offsetBytes: number, lengthBytes: number) =>
    native.allocate(fileDescriptor, dataOffsetBytes + offsetBytes, lengthBytes)
  const { size } = await files.fstat(fileDescriptor)
  const whyNoAllocation = attempt(() => allocate(0, pageSizeBytes))
  const whyNoHoles = attempt(() => punch(0, pageSizeBytes))
  await files.ftruncate(fileDescriptor, size)
  return {
    punch: whyNoHoles === '' ? punch : undefined,
    whyNoHoles,
    allocate: whyNoAllocation === '' ? allocate : undefined,
    empty,
  }
}

function attempt(work: () => void): string {
  try {
    work()
    return ''
  } catch (failure) {
    return messageOf(failure)
  }
}
