import { execFileSync, spawnSync } from 'node:child_process'
import { type MeterProvider as ApiMeterProvider, metrics as api } from '@opentelemetry/api'
import {
  AggregationTemporality,
  InMemoryMetricExporter,
  MeterProvider,
  PeriodicExportingMetricReader,
} from '@opentelemetry/sdk-metrics'
import { type Backup, memoryBackup } from '@spillway/core'
import { MemoryBudget, Pool } from '@spillway/pool'
import { describe, expect, it } from 'vitest'
import { CallDurations, metricsText, registerMeters } from '../src/index.ts'

const mebibyte = 1024 ** 2

/** A pool that has stored and restored. */
async function spilled(backup: Backup, name?: string, budget?: MemoryBudget): Promise<Pool> {
  const place = budget === undefined ? { limitBytes: 4 * mebibyte } : { budget }
  const pool = new Pool({ ...place, backup, ...(name === undefined ? {} : { name }) })
  const buffer = await pool.allocate(12 * mebibyte)
  await buffer.fill(3)
  await buffer.read(0, new Uint8Array(mebibyte))
  return pool
}

/** The value of a series, as the text has it. */
function seriesValue(text: string, series: string): number {
  const line = text.split('\n').find((candidate) => candidate.startsWith(`${series} `))
  if (line === undefined) throw new Error(`no series ${series}`)
  return Number(line.slice(series.length + 1))
}

/** A backup that says what an S3 backup says of its requests. */
function paid(backup: Backup): Backup {
  const verb = { requests: 7, failures: 1, bytesSent: 70, bytesReceived: 700 }
  const costs = { requests: 7, dollars: 0.25, verbs: { put: verb } }
  const { stats } = backup
  return Object.assign(backup, { stats: () => ({ ...stats.call(backup), inner: { costs } }) })
}

describe('the text for Prometheus', () => {
  it('has the figures of pools, their backups and their budgets', async () => {
    const budget = new MemoryBudget({ limitBytes: 8 * mebibyte, name: 'all' })
    await using backup = paid(memoryBackup({ name: 'store' }))
    await using pool = await spilled(backup, 'images', budget)
    const text = metricsText({ pools: [pool] })
    const stats = pool.stats()
    expect(seriesValue(text, 'spillway_pool_resident_bytes{pool="images"}')).toBe(stats.residentBytes)
    expect(seriesValue(text, 'spillway_pool_stored_bytes_total{pool="images"}')).toBe(
      stats.backedUpPages * 4096,
    )
    expect(seriesValue(text, 'spillway_pool_chunks_missed_total{pool="images"}')).toBe(stats.missedChunks)
    expect(seriesValue(text, 'spillway_budget_limit_bytes{budget="all"}')).toBe(8 * mebibyte)
    expect(seriesValue(text, 'spillway_backup_live_bytes{backup="store"}')).toBe(
      backup.stats().livePages * 4096,
    )
    expect(seriesValue(text, 'spillway_backup_cost_dollars_total{backup="store"}')).toBe(0.25)
    expect(seriesValue(text, 'spillway_backup_requests_total{backup="store",verb="put"}')).toBe(7)
    expect(stats.missedChunks).toBeGreaterThan(0)
  })

  it('tells pools of one name apart, and each keeps its name when another goes', async () => {
    await using backup = memoryBackup()
    const first = await spilled(backup)
    await using second = await spilled(backup)
    expect(metricsText({ pools: [first, second] })).toContain('spillway_pool_buffers{pool="pool #2"} 1')
    await first.close()
    expect(metricsText({ pools: [second] })).toContain('spillway_pool_buffers{pool="pool #2"} 1')
  })

  it('escapes names', async () => {
    await using pool = new Pool({ limitBytes: 4 * mebibyte, name: 'a "b" \\ c\nd' })
    expect(metricsText({ pools: [pool] })).toContain('{pool="a \\"b\\" \\\\ c\\nd"}')
  })

  it('says nothing where there is no pool, and throws for an option that there is not', () => {
    expect(metricsText({ pools: [] })).toBe('')
    expect(() => metricsText({ pool: [] } as object)).toThrow(TypeError)
  })

  it('tells of the others when a backup cannot tell of itself', async () => {
    await using backup = memoryBackup({ name: 'mute' })
    await using pool = await spilled(backup, 'kept')
    const { stats } = backup
    Object.assign(backup, {
      stats: () => {
        throw new Error('mute')
      },
    })
    const text = metricsText({ pools: [pool] })
    Object.assign(backup, { stats })
    expect(text).toContain('{pool="kept"}')
    expect(text).not.toContain('backup="mute"')
  })

  it('has histograms whose buckets add up, and of nothing after they were closed', async () => {
    const durations = new CallDurations()
    await using backup = memoryBackup({ name: 'store' })
    await using pool = await spilled(backup, 'timed')
    durations.close()
    const text = metricsText({ pools: [pool], durations })
    const name = 'spillway_backup_backup_pages_duration_seconds'
    const count = seriesValue(text, `${name}_count{backup="store"}`)
    expect(count).toBeGreaterThan(0)
    expect(seriesValue(text, `${name}_bucket{backup="store",le="+Inf"}`)).toBe(count)
    await pool.allocate(8 * mebibyte).then((buffer) => buffer.fill(1))
    expect(seriesValue(metricsText({ durations }), `${name}_count{backup="store"}`)).toBe(count)
  })

  it('keeps to the rules for names', async () => {
    await using durations = closing(new CallDurations())
    await using backup = paid(memoryBackup())
    await using pool = await spilled(backup, 'rules', new MemoryBudget({ limitBytes: 8 * mebibyte }))
    expect(nameProblems(metricsText({ pools: [pool], durations: durations.it }))).toEqual([])
    expect(nameProblems('# HELP aB x\n# TYPE aB counter\naB 1\n')).toHaveLength(2)
  })

  it.skipIf(!hasPromtool())('pleases the linter of Prometheus (promtool)', async () => {
    await using durations = closing(new CallDurations())
    await using backup = paid(memoryBackup())
    await using pool = await spilled(backup, 'linted', new MemoryBudget({ limitBytes: 8 * mebibyte }))
    const lint = (input: string) => spawnSync('promtool', ['check', 'metrics'], { input, encoding: 'utf8' })
    const { status, stdout, stderr } = lint(metricsText({ pools: [pool], durations: durations.it }))
    expect({ status, stdout, stderr }).toEqual({ status: 0, stdout: '', stderr: '' })
    expect(lint('# TYPE aB counter\naB 1\n').status).not.toBe(0)
  })
})

