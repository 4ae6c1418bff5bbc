/**
 * A backup that keeps pages encrypted in another.
 *
 * @module @spillway/backup-encrypted
 */

export { type EncryptedBackup, type EncryptedBackupStats, encryptedBackup } from './encrypted-backup.ts'
export type { EncryptedBackupOptions } from './options.ts'
