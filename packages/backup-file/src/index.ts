/**
 * A backup in a file or a block device.
 *
 * @module @spillway/backup-file
 */

export type { EngineName } from './engine.ts'
export type { FileBackup, FileBackupStats, FileImageStats } from './file-backup.ts'
export type { FileStatus, FileSystem, FileSystemStatus } from './file-system.ts'
export {
  type ImageReport,
  type StoreReport,
  type VerifyStoreOptions,
  verifyStore,
} from './images/verify-store.ts'
export { openFileBackup } from './open-file-backup.ts'
export type { FileBackupOptions } from './options.ts'
