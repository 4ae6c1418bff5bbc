import type { Backup, BackupStats } from '@spillway/core'
import type { BudgetStats, MemoryBudget, Pool, PoolStats } from '@spillway/pool'
import { backupNames, budgetNames, poolNames } from './names.ts'

/** What is measured: its name with dots, as OpenTelemetry has it, and its unit as Prometheus spells it. */
export interface Metric {
  readonly name: string
  readonly help: string
  readonly kind: 'gauge' | 'counter'
  readonly unit: 'bytes' | 'dollars' | 'none'
}

/** One figure of a metric. */
export interface Reading {
  readonly value: number
  readonly labels: Readonly<Record<string, string>>
}

/** A metric, and what of a source it is. */
interface Figure<Source> extends Metric {
  readonly of: (source: Source) => number
}

/** Requests of one kind, as the S3 backup counts them. */
interface VerbStats {
  readonly requests: number
  readonly failures: number
  readonly bytesSent: number
  readonly bytesReceived: number
}

/** What a backup that pays for requests says of them. */
export interface CostStats {
  readonly requests: number
  readonly dollars: number
  readonly verbs: Readonly<Record<string, VerbStats>>
}

interface PoolSource {
  readonly stats: PoolStats
  readonly pageSizeBytes: number
}

interface BackupSource {
  readonly stats: BackupStats
  readonly pageSizeBytes: number
}

interface VerbSource {
  readonly verb: string
  readonly stats: VerbStats
}

type Maker = <Source>(
  name: string,
  of: (source: Source) => number,
  help: string,
  unit?: Metric['unit'],
) => Figure<Source>

const gauge: Maker = (name, of, help, unit = 'bytes') => ({ name, help, kind: 'gauge', unit, of })
const counter: Maker = (name, of, help, unit = 'none') => ({ name, help, kind: 'counter', unit, of })

const poolFigures: readonly Figure<PoolSource>[] = [
  gauge('pool.limit', (pool) => pool.stats.limitBytes, 'Memory that the pool may take.'),
  gauge('pool.resident', (pool) => pool.stats.residentBytes, 'Memory that the pool holds, in use and idle.'),
  gauge('pool.in_use', (pool) => pool.stats.inUseBytes, 'Memory in chunks of buffers.'),
  gauge('pool.idle', (pool) => pool.stats.idleBytes, 'Memory that no buffer uses, kept warm.'),
  gauge('pool.retained', (pool) => pool.stats.retainedBytes, 'Memory that backups freed a moment ago.'),
  gauge('pool.stranded', (pool) => pool.stats.strandedBytes, 'Unused memory that cannot be given back yet.'),
  gauge('pool.pinned', (pool) => pool.stats.pinnedBytes, 'Memory held by pins and running operations.'),
  gauge('pool.dirty', (pool) => pool.stats.dirtyBytes, 'Memory whose content is not stored.'),
  gauge('pool.backed_up', (pool) => pool.stats.backedUpBytes, 'Bytes in a backup and not in memory.'),
  gauge('pool.kept', (pool) => pool.stats.keptBytes, 'Bytes in memory, unchanged, and in a backup.'),
  gauge('pool.metadata', (pool) => pool.stats.metadataBytes, 'Memory for buffers, tables and records.'),
  gauge('pool.buffers', (pool) => pool.stats.buffers, 'Buffers of the pool.', 'none'),
  gauge('pool.chunks', (pool) => pool.stats.chunks, 'Chunks that are in memory.', 'none'),
  gauge('pool.pins', (pool) => pool.stats.pins, 'Pins that the application holds.', 'none'),
  gauge('pool.waiters', (pool) => pool.stats.waiters, 'Claims of memory that wait now.', 'none'),
  gauge(
    'pool.undropped_pages',
    (pool) => pool.stats.dropFailures,
    'Pages that a backup refused to drop.',
    'none',
  ),
  counter(
    'pool.provider_failures',
    (pool) => pool.stats.providerFailures,
    'Calls in which a page provider failed to take memory back.',
  ),
  counter('pool.stored', bytesOf('backedUpPages'), 'Bytes stored in backups.', 'bytes'),
  counter('pool.restored', bytesOf('restoredPages'), 'Bytes copied in from backups.', 'bytes'),
  counter('pool.purged', bytesOf('purgedPages'), 'Bytes whose content was given up.', 'bytes'),
  counter('pool.evicted_clean', bytesOf('evictedCleanPages'), 'Bytes evicted without I/O.', 'bytes'),
  counter('pool.evicted_dirty', bytesOf('evictedDirtyPages'), 'Bytes evicted after storing.', 'bytes'),
  counter('pool.bypassed', bytesOf('bypassedPages'), 'Bytes read without becoming resident.', 'bytes'),
  counter('pool.refaulted', bytesOf('refaultedPages'), 'Bytes restored soon after eviction.', 'bytes'),
  counter('pool.chunks_used', (pool) => pool.stats.usedChunks, 'Chunks that accesses used.'),
  counter(
    'pool.chunks_missed',
    (pool) => pool.stats.missedChunks,
    'Chunks accesses waited for a backup for.',
  ),
  counter('pool.backup_calls', (pool) => pool.stats.backupCalls, 'Calls to backups that stored.'),
  counter('pool.restore_calls', (pool) => pool.stats.restoreCalls, 'Calls to backups that copied in.'),
  counter('pool.backup_failures', (pool) => pool.stats.backupFailures, 'Storing calls that failed.'),
  counter('pool.restore_failures', (pool) => pool.stats.restoreFailures, 'Copying calls that failed.'),
  counter('pool.splits', (pool) => pool.stats.splitChunks, 'Chunks split by a backup that stopped.'),
  counter('pool.readaheads', (pool) => pool.stats.readaheads, 'Restores begun before anybody asked.'),
  counter('pool.waits', (pool) => pool.stats.waits, 'Claims of memory that had to wait.'),
  counter('pool.refusals', (pool) => pool.stats.refusals, 'Claims of memory that were refused.'),
]

