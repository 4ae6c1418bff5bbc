import { SpillwayError } from '@spillway/core'
import type { Files } from './file-system.ts'
import { messageOf } from './native.ts'
import { alignedMemory } from './staging.ts'

/** The descriptor that pages travel through, and whether it bypasses the page cache. */
export interface DataDescriptor {
  readonly fileDescriptor: number
  readonly direct: boolean
  /** Why it does or does not. */
  readonly reason: string
  close(): Promise<void>
}

/**
 * Opens the file a second time for direct I/O and tries it: one aligned page is written at the first slot, read back and
 * cut off again. `direct: true` rejects with `EINVAL` where it does not work; `'auto'` goes on through the page cache.
 */
export async function openData(
  files: Files,
  fileDescriptor: number,
  wanted: 'auto' | boolean,
  dataOffsetBytes: number,
  pageSizeBytes: number,
): Promise<DataDescriptor> {
  const buffered = (reason: string): DataDescriptor => ({
    fileDescriptor,
    direct: false,
    reason,
    close: async () => {},
  })
  if (wanted === false) return buffered('direct: false')
  if (!files.isSystem) return buffered('the file system is injected')
  let reason = 'this platform has no O_DIRECT, or no /proc to open the file again with'
  if (process.platform === 'linux' && files.flag('O_DIRECT') !== 0) {
    try {
      return await openTried(files, fileDescriptor, dataOffsetBytes, pageSizeBytes)
    } catch (failure) {
      reason = messageOf(failure)
    }
  }
  if (wanted === true) throw new SpillwayError('EINVAL', `direct I/O does not work on this file: ${reason}`)
  return buffered(reason)
}

async function openTried(
  files: Files,
  fileDescriptor: number,
  dataOffsetBytes: number,
  pageSizeBytes: number,
): Promise<DataDescriptor> {
  const flags = files.flag('O_RDWR') | files.flag('O_DIRECT')
  const opened = await files.open(`/proc/self/fd/${fileDescriptor}`, flags)
  try {
    const { size } = await files.fstat(opened)
    const page = alignedMemory(pageSizeBytes)
    page.fill(0xd1)
    try {
      const written = await files.write(opened, page, dataOffsetBytes)
      page.fill(0)
      const read = await files.read(opened, page, dataOffsetBytes)
      if (written !== pageSizeBytes || read !== pageSizeBytes || page.some((byte) => byte !== 0xd1)) {
        throw new Error('a page written directly did not come back')
      }
    } finally {
      await files.ftruncate(opened, size)
    }
  } catch (failure) {
    await files.close(opened)
    throw failure
  }
  return {
    fileDescriptor: opened,
    direct: true,
    reason: 'tried on this file',
    close: () => files.close(opened),
  }
}
