export type { Codec } from './codec.ts'
export { type CompressedBackup, type CompressedBackupStats, compressedBackup } from './compressed-backup.ts'
export type { CompressedBackupOptions } from './options.ts'
