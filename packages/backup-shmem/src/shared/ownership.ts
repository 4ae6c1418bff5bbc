import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs'
import { available, isFileLocked, lockFile } from '@spillway/native'
import { decodeHeader, headerBytes, type SharedHeader } from './layout.ts'
import { currentOwner, isDead } from './owner.ts'

/**
 * Whether the owner of a shared file still lives:
 *
 *   its header says locked, and native code is here ──▶ it lives as long as the lock on the open file is held
 *   else ──▶ by process number, start time and process namespace: one of another namespace counts as alive
 *
 * The kernel ends a lock with its holder, whatever kills it, and knows it across containers that share the directory.
 */

/** Locks a new file for its owner. False where that cannot be done. */
export function lockForOwner(fd: number): boolean {
  if (!available().available) return false
  try {
    return lockFile(fd)
  } catch {
    // The file system has no locks.
    return false
  }
}

/** Whether the owner that the header of this open file names is known to be gone. */
export function isAbandoned(fd: number, header: SharedHeader): boolean {
  if (header.isLocked && available().available) {
    try {
      return !isFileLocked(fd)
    } catch {
      // Then the other way tells what it can.
    }
  }
  return isDead(header.owner)
}

/** `look` at the header of a file; `undefined` when it is no shared file or cannot be read. */
export function withHeader<Result>(
  path: string,
  look: (fd: number, header: SharedHeader) => Result,
): Result | undefined {
  let fd: number
  try {
    fd = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK)
  } catch {
    return undefined
  }
  try {
    const bytes = new Uint8Array(headerBytes)
    const length = readSync(fd, bytes, 0, headerBytes, 0)
    return look(fd, decodeHeader(bytes.subarray(0, length), fstatSync(fd).size, path))
  } catch {
    return undefined
  } finally {
    closeSync(fd)
  }
}

/** Says who has a name, for the error of whoever wanted it. */
export function describeOwner(path: string, { owner, isLocked }: SharedHeader): string {
  const isHere = owner.namespace !== 0 && owner.namespace === currentOwner().namespace
  if (isHere) return `process ${owner.pid} has ${path} open`
  const who = `process ${owner.pid} of another process namespace (a container)`
  if (isLocked && available().available) return `${who} has ${path} open`
  return (
    `${path} belongs to ${who}, and whether that still runs cannot be told ` +
    `${isLocked ? 'without @spillway/native here' : 'because its owner had no @spillway/native'}; remove the file if it does not`
  )
}
