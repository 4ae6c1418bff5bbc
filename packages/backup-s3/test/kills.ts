/**
 * Kills processes with SIGKILL at random requests on the embedded server, and looks what their successors find:
 *
 *   npm run test:s3:kills -- --count 200 --seed 1        a process on a persistent store and one on a scratch store are killed
 *                                                        in each round; one takes the store over while another sweeps
 *   npm run test:s3:kills -- --segments 20000            also how long it takes to take a store of so many segments over
 */
import { type ChildProcess, fork } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { seededRandom } from '@spillway/core'
import { faults, type S3Target, s3Target } from '@spillway/test-s3-server'
import { S3Backup } from '../src/index.ts'
import type { ChildOrders, ChildReport } from './crash-child.ts'
import { openInTime } from './stores.ts'
import { assertPages, type KeptPage, pageBytes, runsOf } from './workload.ts'

const { values } = parseArgs({
  options: {
    count: { type: 'string', default: '10' },
    seed: { type: 'string', default: '1' },
    segments: { type: 'string', default: '0' },
  },
})
const seed = Number(values.seed)
const random = seededRandom(seed)
/** A process makes so many requests until it is done, about. */
const requestsOfAProcess = 60
/** Pages of the store after which a round drops those of earlier ones. */
const mostPages = 2000

const users = ['owner', 'scratch'].map((name) => ({ accessKeyId: name, secretAccessKey: `${name}-secret` }))
const main = { accessKeyId: 'main', secretAccessKey: 'main-secret' }

function say(text: string): void {
  process.stdout.write(`${text}\n`)
}

type Orders = Pick<ChildOrders, 'options' | 'seed'> & Partial<ChildOrders>

/** Starts a process, tells every report, and resolves when it has ended: whether it was killed. */
function work(
  target: S3Target,
  user: (typeof users)[number],
  orders: Orders,
  onReport: (report: ChildReport, child: ChildProcess) => void | Promise<void>,
): Promise<boolean> {
  const child = fork(fileURLToPath(new URL('crash-child.ts', import.meta.url)), [], {
    execArgv: ['--import', fileURLToPath(new URL('../../../scripts/resolve-sources.ts', import.meta.url))],
    serialization: 'advanced',
  })
  return new Promise((resolve, reject) => {
    child.on('message', async (report: ChildReport) => {
      if (report.kind === 'failed') reject(new Error(report.error))
      await onReport(report, child)
      if (report.kind !== 'ready') return
      const clientConfig = { ...target.clientConfig, credentials: user }
      const usual = { steps: 8, maxBatchPages: 60, maxLivePages: 150, basePages: 20 }
      child.send({ ...usual, clientConfig, ...orders })
    })
    child.once('error', reject)
    child.once('exit', () => resolve(child.signalCode === 'SIGKILL'))
  })
}

/** What was acknowledged and not about to be dropped, by handle. */
type Kept = Map<number, KeptPage>

/** Runs a process that is killed at a random request. */
async function killOne(
  target: S3Target,
  user: (typeof users)[number],
  orders: Orders,
  kept: Kept,
): Promise<boolean> {
  const when = random() < 0.5 ? 'request' : 'answer'
  const from = 1 + Math.floor(requestsOfAProcess * random())
  let rule: number | undefined
  const killed = await work(target, user, orders, async (report, child) => {
    if (report.kind === 'ready') {
      const { accessKeyId } = user
      rule = await target.server!.faults.once('any', faults.killed(child.pid!, when), { from, accessKeyId })
    } else if (report.kind === 'kept') for (const page of report.pages) kept.set(page.handle, page)
    else if (report.kind === 'dropping') for (const { handle } of report.pages) kept.delete(handle)
  })
  await target.server!.faults.remove(rule!)
  return killed
}

