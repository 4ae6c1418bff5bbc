/**
 * A backup that keeps pages compressed in another.
 *
 * @module @spillway/backup-compressed
 */

export type { Codec } from './codec.ts'
export { type CompressedBackup, type CompressedBackupStats, compressedBackup } from './compressed-backup.ts'
export type { CompressedBackupOptions } from './options.ts'
export { zlibCodec } from './zlib-codec.ts'
