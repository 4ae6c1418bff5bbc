/** What the kernel calls file systems (`statfs(2)`), where it matters what they are. */
const tmpfs = 0x01021994
const ramfs = 0x858458f6
const ext4 = 0xef53
const xfs = 0x58465342
const btrfs = 0x9123683e
const zfs = 0x2fc12fc1
const bcachefs = 0xca451a4e
const overlay = 0x794c7630

/** Served by another machine or another program. */
const served: Readonly<Record<number, string>> = {
  [0x65735546]: 'FUSE',
  [0x6969]: 'NFS',
  [0xff534d42]: 'CIFS',
  [0xfe534d42]: 'SMB',
  [0x517b]: 'SMB',
  [0x01021997]: '9p',
  [0x00c36400]: 'Ceph',
  [0x5346414f]: 'AFS',
  [0x73757245]: 'Coda',
  [0x0bd00bd0]: 'Lustre',
}

type FileSystemType = number | undefined

/** Whether pages in it take memory: those of a container count against its limit. */
export function isInMemory(type: FileSystemType): boolean {
  return type === tmpfs || type === ramfs
}

/** Whether it writes to another file system, and says nothing of which. */
export function isLayered(type: FileSystemType): boolean {
  return type === overlay
}

/** Whether what was taken is missing from its free space at once; others show it when they write their next transaction. */
export function tellsSpaceAtOnce(type: FileSystemType): boolean {
  return type === ext4 || type === xfs || isInMemory(type)
}

/** Whether it writes changes elsewhere, so that overwriting takes space, too. */
export function copiesOnWrite(type: FileSystemType): boolean {
  return type === btrfs || type === zfs || type === bcachefs
}

/** Whether space comes back only in the whole pieces that it was taken in. */
export function freesWholePieces(type: FileSystemType): boolean {
  return type === btrfs
}

/** Who serves it, when that is not this kernel alone. */
export function servedBy(type: FileSystemType): string | undefined {
  return type === undefined ? undefined : served[type]
}