const budgetFigures: readonly Figure<BudgetStats>[] = [
  gauge('budget.limit', (budget) => budget.limitBytes, 'Memory that all pools of the budget may take.'),
  gauge('budget.resident', (budget) => budget.residentBytes, 'Memory that the pools of the budget hold.'),
  gauge('budget.charged', (budget) => budget.chargedBytes, 'Memory accounted to buffers.'),
  gauge('budget.minimum', (budget) => budget.minBytes, 'Sum of what no pool takes from another.'),
  gauge('budget.waiters', (budget) => budget.waiters, 'Claims of memory that wait now.', 'none'),
]

const backupFigures: readonly Figure<BackupSource>[] = [
  gauge('backup.live', bytesOf('livePages'), 'Bytes of pages that are stored.'),
  gauge('backup.medium', (backup) => backup.stats.mediumBytes, 'Bytes that the medium holds for them.'),
  counter('backup.stored', bytesOf('backedUpPages'), 'Bytes of pages that were stored.', 'bytes'),
  counter('backup.copied', bytesOf('copiedPages'), 'Bytes of pages that were copied out.', 'bytes'),
  counter('backup.dropped', bytesOf('droppedPages'), 'Bytes of pages that were dropped.', 'bytes'),
  counter('backup.writeback_errors', (backup) => backup.stats.writebackErrors, 'Writebacks that failed.'),
]

const costFigures: readonly Figure<CostStats>[] = [
  counter('backup.cost', (costs) => costs.dollars, 'What requests have cost.', 'dollars'),
]

const verbFigures: readonly Figure<VerbSource>[] = [
  counter('backup.requests', ({ stats }) => stats.requests, 'Requests that went out, by verb.'),
  counter('backup.request_failures', ({ stats }) => stats.failures, 'Requests that failed, by verb.'),
  counter('backup.request_sent', ({ stats }) => stats.bytesSent, 'Bytes sent, by verb.', 'bytes'),
  counter('backup.request_received', ({ stats }) => stats.bytesReceived, 'Bytes received, by verb.', 'bytes'),
]

/** All metrics that there can be. */
export const metrics: readonly Metric[] = [
  ...poolFigures,
  ...budgetFigures,
  ...backupFigures,
  ...costFigures,
  ...verbFigures,
]

/** The figures of some pools, of their budgets and backups, by metric; those of which there is none are not there. */
export function readingsOf(pools: readonly Pool[]): Map<Metric, Reading[]> {
  const readings = new Map<Metric, Reading[]>()
  const read = <Source>(figures: readonly Figure<Source>[], source: Source, labels: Reading['labels']) => {
    for (const figure of figures) {
      const list = readings.get(figure)
      const reading = { value: figure.of(source), labels }
      if (list === undefined) readings.set(figure, [reading])
      else list.push(reading)
    }
  }
  for (const pool of pools) {
    const { pageSizeBytes } = pool
    read(poolFigures, { stats: pool.stats(), pageSizeBytes }, { pool: poolNames.of(pool) })
  }
  for (const budget of budgetsOf(pools))
    read(budgetFigures, budget.stats(), { budget: budgetNames.of(budget) })
  for (const { name, stats, pageSizeBytes } of openBackupsOf(pools)) {
    const labels = { backup: name }
    read(backupFigures, { stats, pageSizeBytes }, labels)
    const costs = costsOf(stats)
    if (costs === undefined) continue
    read(costFigures, costs, labels)
    for (const [verb, verbStats] of Object.entries(costs.verbs))
      read(verbFigures, { verb, stats: verbStats }, { ...labels, verb })
  }
  return readings
}

/** Each budget that some pools share. */
export function budgetsOf(pools: readonly Pool[]): MemoryBudget[] {
  return [...new Set(pools.flatMap(({ budget }) => budget ?? []))]
}

/** What a backup says of itself. */
export interface BackupReading {
  readonly name: string
  /** What it is called by itself, and in events. */
  readonly title: string
  readonly stats: BackupStats
  readonly pageSizeBytes: number
}

/** Each backup of some pools. One that has nothing to say, because it is another's code, is left out: a scrape tells of the others. */
export function openBackupsOf(pools: readonly Pool[]): BackupReading[] {
  return [...new Set(pools.flatMap((pool) => pool.backups))].flatMap((backup: Backup) => {
    try {
      const { name: title, capabilities } = backup
      const name = backupNames.of(backup)
      return { name, title, stats: backup.stats(), pageSizeBytes: capabilities.pageSizeBytes }
    } catch {
      return []
    }
  })
}

/** The costs that a backup counts, or the one inside it. */
export function costsOf(stats: BackupStats): CostStats | undefined {
  const { costs, inner } = stats as { readonly costs?: CostStats; readonly inner?: BackupStats }
  return costs ?? (inner === undefined ? undefined : costsOf(inner))
}

function bytesOf<Name extends string>(
  name: Name,
): (source: { readonly stats: Readonly<Record<Name, number>>; readonly pageSizeBytes: number }) => number {
  return ({ stats, pageSizeBytes }) => stats[name] * pageSizeBytes
}
