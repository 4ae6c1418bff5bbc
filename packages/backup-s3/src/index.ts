export {
  type ClientRequestHandler,
  type PageHttpHandlerOptions,
  pageHttpHandler,
} from './http/page-http-handler.ts'
export type { CostReport, RequestVerb, VerbCosts } from './ledger.ts'
export type {
  CompactionOptions,
  ObjectSettings,
  RequestBudget,
  RequestPrices,
  S3BackupOptions,
} from './options.ts'
export { S3Backup } from './s3-backup.ts'
export type { S3BackupStats } from './stats.ts'
export type { SweepOptions, SweepReport } from './sweep.ts'
