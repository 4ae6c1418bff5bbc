import { type Backup, type BackupStats, defineBackup } from '@spillway/core'
import { Mover } from './mover.ts'
import { settingsOf, type TieredBackupOptions } from './options.ts'
import { Tier, type TierStats } from './tier.ts'
import { TieredPages } from './tiered-pages.ts'

export interface TieredBackupStats extends BackupStats {
  /** Each tier, fastest first. */
  readonly tiers: readonly TierStats[]
  /** Bytes that moved between tiers. */
  readonly movedBytes: number
  /** Memory for pages that move, most so far. */
  readonly stagingBytes: number
  /** Memory for where pages are. */
  readonly metadataBytes: number
}

export interface TieredBackup extends Backup {
  stats(): TieredBackupStats
}

/**
 * Makes one backup of several, fastest first. Pages go to the first tier that takes them; above a mark the oldest move on to the next. A tier
 * that does not store is passed by, and pages in one that cannot be read are `EIO` until it can. It closes its tiers when it is closed.
 *
 * Throws `TypeError` for no tiers, one that is there twice, one that keeps nothing or outlives the process; `RangeError` for pages of
 * different sizes and for marks out of order.
 */
export function tieredBackup(options: TieredBackupOptions): TieredBackup {
  const settings = settingsOf(options)
  const {
    name = 'tiered',
    promote = 'never',
    moveBytesPerSecond: bytesPerSecond = defaultMoveBytes,
  } = options
  const backups = settings.map(({ backup }) => backup)
  const { pageSizeBytes, preferredBatchPages, preferredCallsInFlight } = backups[0].capabilities
  const tiers = settings.map((tier) => new Tier(name, tier))
  const mover = new Mover({ tiers, pageSizeBytes, bytesPerSecond, promotes: promote === 'second' })
  const pages = new TieredPages({ name, pageSizeBytes, tiers, mover })
  const statsOfAll = () => backups.map((backup) => backup.stats())
  const sum = (values: readonly number[]) => values.reduce((total, value) => total + value, 0)
  return defineBackup({
    name,
    medium: `tiered ${backups.map(({ capabilities }) => capabilities.medium).join(', ')}`,
    pageSizeBytes,
    preferredBatchPages,
    preferredCallsInFlight,
    detectsCorruption: backups.every(({ capabilities }) => capabilities.detectsCorruption),
    numbered: {
      slicePages: preferredBatchPages,
      bytesAvailable: () => pages.bytesAvailable(),
      reserve: backups.some(({ capabilities }) => capabilities.reserves)
        ? (bytes) => pages.reserve(bytes)
        : undefined,
      store: (first, spans, options) => pages.store(first, spans, options),
      copyRuns: (handles, spans, options) => pages.copyRuns(handles, spans, options),
      drop: (handles) => pages.drop(handles),
    },
    startCopy: (first, span, done) => pages.startCopy(first, span, done),
    mediumBytes: () => sum(statsOfAll().map(({ mediumBytes }) => mediumBytes)),
    figures: () => ({
      tiers: tiers.map((tier) => tier.stats),
      ...mover.figures,
      metadataBytes: sum(tiers.map((tier) => tier.metadataBytes)),
      writebackErrors: sum(statsOfAll().map(({ writebackErrors }) => writebackErrors)),
    }),
    async release() {
      await mover.stop()
      const ends = await Promise.allSettled(backups.map((backup) => backup.close()))
      for (const end of ends) if (end.status === 'rejected') throw end.reason
    },
  })
}

const defaultMoveBytes = 256 * 2 ** 20