async function verify(backup: S3Backup, kept: Kept, what: string): Promise<void> {
  const pages = [...kept.values()]
  for (let start = 0; start < pages.length; start += 500) {
    const some = pages.slice(start, start + 500)
    const memory = new Uint8Array(some.length * pageBytes)
    const { copied, error } = await backup.copyPages(runsOf(some.map(({ handle }) => handle)), [memory])
    if (error !== undefined || copied !== some.length) throw new Error(`${what}: ${copied} pages, ${error}`)
    const ids = some.map(({ id }) => id)
    assertPages(memory, ids, what)
  }
}

/** The processes of a round are killed; one takes the store over, and another sweeps until nothing of the dead is left. */
async function round(target: S3Target, prefix: string, index: number, kept: Kept): Promise<number> {
  const place = {
    bucket: target.bucket,
    prefix,
    segmentBytes: 16 * pageBytes,
    deleteDelayMs: 1,
    lingerMs: 0,
    leaseMs: 300,
  }
  const [owner, scratch] = users
  const killed = await Promise.all([
    killOne(target, owner!, { options: { ...place, persistent: true }, seed: seed * 1000 + index }, kept),
    killOne(target, scratch!, { options: place, seed: seed * 1000 + 500 + index }, new Map()),
  ])
  const client = target.client()
  let isSweeping = true
  const sweeping = (async () => {
    while (isSweeping) {
      await openInTime(() => S3Backup.sweepOrphans({ ...place, client }))
      await new Promise((resolve) => setTimeout(resolve, 100))
    }
  })()
  const successor = await S3Backup.open({ ...place, client, persistent: true, ownerWaitMs: 20_000 })
  const known = [...kept.values()].map(({ handle }) => ({ first: handle, count: 1 }))
  await successor.retainOnly(known)
  await verify(successor, kept, `round ${index}`)
  const old = [...kept.keys()].slice(0, Math.max(0, kept.size - mostPages))
  await successor.drop(runsOf(old))
  for (const handle of old) kept.delete(handle)
  await successor.close()
  const deadline = performance.now() + 20_000
  while ((await target.list(prefix)).some(({ key }) => key.includes('scratch-'))) {
    if (performance.now() > deadline) throw new Error(`round ${index}: a sweep leaves something`)
    await new Promise((resolve) => setTimeout(resolve, 100))
  }
  isSweeping = false
  await sweeping
  return killed.filter(Boolean).length
}

/** How long after the end of its lease a store of so many segments is taken over, in milliseconds. */
async function takeOver(target: S3Target, segments: number): Promise<number> {
  const leaseMs = 5000
  const options = {
    bucket: target.bucket,
    prefix: target.prefix(),
    persistent: true,
    segmentBytes: pageBytes,
    bufferBytes: 64 * pageBytes,
    lingerMs: 0,
    leaseMs,
  }
  let killedAt = 0
  const kept: Kept = new Map()
  const orders = { options, seed, steps: 0, basePages: segments }
  await work(target, users[0]!, orders, (report, child) => {
    if (report.kind !== 'kept') return
    for (const page of report.pages) kept.set(page.handle, page)
    child.kill('SIGKILL')
    killedAt = performance.now()
  })
  const { requests } = await target.server!.counters()
  const backup = await S3Backup.open({ ...options, client: target.client(), ownerWaitMs: 60_000 })
  const openedAt = performance.now()
  const opening = (await target.server!.counters()).requests - requests
  await verify(backup, kept, 'the store that was taken over')
  say(`${segments} segments: ${opening} requests to take them over`)
  const before = (await target.server!.counters()).requests
  await backup.close()
  say(`${segments} segments: ${(await target.server!.counters()).requests - before} requests to close`)
  return openedAt - killedAt - leaseMs
}

const target = await s3Target({ embedded: true, credentials: [main, ...users], seed })
const segments = Number(values.segments)
if (segments > 0)
  say(`taken over ${Math.round(await takeOver(target, segments))} ms after the lease at the latest ended`)
const prefix = target.prefix()
const kept: Kept = new Map()
let killed = 0
for (let index = 0; index < Number(values.count); index++) killed += await round(target, prefix, index, kept)
say(
  `${values.count} rounds, ${killed} processes killed, ${kept.size} pages there at the end, seed ${seed}: nothing lost`,
)
await target.close()
process.exit(0)
