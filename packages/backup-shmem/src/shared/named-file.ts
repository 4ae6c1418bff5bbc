import { randomBytes } from 'node:crypto'
import {
  closeSync,
  constants,
  fstatSync,
  ftruncateSync,
  linkSync,
  lstatSync,
  openSync,
  readdirSync,
  renameSync,
  type Stats,
  unlinkSync,
  writeSync,
} from 'node:fs'
import { join } from 'node:path'
import { pace, SpillwayError, smallCallBytes, systemError } from '@spillway/core'
import { encodeHeader, headerBytes, layoutOf, type SharedHeader } from './layout.ts'
import { currentOwner, isDead, type Owner } from './owner.ts'
import { describeOwner, isAbandoned, lockForOwner, withHeader } from './ownership.ts'

/**
 * The life of a shared file. It gets its name only when its header is complete, so that nobody can meet it half made:
 *
 *   .spillway-make-…  (exclusive, 0600) ── header ──▶ link to <name> (fails when taken) ──▶ in use ──▶ unlinked at close
 *        │                                                                                     │
 *        └── owner died: name says whose it was                    owner died: its lock is gone, or the header says who
 *                     │                                                                        │
 *                     └───────────────────── removed by the next open ◀────────────────────────┘
 */
export interface NamedFile {
  readonly fd: number
  readonly path: string
  readonly header: SharedHeader
}

export interface NamedFileOptions {
  readonly directory: string
  readonly name: string
  readonly pageSizeBytes: number
  readonly capacitySlots: number
  readonly slotRange: number
}

const makingPrefix = '.spillway-make-'
const sweepingPrefix = '.spillway-sweep-'

/**
 * Creates the file, locked by this process. Rejects with `EEXIST` when the name is taken by somebody alive or by what
 * is not ours, and with the system's own code otherwise.
 */
export async function createNamedFile(options: NamedFileOptions): Promise<NamedFile> {
  const { directory, name, pageSizeBytes, capacitySlots, slotRange } = options
  await sweepDeadOwners(directory)
  const owner = currentOwner()
  const path = join(directory, name)
  const makingPath = join(directory, `${makingPrefix}${ownerName(owner)}`)
  const fd = openSync(
    makingPath,
    constants.O_RDWR | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW,
    0o600,
  )
  let header: SharedHeader
  try {
    // Before the header says so, and so before anybody can look for the lock.
    header = { pageSizeBytes, capacitySlots, slotRange, owner, isLocked: lockForOwner(fd) }
    writeSync(fd, encodeHeader(header), 0, headerBytes, 0)
    ftruncateSync(fd, layoutOf(pageSizeBytes, capacitySlots).fileBytes)
    // Fails when the name is taken, by a symbolic link too, and follows none.
    linkSync(makingPath, path)
  } catch (failure) {
    closeSync(fd)
    unlinkSync(makingPath)
    if ((failure as { code?: unknown }).code === 'EEXIST') {
      throw new SpillwayError('EEXIST', `the name is taken: ${describeHolder(path)}`, {
        cause: failure,
      })
    }
    throw systemError(failure, `cannot create ${path}`)
  }
  unlinkSync(makingPath)
  return { fd, path, header }
}

/** Removes the name, if it is still this file's, and returns the memory even while others have the file open. */
export function removeNamedFile(file: NamedFile): void {
  const own = fstatSync(file.fd)
  if (isSameFile(own, statOf(file.path))) unlinkSync(file.path)
  // An attached process that reads on finds the file too short, and says that the handle is stale.
  ftruncateSync(file.fd, 0)
  closeSync(file.fd)
}

/** Removes the files of owners that died. Touches nothing of another user, nor what does not say whose it was. */
export async function sweepDeadOwners(directory: string): Promise<void> {
  const user = process.geteuid?.()
  for (const name of readdirSync(directory)) {
    const turn = pace(smallCallBytes)
    if (turn !== undefined) await turn
    const path = join(directory, name)
    const found = statOf(path)
    if (found === undefined || !found.isFile() || found.uid !== user || (found.mode & 0o077) !== 0) continue
    const isTemporary = name.startsWith(makingPrefix) || name.startsWith(sweepingPrefix)
    const isLeft = isTemporary ? isLeftBehind(path, name) : withHeader(path, isAbandoned)
    if (isLeft === true) removeDead(directory, path, found)
  }
}

/** A file that has no name yet: with a whole header its lock tells, else its name says whose it was. */
function isLeftBehind(path: string, name: string): boolean {
  const owner = ownerOfName(name)
  return withHeader(path, isAbandoned) ?? (owner !== undefined && isDead(owner))
}

/**
 * Two processes may sweep at once, and the name may have a new file by the time it is removed. So it is first moved
 * aside, which only one can do, and looked at again.
 */
function removeDead(directory: string, path: string, judged: Stats): void {
  const aside = join(directory, `${sweepingPrefix}${ownerName(currentOwner())}`)
  try {
    if (!isSameFile(judged, statOf(path))) return
    renameSync(path, aside)
  } catch {
    return
  }
  try {
    const moved = statOf(aside)
    if (moved !== undefined && !isSameFile(judged, moved)) linkSync(aside, path)
    unlinkSync(aside)
  } catch {
    // Another sweep found what this one had moved aside, and removed it.
  }
}

function ownerName({ pid, startTicks, namespace }: Owner): string {
  return `${pid}-${startTicks}-${namespace}-${randomBytes(6).toString('hex')}`
}

function ownerOfName(name: string): Owner | undefined {
  const match = /-(\d+)-(\d+)-(\d+)-[0-9a-f]{12}$/.exec(name)
  if (match === null) return undefined
  return { pid: Number(match[1]), startTicks: Number(match[2]), namespace: Number(match[3]) }
}

function describeHolder(path: string): string {
  const found = statOf(path)
  if (found === undefined) return `${path} was taken a moment ago`
  if (!found.isFile()) return `${path} is not a file`
  return (
    withHeader(path, (_fd, header) => describeOwner(path, header)) ??
    `${path} is not a shared backup, or of another user`
  )
}

function statOf(path: string): Stats | undefined {
  try {
    return lstatSync(path)
  } catch {
    return undefined
  }
}

function isSameFile(one: Stats, other: Stats | undefined): boolean {
  return other !== undefined && one.ino === other.ino && one.dev === other.dev
}