describe('meters of OpenTelemetry', () => {
  it('observe the same figures and how long calls took, until they are closed', async () => {
    const exporter = new InMemoryMetricExporter(AggregationTemporality.CUMULATIVE)
    const reader = new PeriodicExportingMetricReader({ exporter, exportIntervalMillis: 3_600_000 })
    const provider = new MeterProvider({ readers: [reader] })
    const pools: Pool[] = []
    const meters = registerMeters(provider.getMeter('test'), () => pools)
    await using backup = memoryBackup({ name: 'store' })
    await using pool = await spilled(backup, 'metered')
    pools.push(pool)
    await reader.forceFlush()
    const found = exporter.getMetrics()[0]!.scopeMetrics[0]!.metrics
    const metric = (name: string) => found.find(({ descriptor }) => descriptor.name === name)!
    expect(metric('spillway.pool.limit').descriptor.unit).toBe('By')
    expect(metric('spillway.pool.limit').dataPoints).toMatchObject([
      { attributes: { pool: 'metered' }, value: 4 * mebibyte },
    ])
    expect(metric('spillway.pool.restored').dataPoints).toMatchObject([
      { value: pool.stats().restoredPages * 4096 },
    ])
    expect(metric('spillway.backup.copy_pages.duration').dataPoints[0]!.value).toMatchObject({
      count: pool.stats().restoreCalls,
    })
    const stored = pool.stats().backedUpPages * 4096
    meters.close()
    await pool.allocate(12 * mebibyte).then((buffer) => buffer.fill(1))
    exporter.reset()
    await reader.forceFlush()
    // What was observed last stays: a meter forgets nothing.
    const after = exporter.getMetrics()[0]?.scopeMetrics[0]?.metrics ?? []
    const points =
      after.find(({ descriptor }) => descriptor.name === 'spillway.pool.stored')?.dataPoints ?? []
    for (const { value } of points) expect(value).toBe(stored)
    await provider.shutdown()
  })

  it('take the meter of an application that has set up none', () => {
    const provider: ApiMeterProvider = api.getMeterProvider()
    registerMeters(provider.getMeter('none')).close()
  })
})

/** What in a text is against the conventions for names. */
function nameProblems(text: string): string[] {
  const kinds = new Map([...text.matchAll(/^# TYPE (\S+) (\S+)$/gm)].map(([, name, kind]) => [name!, kind!]))
  const helped = new Set([...text.matchAll(/^# HELP (\S+) \S.*\.$/gm)].map(([, name]) => name))
  return [...kinds].flatMap(([name, kind]) => [
    ...(/^[a-z][a-z0-9]*(_[a-z0-9]+)*$/.test(name) ? [] : [`${name} is no name in snake case`]),
    ...((kind === 'counter') === name.endsWith('_total') ? [] : [`${name} is a ${kind}`]),
    ...(/(milli|micro|kilo|mega|kibi|mebi|_ms|_kb|_mb|pages_bytes)/.test(name) ? [`${name}: unit`] : []),
    ...(helped.has(name) || (kind === 'counter' && !name.startsWith('spillway'))
      ? []
      : [`${name} has no help`]),
  ])
}

function hasPromtool(): boolean {
  try {
    execFileSync('promtool', ['--version'], { stdio: 'ignore' })
    return true
  } catch {
    console.error('no promtool here (Debian: prometheus): names are checked by rule only')
    return false
  }
}

function closing<Closable extends { close(): void }>(it: Closable) {
  return { it, [Symbol.asyncDispose]: async () => it.close() }
}
