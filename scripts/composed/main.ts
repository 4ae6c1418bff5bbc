/**
 * What backups made of backups cost, beside those that they are made of, zram, zstd and plain copies:
 *
 *   npm run bench:composed -- [--rounds 3] [--seconds 1] [--only compressed] [--directory FOLDER]
 *
 * Each case is measured in a process of its own, in rounds, so that what disturbs the machine meets all. Pages that come back are
 * compared before and after what is timed. Files lie in a temporary folder. zram needs root, and /dev/zram0 with lz4 and a size:
 *
 *   echo lz4 > /sys/block/zram0/comp_algorithm && echo 512M > /sys/block/zram0/disksize
 */
import { fork } from 'node:child_process'
import { loadavg, tmpdir } from 'node:os'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { spreadOf } from '../../apps/bench/src/statistics.ts'
import type { Figures } from './works.ts'

const own = fileURLToPath(import.meta.url)
const { values } = parseArgs({
  options: {
    rounds: { type: 'string', default: '3' },
    seconds: { type: 'string', default: '1' },
    only: { type: 'string', default: '' },
    directory: { type: 'string', default: tmpdir() },
    case: { type: 'string' },
  },
})

interface Comparison {
  readonly name: string
  readonly of: string
  readonly figures: readonly string[]
  readonly goal: string
}

const comparisons: readonly Comparison[] = [
  {
    name: 'tiered: ranges of a hot set',
    of: 'shmem: ranges of a hot set',
    figures: ['bytesPerSecond'],
    goal: '≥ 0.90',
  },
  { name: 'tiered: uniform ranges', of: 'file: uniform ranges', figures: ['bytesPerSecond'], goal: '≥ 0.95' },
  { name: 'tiered: zipf ranges', of: 'file: zipf ranges', figures: ['bytesPerSecond'], goal: '≥ 1.5' },
  ...['half-zeros', 'records', 'text'].flatMap((set): Comparison[] => [
    { name: `compressed(shmem): ${set}`, of: `zstd -1: ${set}`, figures: ['spaceShare'], goal: '≤ 1.1' },
    ...['', ' by node:zlib'].map((codec) => ({
      name: `compressed(shmem)${codec}: ${set}`,
      of: `zram: ${set}`,
      figures: ['outBytesPerSecond', 'inBytesPerSecond'],
      goal: codec === '' ? '≥ 2' : 'stated',
    })),
  ]),
  {
    name: 'compressed(file): random data',
    of: 'file: random data',
    figures: ['outBytesPerSecond', 'inBytesPerSecond'],
    goal: '≥ 0.92',
  },
  {
    name: 'compressed(file): every fourth unit',
    of: 'file: random data',
    figures: ['spaceShare'],
    goal: '≤ 0.90: 0.8 of what can be saved',
  },
  {
    name: 'compressed(file): single pages',
    of: 'file: single pages',
    figures: ['pagesPerSecond'],
    goal: 'stated',
  },
  {
    name: 'compressed(shmem): same-filled',
    of: 'memory copy',
    figures: ['outBytesPerSecond', 'inBytesPerSecond'],
    goal: '≥ 1',
  },
  {
    name: 'encrypted(file): random data',
    of: 'file: random data',
    figures: ['outBytesPerSecond', 'inBytesPerSecond'],
    goal: '≥ 0.75',
  },
  {
    name: 'encrypted(file): single pages',
    of: 'file: single pages',
    figures: ['pagesPerSecond'],
    goal: '≥ 0.85',
  },
  {
    name: 'encrypted(file): random data, without native code',
    of: 'file: random data, without native code',
    figures: ['outBytesPerSecond', 'inBytesPerSecond'],
    goal: 'stated',
  },
  {
    name: 'encrypted(file): single pages, without native code',
    of: 'file: single pages, without native code',
    figures: ['pagesPerSecond'],
    goal: 'stated',
  },
]
const bookkeeping = {
  'tiered: bookkeeping': '≤ 2',
  'compressed: bookkeeping': '≤ 2',
  'encrypted: bookkeeping': '≤ 18',
}

