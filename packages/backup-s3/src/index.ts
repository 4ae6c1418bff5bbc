/**
 * A backup in an S3 bucket.
 *
 * @module @spillway/backup-s3
 */

export type { CostReport, RequestVerb, VerbCosts } from './cost/ledger.ts'
export {
  type ClientRequestHandler,
  type PageHttpHandlerOptions,
  pageHttpHandler,
} from './http/page-http-handler.ts'
export type {
  CompactionOptions,
  ObjectSettings,
  RequestBudget,
  RequestPrices,
  S3BackupOptions,
} from './options.ts'
export type { SweepOptions, SweepReport } from './ownership/sweep.ts'
export { S3Backup } from './s3-backup.ts'
export type { S3BackupStats } from './stats.ts'
