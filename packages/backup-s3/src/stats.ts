import type { BackupStats } from '@spillway/core'
import type { CostLedger, CostReport, VerbCosts } from './cost/ledger.ts'
import type { Settings } from './options.ts'
import type { Deletions } from './ownership/deletions.ts'
import type { ManifestKeeper } from './ownership/manifest-keeper.ts'
import type { Owner } from './ownership/owner.ts'
import type { Restores } from './restore/restores.ts'
import type { Compactor } from './segments/compaction.ts'
import type { SegmentSlots } from './segments/segment-slots.ts'
import type { SegmentTable } from './segments/segment-table.ts'
import type { SegmentWriter } from './segments/segment-writer.ts'
import type { S3Service } from './service/service.ts'

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
  /** How GETs of pages go: `'direct'` past the SDK's middleware, or through it, and then why. */
  readonly pageRequests: {
    readonly way: 'direct' | 'sdk'
    readonly reason: string | undefined
    /** How many went each way. */
    readonly direct: number
    readonly throughSdk: number
  }
  /** The bucket keeps versions of what is deleted, which are paid for. */
  readonly keepsVersions: boolean
  /** The service tells when an object was written. Where it does not, nothing of dead owners is swept. */
  readonly tellsTimes: boolean
  /** What last went wrong with a deletion, a compaction or a manifest; they are tried again. */
  readonly backgroundError: Error | undefined
  /** Bytes that segments which are being filled or sent may have. */
  readonly bufferBytes: number
}

export interface StatsSources {
  readonly settings: Settings
  readonly ledger: CostLedger
  readonly service: S3Service
  readonly table: SegmentTable
  readonly deletions: Deletions
  readonly slots: SegmentSlots
  readonly owner: Owner
  readonly writer: SegmentWriter
  readonly restores: Restores
  readonly compactor: Compactor
  readonly manifests: ManifestKeeper | undefined
  readonly copiedPages: number
  readonly droppedPages: number
  readonly leakedPages: number
}

/** Puts together what the parts of a backup have counted. */
export function collectStats(sources: StatsSources): S3BackupStats {
  const { settings, ledger, service, table, deletions, slots, owner, writer, restores } = sources
  const { compactor, manifests, copiedPages, droppedPages, leakedPages } = sources
  const { pageSizeBytes, pagesPerSegment, segmentBytes } = settings
  const { livePages, storedBytes } = table
  const { backedUpPages } = writer
  const mediumBytes = storedBytes + deletions.pendingBytes
  const costs = ledger.report(backedUpPages * pageSizeBytes, copiedPages * pageSizeBytes)
  return {
    livePages,
    backedUpPages,
    copiedPages,
    droppedPages,
    mediumBytes,
    writebackErrors: 0,
    leakedPages,
    epoch: owner.epoch,
    objects: table.objects.size,
    spaceAmplification: ratio(mediumBytes, livePages * pageSizeBytes),
    requestAmplification: ratio(
      pageRequests(costs.verbs.put) + pageRequests(costs.verbs.get),
      (backedUpPages + copiedPages) / pagesPerSegment,
    ),
    costs,
    retries: service.retry.retries,
    throttles: service.retry.throttles,
    hedges: restores.hedging.hedges,
    ...restores.counters,
    compactions: compactor.runs,
    compactedPages: compactor.movedPages,
    deletionsPending: deletions.pending,
    deletionFailures: deletions.failures,
    leaseRenewals: owner.renewals,
    pageRequests: service.ranges.report(),
    keepsVersions: service.keepsVersions,
    tellsTimes: service.tellsTimes,
    backgroundError: deletions.lastError ?? compactor.lastError ?? manifests?.lastError,
    bufferBytes: slots.inUse * segmentBytes,
  }
}

/** Requests that moved pages. */
function pageRequests({ requests, housekeeping }: VerbCosts): number {
  return requests - housekeeping
}

/** 1 when there is nothing of either, Infinity when there is something for nothing. */
function ratio(amount: number, ideal: number): number {
  if (ideal > 0) return amount / ideal
  return amount === 0 ? 1 : Number.POSITIVE_INFINITY
}
