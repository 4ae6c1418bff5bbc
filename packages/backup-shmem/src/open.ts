import { closeSync, constants, ftruncateSync, openSync, statfsSync } from 'node:fs'
import { SlotAllocator, SpillwayError, systemError } from '@spillway/core'
import { available, createMemfd } from '@spillway/native'
import { Headroom } from './headroom.ts'
import { CallMedium } from './media/call-medium.ts'
import { MappedMedium } from './media/mapped-medium.ts'
import type { Medium } from './media/medium.ts'
import { type ShmemBackupOptions, type ShmemSettings, settingsOf } from './options.ts'
import { HandleTable } from './shared/handle-table.ts'
import { layoutOf } from './shared/layout.ts'
import { createNamedFile, removeNamedFile } from './shared/named-file.ts'
import { ShmemBackup } from './shmem-backup.ts'

/** `O_TMPFILE`, which `node:fs` does not name: a file that has no name and cannot be left behind. */
const unnamedFile = 0o20000000 | constants.O_DIRECTORY

const leastSegmentBytes = 16 * 1024 ** 2
/** Files that a backup without native code opens at most. */
const mostSegments = 256
/** tmpfs and ramfs. */
const fileSystemsInMemory: ReadonlySet<number> = new Set([0x01021994, 0x858458f6])
/** What people try instead, as `statfs` numbers it. */
const otherFileSystems: ReadonlyMap<number, string> = new Map([
  [0x794c7630, 'an overlay, and what lies below it, a tmpfs or a disk, cannot be told'],
  [0x958458f6, 'a hugetlbfs, whose files can only be mapped and not written'],
  [0xef53, 'on ext4, a disk; backup-file is made for disks'],
  [0x58465342, 'on xfs, a disk; backup-file is made for disks'],
  [0x9123683e, 'on btrfs, a disk; backup-file is made for disks'],
  [0x2fc12fc1, 'on zfs, a disk; backup-file is made for disks'],
  [0x6969, 'on NFS, a network; backup-file is made for files'],
  [0x65735546, 'on a FUSE file system; backup-file is made for files'],
])

interface ChosenMedium {
  readonly medium: Medium
  readonly mediumReason: string
  readonly handleTable?: HandleTable
}

/**
 * Opens a backup in shared memory. Whoever opens it closes it.
 *
 * Throws `TypeError` or `RangeError` for a bad option. Rejects with `ENOSYS` (neither a memfd nor a tmpfs, or the medium
 * asked for is not there), `EEXIST` (the shared name is taken), `EINVAL` (the directory is not in memory) and the
 * system's own code, such as `ENOENT`, `EACCES` or `EMFILE`.
 */
export async function openShmemBackup(options: ShmemBackupOptions): Promise<ShmemBackup> {
  const settings = settingsOf(options)
  const { name, pageSizeBytes, capacityBytes, warmBytes, keepFreeBytes, directory } = settings
  const slots = new SlotAllocator({ capacitySlots: capacityBytes / pageSizeBytes })
  const { medium, mediumReason, handleTable } = await chooseMedium(settings, slots)
  const headroom = new Headroom({
    ...settings.system,
    backup: name,
    keepFreeBytes,
    directory: medium.kind === 'memfd' ? undefined : directory,
  })
  return new ShmemBackup({
    name,
    pageSizeBytes,
    capacityBytes,
    warmBytes,
    medium,
    mediumReason,
    headroom,
    slots,
    handleTable,
  })
}

async function chooseMedium(settings: ShmemSettings, slots: SlotAllocator): Promise<ChosenMedium> {
  if (settings.sharedName !== undefined) return namedMedium(settings, settings.sharedName, slots)
  if (settings.medium === 'tmpfs') return unnamedFiles(settings, "medium is 'tmpfs'")
  const { memfd, mmap, punchHole, reason, memfdReason } = available()
  if (memfd && mmap && punchHole) return memfdMedium(settings)
  const why = reason ?? memfdReason ?? 'mmap or hole punching is not there'
  if (settings.medium === 'memfd') throw new SpillwayError('ENOSYS', `no memfd here: ${why}`)
  return unnamedFiles(settings, why)
}

