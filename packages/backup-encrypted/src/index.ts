export { type EncryptedBackup, type EncryptedBackupStats, encryptedBackup } from './encrypted-backup.ts'
export type { EncryptedBackupOptions } from './options.ts'