async function measureHere(name: string): Promise<void> {
  const { cases } = await import('./cases.ts')
  process.send!(
    await cases[name]!({ directory: values.directory, milliseconds: 1000 * Number(values.seconds) }),
  )
  process.exit(0)
}

function measure(name: string): Promise<Figures> {
  return new Promise((done, fail) => {
    const isNative = !name.includes('without native code')
    const env = isNative ? process.env : { ...process.env, SPILLWAY_DISABLE_NATIVE: '1' }
    const child = fork(own, [...process.argv.slice(2), '--case', name], { env, execArgv: ['--expose-gc'] })
    child.once('message', (figures: Figures) => done(figures))
    child.once('exit', (code) => fail(new Error(`${name} ended with status ${code}`)))
  })
}

const median = (numbers: readonly number[]) => spreadOf(numbers)!.median

/** The median of the rounds' ratios, and the least and the greatest. */
function ratioOf(mine: readonly Figures[], others: readonly Figures[], figure: string): string {
  const { median, min, max } = spreadOf(
    mine.map((figures, round) => figures[figure]! / others[round]![figure]!),
  )!
  return `${median.toFixed(2)} (${min.toFixed(2)}–${max.toFixed(2)})`
}

function shown(all: readonly Figures[], figure: string): string {
  const value = median(all.map((figures) => figures[figure]!))
  if (figure.endsWith('BytesPerSecond') || figure === 'bytesPerSecond')
    return `${(value / 1e6).toFixed(0)} MB/s`
  return figure === 'pagesPerSecond' ? `${value.toFixed(0)} pages/s` : value.toFixed(3)
}

async function measureAll(names: readonly string[]): Promise<Map<string, Figures[]>> {
  const measured = new Map<string, Figures[]>(names.map((name) => [name, []]))
  for (let round = 0; round < Number(values.rounds); round++) {
    for (const name of names) {
      const figures = await measure(name).catch((error: Error) => console.error(error.message))
      if (figures) measured.get(name)!.push(figures)
    }
  }
  return measured
}

async function compare(): Promise<void> {
  const wanted = comparisons.filter(({ name }) => name.includes(values.only))
  const kept = Object.entries(bookkeeping).filter(([name]) => name.includes(values.only))
  const names = new Set([
    'idle',
    ...wanted.flatMap(({ name, of }) => [name, of]),
    ...kept.map(([name]) => name),
  ])
  const measured = await measureAll([...names])
  const rounds = Number(values.rounds)
  const isWhole = (name: string) => measured.get(name)!.length === rounds
  const loop = (name: string) => (figure: string) => {
    const beyond =
      median(measured.get(name)!.map((figures) => figures[figure]!)) -
      median(measured.get('idle')!.map((figures) => figures[figure]!))
    return Math.max(0, beyond).toFixed(1)
  }
  console.log(
    '| what | of | figure | ratio: median (least–greatest) | value | goal | loop delay p99 / max beyond idle, ms |\n| --- | --- | --- | --- | --- | --- | --- |',
  )
  for (const { name, of, figures, goal } of wanted) {
    if (!isWhole(name) || !isWhole(of)) continue
    const [mine, others] = [measured.get(name)!, measured.get(of)!]
    const delays =
      mine[0]!['loopP99Ms'] === undefined ? '' : `${loop(name)('loopP99Ms')} / ${loop(name)('loopMaxMs')}`
    for (const figure of figures)
      console.log(
        `| ${name} | ${of} | ${figure} | ${ratioOf(mine, others, figure)} | ${shown(mine, figure)} | ${goal} | ${delays} |`,
      )
  }
  for (const [name, goal] of kept)
    if (isWhole(name))
      console.log(
        `| ${name} | | bytes a page | | ${shown(measured.get(name)!, 'bytesPerPage')} | ${goal} | |`,
      )
  console.log(
    `load of the machine: ${loadavg()
      .map((load) => load.toFixed(1))
      .join(', ')}; ${rounds} rounds`,
  )
}

await (values.case === undefined ? compare() : measureHere(values.case))
