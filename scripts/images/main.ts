/**
 * What it costs to open, load and save images in files, and to come back after a restart, beside plain files, lmdb and node:sqlite:
 *
 *   npm run bench:images -- [--size 10GiB] [--rounds 5] [--directory FOLDER]
 *
 * `--size` is that of the buffers that are opened; others are a tenth and a fifth of it. Each step is a process of its own. The page cache
 * is dropped before what reads after a restart, which needs root; without, that is said. Opening and loading is timed in a process
 * that has done so with a small store before, a restart from its first line on. It takes 2.2 times the size on the disk.
 */
import { execFileSync, spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, statfsSync, writeFileSync } from 'node:fs'
import { loadavg, tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { installPackage } from '../../apps/bench/src/peers/install-package.ts'
import { peers } from '../../apps/bench/src/peers/registry.ts'
import { spreadOf } from '../../apps/bench/src/statistics.ts'
import type { Figures, Order } from './measure.ts'

const measurePath = fileURLToPath(new URL('measure.ts', import.meta.url))
const { values } = parseArgs({
  options: {
    size: { type: 'string', default: '10GiB' },
    rounds: { type: 'string', default: '5' },
    directory: { type: 'string', default: tmpdir() },
  },
})
const rounds = Number(values.rounds)
const sizeBytes = bytesOf(values.size)
/** At the full size a gibibyte and two; whole values of 8 MiB. */
const savedBytes = wholeValues(sizeBytes / 10)
const restartedBytes = wholeValues(sizeBytes / 5)

function bytesOf(text: string): number {
  const [, count, unit] = /^(\d+)(MiB|GiB)$/.exec(text) ?? []
  if (count === undefined) throw new RangeError(`--size is ${text}; it must be like 512MiB or 10GiB`)
  return Number(count) * (unit === 'GiB' ? 2 ** 30 : 2 ** 20)
}

function wholeValues(bytes: number): number {
  return Math.max(1, Math.round(bytes / 2 ** 23)) * 2 ** 23
}

/** Runs one process; `undefined` for one that killed itself before it printed anything. */
function run(order: Order): Figures | undefined {
  const { stdout, stderr, status } = spawnSync(process.execPath, [measurePath, JSON.stringify(order)], {
    encoding: 'utf8',
  })
  if (status !== 0 && order.isKilled !== true) throw new Error(`${order.what}: ${stderr.slice(0, 600)}`)
  return stdout === '' ? undefined : (JSON.parse(stdout) as Figures)
}

/** Median, and in brackets the least and the greatest. */
function shown(figures: readonly number[], digits = 1): string {
  const { median, min, max } = spreadOf(figures)!
  return `${median.toFixed(digits)} (${min.toFixed(digits)}–${max.toFixed(digits)})`
}

function row(what: string, goal: string, figure: string): void {
  console.log(`| ${what} | ${goal} | ${figure} |`)
}

/** The same step in rounds; its figures by name. */
function inRounds(order: Order, before: () => void = () => {}): Record<string, number[]> {
  const all: Record<string, number[]> = {}
  for (let round = 0; round < rounds; round++) {
    before()
    for (const [name, figure] of Object.entries(run(order)!)) {
      all[name] ??= []
      all[name].push(figure)
    }
  }
  return all
}

function dropPageCache(): boolean {
  try {
    execFileSync('sync')
    writeFileSync('/proc/sys/vm/drop_caches', '3')
    return true
  } catch {
    return false
  }
}

function openings(folder: string): void {
  const kinds = [
    { kind: 'chunks of 2 MiB', maxOrder: 9, goals: ['< 100 ms', '< 500 ms', '≤ 5 ms'] },
    { kind: 'single pages', maxOrder: 0, goals: ['< 300 ms', '< 1500 ms', '≤ 80 ms'] },
  ]
  for (const { kind, maxOrder, goals } of kinds) {
    const order: Order = { what: 'prepare', path: join(folder, 'opened'), sizeBytes, maxOrder }
    run(order)
    const opened = inRounds({ ...order, what: 'open' })
    const killed = inRounds({ ...order, what: 'open' }, () => run({ ...order, what: 'open', isKilled: true }))
    const both = (figures: Record<string, number[]>, step: 'open' | 'load') => {
      const cpuMs = spreadOf(figures[`${step}CpuMs`]!)!.median
      return `${shown(figures[`${step}Ms`]!)} ms; ${cpuMs.toFixed(1)} ms of processor time`
    }
    row(`open ${values.size} in ${kind}, clean`, goals[0]!, both(opened, 'open'))
    row('the same after kill -9', goals[1]!, both(killed, 'open'))
    row('load it', goals[2]!, both(opened, 'load'))
    if (maxOrder === 0) {
      const saved = inRounds({ ...order, what: 'save one page' })
      const beyond = saved['saveMs']!.map((save, round) => save - saved['syncMs']![round]!)
      const what = `save after one page of it was written, beyond what one sync costs`
      row(what, '≤ 5 ms', `${shown(beyond)} ms; a sync ${shown(saved['syncMs']!)} ms`)
    }
    rmSync(order.path, { force: true })
  }
}

function partialSaves(folder: string): void {
  const order: Order = { what: 'prepare', path: join(folder, 'saved'), sizeBytes: savedBytes, maxOrder: 9 }
  run(order)
  const { saveMs, writeMs } = inRounds({ ...order, what: 'save one part' })
  const ratios = saveMs!.map((save, round) => save / writeMs![round]!)
  const size = `${(savedBytes / 2 ** 20).toFixed(0)} MiB`
  row(
    `save of ${size} after 1 % was written, of writing it to a file and one sync`,
    '≤ 1.3',
    `${shown(ratios, 2)}; ${shown(saveMs!)} ms`,
  )
  rmSync(order.path)
}

async function restarts(folder: string): Promise<void> {
  const packages = join(folder, 'packages')
  const lmdb = peers.find(({ name }) => name === 'lmdb')!.npmPackage!
  const problem = await installPackage(lmdb, packages, new AbortController().signal)
  if (problem !== undefined) console.error(`lmdb: ${problem}`)
  const base = { sizeBytes: restartedBytes, maxOrder: 9, packages }
  const ways: readonly { prepare: Order['what']; read: Order['what']; path: string }[] = [
    { prepare: 'prepare', read: 'restart', path: join(folder, 'restarted') },
    { prepare: 'prepare file', read: 'copy file', path: join(folder, 'plain') },
    ...(problem === undefined
      ? [{ prepare: 'prepare lmdb', read: 'read lmdb', path: join(folder, 'lmdb') } as const]
      : []),
    { prepare: 'prepare sqlite', read: 'read sqlite', path: join(folder, 'sqlite') },
  ]
  for (const { prepare, path } of ways) run({ ...base, what: prepare, path })
  for (const isDropped of [true, false]) {
    const totals = new Map<Order['what'], number[]>(ways.map(({ read }) => [read, []]))
    let isCold = isDropped
    for (let round = 0; round < rounds; round++) {
      for (const { read, path } of ways) {
        if (isDropped) isCold = dropPageCache() && isCold
        totals.get(read)!.push(run({ ...base, what: read, path })!['totalMs']!)
      }
    }
    restartRows(totals, isCold ? 'page cache dropped' : 'page cache warm')
  }
}

function restartRows(totals: ReadonlyMap<Order['what'], readonly number[]>, state: string): void {
  const ours = totals.get('restart')!
  const size = `${(restartedBytes / 2 ** 20).toFixed(0)} MiB`
  const relativeTo = (others: readonly number[]) =>
    shown(
      ours.map((own, round) => others[round]! / own),
      2,
    )
  row(
    `restart of ${size}, ${state}, of a direct copy`,
    '≥ 0.8',
    `${relativeTo(totals.get('copy file')!)}; ${shown(ours, 0)} ms`,
  )
  for (const [what, others] of totals) {
    if (!what.startsWith('read')) continue
    row(
      `the same, of ${what.slice('read '.length)} with values of 8 MiB`,
      state.endsWith('dropped') ? '≥ 2' : 'stated',
      relativeTo(others),
    )
  }
}

async function main(): Promise<void> {
  const { bavail, bsize } = statfsSync(values.directory)
  if (bavail * bsize < 3 * sizeBytes)
    throw new Error(`${values.directory} needs ${values.size} three times free`)
  const folder = mkdtempSync(join(values.directory, 'spillway-images-'))
  try {
    console.log('| what | goal | median (least–greatest) |\n| --- | --- | --- |')
    openings(folder)
    partialSaves(folder)
    await restarts(folder)
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
  const load = loadavg().map((each) => each.toFixed(1))
  console.log(`load of the machine: ${load.join(', ')}; ${rounds} rounds`)
}

await main()
