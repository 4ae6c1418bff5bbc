import { SpillwayError } from '@spillway/core'
import type { FileStatus, FileSystem } from './file-system.ts'

/** Files that a backup of this process is in, by file system and identity. */
const heldFiles = new WeakMap<FileSystem, Set<string>>()

/**
 * Notes that a backup is in this file: two in one would overwrite each other's pages, however they came by it. Returns what ends that;
 * throws `EBUSY` while another one is there.
 */
export function holdFile(fileSystem: FileSystem, status: FileStatus, place: string): () => void {
  const files = heldFiles.get(fileSystem) ?? new Set<string>()
  heldFiles.set(fileSystem, files)
  const identity = identityOf(status)
  if (files.has(identity)) {
    throw new SpillwayError(
      'EBUSY',
      `${place} is used by another backup of this process; share that one with shareBackup`,
    )
  }
  files.add(identity)
  return () => void files.delete(identity)
}

/** Whether both are of one file, or of one device. */
export function isSameFile(one: FileStatus, other: FileStatus): boolean {
  return identityOf(one) === identityOf(other)
}

function identityOf(status: FileStatus): string {
  // One device may have several names.
  const isDevice = status.isBlockDevice?.() === true
  return isDevice ? `device ${status.rdev}` : `${status.dev} ${status.ino}`
}
