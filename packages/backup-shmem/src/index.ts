/**
 * A backup in shared memory of the same machine.
 *
 * @module @spillway/backup-shmem
 */

export { openShmemBackup } from './open.ts'
export type { ShmemBackupOptions } from './options.ts'
export { type AttachedShmemBackup, type AttachOptions, attachShmemBackup } from './shared/attached.ts'
export type { ShmemBackup } from './shmem-backup.ts'
export type { ShmemBackupStats } from './stats.ts'
