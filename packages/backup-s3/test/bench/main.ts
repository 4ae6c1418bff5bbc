/**
 * What single pages and segments cost, beside bare calls of the SDK, beside sockets that only send and count, and beside another
 * build, in turn and against one server:
 *
 *   node packages/backup-s3/test/bench/main.ts [--build ../other] [--rounds 2] [--seconds 2] [--concurrency 32] [--service]
 *
 * The server is the embedded one, in a process of its own; each round measures each way in a fresh process. Both share the
 * machine, so that ratios mean more than rates. `--build` needs a built checkout, and may be given several times.
 * `--service` measures against the service that S3_ENDPOINT names instead (`scripts/services/with.sh` starts some).
 */
import { fork } from 'node:child_process'
import { loadavg } from 'node:os'
import { resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { hasServiceInEnvironment, s3Target } from '@spillway/test-s3-server'
import type { Figures, Order } from './measure.ts'

const measurePath = fileURLToPath(new URL('measure.ts', import.meta.url))
const thisBuild = fileURLToPath(new URL('../../../..', import.meta.url)).replace(/\/$/, '')

const { values } = parseArgs({
  options: {
    build: { type: 'string', multiple: true, default: [] },
    rounds: { type: 'string', default: '2' },
    seconds: { type: 'string', default: '2' },
    concurrency: { type: 'string', default: '32' },
    service: { type: 'boolean', default: false },
  },
})

interface Way {
  readonly name: string
  readonly order: Pick<Order, 'build' | 'way'>
}

function waysOf(others: readonly string[]): Way[] {
  const builds = [thisBuild, ...others.map((other) => resolve(other))]
  return [
    { name: 'bare SDK calls', order: { build: thisBuild, way: 'bare' } },
    { name: 'bare sockets', order: { build: thisBuild, way: 'sockets' } },
    ...builds.flatMap((build, index): Way[] => {
      const name = index === 0 ? '' : ` of ${others[index - 1]}`
      return [
        { name: `backup${name}`, order: { build, way: 'backup' } },
        { name: `pool${name}`, order: { build, way: 'pool' } },
      ]
    }),
  ]
}

function measure(order: Order): Promise<Figures> {
  return new Promise((done, fail) => {
    const child = fork(measurePath, [], { execArgv: [] })
    child.once('message', (figures: Figures) => done(figures))
    child.once('exit', (code) => fail(new Error(`a measurement ended with status ${code}`)))
    child.send(order)
  })
}

function median(numbers: readonly number[]): number {
  const sorted = numbers.toSorted((left, right) => left - right)
  return (sorted[(sorted.length - 1) >> 1] + sorted[sorted.length >> 1]) / 2
}

/** The middle of each figure. */
function medianOf(all: readonly Figures[]): Figures {
  const names = Object.keys(all[0]) as (keyof Figures)[]
  return Object.fromEntries(
    names.map((name) => [name, median(all.map((figures) => figures[name]))]),
  ) as unknown as Figures
}

function row(figures: Figures, bare: Figures): Record<string, string> {
  // A pool moves single pages only.
  const times = (mine: number, others: number) => (mine > 0 ? `${(mine / others).toFixed(2)} x` : '')
  return {
    'pages/s': figures.pagesPerSecond.toFixed(0),
    'of bare': times(figures.pagesPerSecond, bare.pagesPerSecond),
    'CPU us/page': figures.cpuMicrosecondsPerPage.toFixed(1),
    'garbage KiB/page': (figures.garbageBytesPerPage / 1024).toFixed(1),
    'loop p99/max ms': `${figures.loopDelayP99Ms.toFixed(1)} / ${figures.loopDelayMaxMs.toFixed(1)}`,
    'resident above limit MiB': (figures.residentBytesAboveLimit / 2 ** 20).toFixed(0),
    'PUT 8 MiB of bare': times(figures.putBytesPerSecond, bare.putBytesPerSecond),
    'GET 8 MiB of bare': times(figures.getBytesPerSecond, bare.getBytesPerSecond),
  }
}

/** A table in Markdown. */
function tableOf(rows: readonly Readonly<Record<string, string>>[]): string {
  const line = (cells: readonly string[]) => `| ${cells.join(' | ')} |`
  const names = Object.keys(rows[0])
  return [line(names), line(names.map(() => '---')), ...rows.map((cells) => line(Object.values(cells)))].join(
    '\n',
  )
}

const ways = waysOf(values.build)
const found = ways.map((): Figures[] => [])
const embedded = !values.service
if (!embedded && !hasServiceInEnvironment()) throw new Error('--service: S3_ENDPOINT is not set')
await using target = await s3Target({ embedded, logRequests: 10, warmBytes: 256 * 2 ** 20 })
for (let round = 0; round < Number(values.rounds); round++) {
  const turn = [...ways.entries()]
  for (const [index, { order }] of round % 2 === 0 ? turn : turn.toReversed()) {
    const { bucket, clientConfig, conditionalWrites } = target
    const concurrency = Number(values.concurrency)
    const milliseconds = Number(values.seconds) * 1000
    const prefix = target.prefix()
    const place = { bucket, clientConfig, conditionalWrites, prefix }
    found[index].push(await measure({ ...order, ...place, concurrency, milliseconds }))
  }
}
const medians = found.map(medianOf)
const rows = ways.map(({ name }, index) => ({ name, ...row(medians[index], medians[0]) }))
process.stdout.write(`${tableOf(rows)}\nload of the machine: ${loadavg().map((load) => load.toFixed(1))}\n`)
