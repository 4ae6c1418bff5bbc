import { SpillwayError } from '@spillway/core'
import { codeOf, type FileStatus, type Files } from './file-system.ts'
import type { NativeModule } from './native.ts'

/** What has to be known of a block device. */
export interface BlockDevice {
  readonly sizeBytes: number
  /** Direct I/O goes in whole ones of these. */
  readonly logicalBlockBytes: number
}

const sectorBytes = 512

/** Opens a block device so that nobody else can, neither to mount it nor as we do. `EBUSY` when somebody has. */
export async function openExclusively(files: Files, path: string, place: string): Promise<number> {
  try {
    return await files.open(path, files.flag('O_RDWR') | files.flag('O_EXCL'))
  } catch (failure) {
    if (codeOf(failure) !== 'EBUSY') throw failure
    throw new SpillwayError(
      'EBUSY',
      `${place} is a block device that is mounted or opened exclusively by somebody (the caller included)`,
      { cause: failure },
    )
  }
}

/**
 * Size and logical block of an open device, as the device says, or the kernel's description of it. `ENOSYS` where neither does, `EROFS`
 * for a device that cannot be written to, which the kernel opens all the same.
 */
export async function blockDeviceOf(
  files: Files,
  fileDescriptor: number,
  status: FileStatus,
  native: NativeModule['native'],
): Promise<BlockDevice> {
  const { major, minor } = deviceNumber(status.rdev ?? 0)
  const folder = `/sys/dev/block/${major}:${minor}`
  if ((await numberIn(files, `${folder}/ro`)) === 1) {
    throw new SpillwayError('EROFS', `block device ${major}:${minor} is read-only`)
  }
  if (native !== undefined) return native.deviceGeometry(fileDescriptor)
  const sectors = await numberIn(files, `${folder}/size`)
  // A partition has the queue of its disk.
  const block =
    (await numberIn(files, `${folder}/queue/logical_block_size`)) ??
    (await numberIn(files, `${folder}/../queue/logical_block_size`))
  if (sectors === undefined || block === undefined) {
    throw new SpillwayError('ENOSYS', `the size of block device ${major}:${minor} is not told here`)
  }
  return { sizeBytes: sectors * sectorBytes, logicalBlockBytes: block }
}

/** As the C library splits a device number; beyond 32 bits a number in JavaScript has no shifts. */
function deviceNumber(device: number): { major: number; minor: number } {
  const high = Math.floor(device / 2 ** 32)
  const low = device % 2 ** 32
  const major = ((low >>> 8) & 0xfff) + Math.floor(high / 2 ** 12) * 2 ** 12
  const minor = (low & 0xff) + ((low >>> 20) << 8) + (high & 0xfff) * 2 ** 20
  return { major, minor }
}

async function numberIn(files: Files, path: string): Promise<number | undefined> {
  const text = new Uint8Array(32)
  try {
    const opened = await files.open(path, files.flag('O_RDONLY'))
    try {
      const bytes = await files.read(opened, text, 0)
      return Number(new TextDecoder().decode(text.subarray(0, bytes)).trim())
    } finally {
      await files.close(opened)
    }
  } catch {
    return undefined
  }
}