function memfdMedium({ name, capacityBytes }: ShmemSettings): ChosenMedium {
  try {
    const fd = createMemfd(`spillway-${name}`.slice(0, 60))
    const closeFile = () => closeSync(fd)
    try {
      ftruncateSync(fd, capacityBytes)
    } catch (failure) {
      closeFile()
      throw failure
    }
    const medium = new MappedMedium({
      fd,
      kind: 'memfd',
      dataOffsetBytes: 0,
      lengthBytes: capacityBytes,
      closeFile,
    })
    return { medium, mediumReason: 'memory without a name can be mapped' }
  } catch (failure) {
    throw systemError(failure, 'cannot make a memfd', { backup: name })
  }
}

function unnamedFiles({ name, directory, capacityBytes }: ShmemSettings, why: string): ChosenMedium {
  assertInMemory(directory)
  const smallest = Math.max(leastSegmentBytes, capacityBytes / mostSegments)
  const openSegment = () => openSync(directory, constants.O_RDWR | unnamedFile, 0o600)
  try {
    // The first one is opened and closed to find out now whether this directory takes files.
    closeSync(openSegment())
  } catch (failure) {
    throw systemError(failure, `cannot make unnamed files in ${directory}`, { backup: name })
  }
  const medium = new CallMedium({
    openSegment,
    segmentBytes: 2 ** Math.ceil(Math.log2(smallest)),
    dataOffsetBytes: 0,
    lengthBytes: capacityBytes,
    closeFiles: (fds) => fds.forEach((fd) => void closeSync(fd)),
  })
  return { medium, mediumReason: `unnamed files in ${directory}: ${why}` }
}

async function namedMedium(
  settings: ShmemSettings,
  sharedName: string,
  slots: SlotAllocator,
): Promise<ChosenMedium> {
  const { directory, pageSizeBytes, capacityBytes: lengthBytes } = settings
  assertInMemory(directory)
  const capacitySlots = slots.capacitySlots
  const { slotRange } = slots
  const file = await createNamedFile({ directory, name: sharedName, pageSizeBytes, capacitySlots, slotRange })
  const { tableOffsetBytes, dataOffsetBytes } = layoutOf(pageSizeBytes, capacitySlots)
  const handleTable = new HandleTable(file.fd, tableOffsetBytes)
  const closeFile = () => removeNamedFile(file)
  const { mmap, punchHole, reason } = available()
  if (settings.medium === 'auto' && mmap && punchHole) {
    const medium = new MappedMedium({ fd: file.fd, kind: 'tmpfs', dataOffsetBytes, lengthBytes, closeFile })
    return { medium, handleTable, mediumReason: `${file.path}, mapped: other processes can attach` }
  }
  const why =
    settings.medium === 'tmpfs' ? "medium is 'tmpfs'" : (reason ?? 'mmap or hole punching is not there')
  const medium = new CallMedium({
    openSegment: () => file.fd,
    segmentBytes: lengthBytes,
    dataOffsetBytes,
    lengthBytes,
    closeFiles: closeFile,
  })
  return { medium, handleTable, mediumReason: `${file.path}, other processes can attach: ${why}` }
}

function assertInMemory(directory: string): void {
  let type: number
  try {
    type = statfsSync(directory).type
  } catch (failure) {
    throw systemError(failure, `cannot keep pages in ${directory}`)
  }
  if (fileSystemsInMemory.has(type)) return
  const what =
    otherFileSystems.get(type) ?? `on a file system of type 0x${type.toString(16)}, probably a disk`
  throw new SpillwayError('EINVAL', `${directory} is ${what}; shared memory needs a tmpfs, such as /dev/shm`)
}
