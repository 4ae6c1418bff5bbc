/**
 * A backup made of several others, fastest first.
 *
 * @module @spillway/backup-tiered
 */

export type { TieredBackupOptions, TierOptions } from './options.ts'
export type { TierStats } from './tier.ts'
export { type TieredBackup, type TieredBackupStats, tieredBackup } from './tiered-backup.ts'
