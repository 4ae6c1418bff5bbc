import type { BackupStats } from '@spillway/core'
import type { CostReport, VerbCosts } from './ledger.ts'

export interface S3BackupStats extends BackupStats {
  /** The folder under the prefix that this instance writes to. */
  readonly epoch: string
  readonly objects: number
  /** Bytes stored per live byte; garbage that is being deleted counts. */
  readonly spaceAmplification: number
  /** PUT and GET requests for each segment's worth of pages that was moved. 1 is the least for whole segments. */
  readonly requestAmplification: number
  /** Requests and dollars. */
  readonly costs: CostReport
  readonly retries: number
  /** Answers that asked to slow down. */
  readonly throttles: number
  /** GETs that were asked for a second time because they were slow. */
  readonly hedges: number
  /** GETs that went on from the byte where one broke off. */
  readonly resumes: number
  readonly checksumErrors: number
  /** Bytes that were read only to save a request. */
  readonly overReadBytes: number
  readonly compactions: number
  readonly compactedPages: number
  readonly deletionsPending: number
  readonly deletionFailures: number
  readonly leaseRenewals: number
  /** What last went wrong with a deletion, a compaction or a manifest; they are tried again. */
  readonly backgroundError: Error | undefined
  /** Segment buffers in use. */
  readonly bufferBytes: number
}

/** Requests that moved pages. */
export function pageRequests({ requests, housekeeping }: VerbCosts): number {
  return requests - housekeeping
}

/** 1 when there is nothing of either, Infinity when there is something for nothing. */
export function ratio(amount: number, ideal: number): number {
  if (ideal > 0) return amount / ideal
  return amount === 0 ? 1 : Number.POSITIVE_INFINITY
}
