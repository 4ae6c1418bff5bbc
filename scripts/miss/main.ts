/**
 * What it costs to bring in single pages through pins, of this build and of others in turn, beside copies of random pages, reads
 * by node:fs and fio:
 *
 *   npm run bench:miss -- [--build ../other] [--rounds 5] [--pages 49152] [--directory FOLDER]
 *
 * Each case is measured in a process of its own, in rounds, so that what disturbs the machine meets all. Each page is looked at.
 * `--build` needs a built checkout. fio is asked where it is installed.
 */
import { execFile } from 'node:child_process'
import { rmSync } from 'node:fs'
import { loadavg, tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs, promisify } from 'node:util'
import { spreadOf } from '../../apps/bench/src/statistics.ts'
import type { Figures, Order } from './measure.ts'

const run = promisify(execFile)
const measurePath = fileURLToPath(new URL('measure.ts', import.meta.url))
const thisBuild = fileURLToPath(new URL('../..', import.meta.url)).replace(/\/$/, '')
const { values } = parseArgs({
  options: {
    build: { type: 'string', multiple: true, default: [] },
    rounds: { type: 'string', default: '5' },
    pages: { type: 'string', default: '49152' },
    directory: { type: 'string', default: tmpdir() },
  },
})
const MiB = 2 ** 20
const dataBytes = 256 * MiB
/** All pages fit, and a quarter of them. */
const roomy = { limitBytes: dataBytes + 16 * MiB, of: 'all fit' }
const tight = { limitBytes: dataBytes / 4, of: 'a quarter fits' }

interface Case {
  readonly name: string
  /** Which build it is of; empty where it is of none. */
  readonly build: string
  readonly measure: () => Promise<Partial<Figures>>
}

function ordered(
  build: string,
  way: Order['way'],
  depth: number,
  { limitBytes }: { limitBytes: number },
): Case['measure'] {
  const order: Order = {
    build,
    way,
    dataBytes,
    limitBytes,
    depth,
    pages: Number(values.pages),
    directory: values.directory,
  }
  return async () => {
    const { stdout } = await run(process.execPath, [measurePath, JSON.stringify(order)], { maxBuffer: MiB })
    return JSON.parse(stdout) as Figures
  }
}

/** Random reads of 4 KiB, direct, by io_uring. */
function fio(depth: number): Case['measure'] {
  return async () => {
    const path = join(values.directory, `fio-miss-${process.pid}`)
    const options = [
      '--direct=1',
      '--rw=randread',
      '--bs=4k',
      '--ioengine=io_uring',
      '--runtime=1',
      '--time_based',
    ]
    const { stdout } = await run(
      'fio',
      [
        `--name=pages`,
        `--filename=${path}`,
        `--size=${dataBytes}`,
        `--iodepth=${depth}`,
        ...options,
        '--output-format=json',
      ],
      { maxBuffer: 16 * MiB },
    )
    rmSync(path, { force: true })
    const { jobs } = JSON.parse(stdout.slice(stdout.indexOf('{'))) as { jobs: { read: { iops: number } }[] }
    return { pagesPerSecond: jobs[0]!.read.iops }
  }
}

function casesOf(build: string, label: string): Case[] {
  const cases: Case[] = []
  for (const way of ['shmem', 'file', 'file by threads'] as const) {
    for (const depth of way === 'file by threads' ? [32] : [32, 4]) {
      for (const room of way === 'file by threads' ? [roomy] : [roomy, tight]) {
        const name = `${way}, ${depth} at once, ${room.of}`
        cases.push({ name, build: label, measure: ordered(build, way, depth, room) })
      }
    }
  }
  return cases
}

async function main(): Promise<void> {
  const beside: Case[] = [
    { name: 'copies of random pages', build: '', measure: ordered(thisBuild, 'copies', 1, roomy) },
    { name: 'node:fs, 32 at once', build: '', measure: ordered(thisBuild, 'node:fs', 32, roomy) },
    { name: 'fio io_uring, 32 at once', build: '', measure: fio(32) },
    { name: 'fio io_uring, 4 at once', build: '', measure: fio(4) },
  ]
  const builds: [string, string][] = [
    [thisBuild, 'this'],
    ...values.build.map((build): [string, string] => [resolve(build), build]),
  ]
  const perBuild = builds.map(([build, label]) => casesOf(build, label))
  // A case of each build right after the other.
  const cases = [...beside, ...perBuild[0]!.flatMap((_, index) => perBuild.map((list) => list[index]!))]
  const measured = new Map<Case, Partial<Figures>[]>(cases.map((each) => [each, []]))
  for (let round = 0; round < Number(values.rounds); round++) {
    for (const each of cases) {
      const figures = await each
        .measure()
        .catch((error: Error) => console.error(`${each.name}: ${error.message.slice(0, 300)}`))
      if (figures) measured.get(each)!.push(figures)
    }
  }
  console.log(
    '| what | build | pages/s: median (least–greatest) | CPU µs a page | garbage B a page |\n| --- | --- | --- | --- | --- |',
  )
  for (const [{ name, build }, all] of measured) {
    if (all.length === 0) continue
    const rates = all.map(({ pagesPerSecond }) => pagesPerSecond!)
    const shown = (figure: keyof Figures) =>
      all[0]![figure] === undefined ? '' : spreadOf(all.map((figures) => figures[figure]!))!.median.toFixed(1)
    const { median, min, max } = spreadOf(rates)!
    const spread = `${median.toFixed(0)} (${min.toFixed(0)}–${max.toFixed(0)})`
    console.log(
      `| ${name} | ${build} | ${spread} | ${shown('cpuMicrosecondsPerPage')} | ${shown('garbageBytesPerPage')} |`,
    )
  }
  console.log(
    `load of the machine: ${loadavg()
      .map((load) => load.toFixed(1))
      .join(', ')}; ${values.rounds} rounds`,
  )
}

await main()
