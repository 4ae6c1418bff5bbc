/**
 * Processes that are killed at each of their requests, before the service has done it and after: what they leave behind
 * is found and removed, or attached to, and nobody else loses anything by it.
 */
import { type ChildProcess, fork } from 'node:child_process'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { faults, type RequestRecord, type S3Target, s3Target } from '@spillway/test-s3-server'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { S3Backup, type S3BackupOptions } from '../src/index.ts'
import type { ChildOrders, ChildReport } from './crash-child.ts'
import { openInTime } from './stores.ts'
import { assertPages, type KeptPage, pageBytes, runsOf, Workload } from './workload.ts'

const slots = 4
const users = Array.from({ length: slots }, (_, slot) => ({
  accessKeyId: `child-${slot}`,
  secretAccessKey: `secret-${slot}`,
}))
const seed = Number(process.env['SPILLWAY_SEED'] ?? 11)
let target: S3Target
let compileCache: string

beforeAll(async () => {
  compileCache = await mkdtemp(join(tmpdir(), 'spillway-s3-crashes-'))
  const main = { accessKeyId: 'main', secretAccessKey: 'main-secret' }
  target = await s3Target({ embedded: true, credentials: [main, ...users] })
})
afterAll(async () => {
  await target.close()
  await rm(compileCache, { recursive: true, force: true })
})

interface Outcome {
  /** What was acknowledged and not about to be dropped. */
  readonly pages: readonly KeptPage[]
  readonly closed: boolean
  readonly killed: boolean
  /** The requests it made. */
  readonly requests: readonly RequestRecord[]
}

const common = {
  segmentBytes: 16 * pageBytes,
  deleteDelayMs: 1,
  lingerMs: 0,
  compaction: { maxAmplification: 1.2 },
} satisfies Partial<S3BackupOptions>

/** What processes on persistent stores back up first and never drop: more than a segment. */
const basePages = 20
const hasBase = ({ pages }: Outcome) => pages.filter(({ id }) => id < basePages).length === basePages
const baseSegments = Math.ceil((basePages * pageBytes) / common.segmentBytes)

/**
 * Whether a process on a store of its own has begun to work, which it does once it has told that its first pages are
 * stored: what it reads, and any segment beyond those of them, comes after.
 */
function hasBegun({ requests }: Outcome): boolean {
  const segments = requests.filter(({ key }) => key.includes('/s-'))
  return segments.some(({ method }) => method === 'GET') || segments.length > baseSegments
}

/** Lets a process work as user `slot`, and kills it at request `killAt`. */
async function runChild(
  slot: number,
  options: Partial<S3BackupOptions>,
  kill?: { at: number; when: 'request' | 'answer' },
): Promise<Outcome> {
  const user = users[slot]!
  const child: ChildProcess = fork(fileURLToPath(new URL('crash-child.ts', import.meta.url)), [], {
    execArgv: ['--import', fileURLToPath(new URL('../../../scripts/resolve-sources.ts', import.meta.url))],
    serialization: 'advanced',
    // A process that was killed has not earned its start; what the first one compiled serves all.
    env: { ...process.env, NODE_COMPILE_CACHE: compileCache },
  })
  const { accessKeyId } = user
  const kept = new Map<number, KeptPage>()
  let closed = false
  let failure: string | undefined
  let rule: number | undefined
  const { requests: before } = await target.server!.counters()
  await new Promise<void>((resolve, reject) => {
    child.on('message', async (report: ChildReport) => {
      if (report.kind === 'ready') {
        const fault = kill && faults.killed(child.pid!, kill.when)
        if (fault) rule = await target.server!.faults.once('any', fault, { from: kill.at, accessKeyId })
        const orders: ChildOrders = {
          clientConfig: { ...target.clientConfig, credentials: user },
          options: { bucket: target.bucket, ...common, ...options },
          seed: seed + slot,
          steps: options.persistent ? 4 : 6,
          maxBatchPages: 60,
          maxLivePages: 150,
          basePages: options.persistent ? basePages : 0,
        }
        child.send(orders)
      } else if (report.kind === 'kept') for (const page of report.pages) kept.set(page.id, page)
      else if (report.kind === 'dropping') for (const page of report.pages) kept.delete(page.id)
      else if (report.kind === 'closed') closed = true
      else if (report.kind === 'failed') failure = report.error
    })
    child.once('error', reject)
    child.once('exit', () => resolve())
  })
  if (rule !== undefined) await target.server!.faults.remove(rule)
  if (failure !== undefined) throw new Error(`the child failed: ${failure}`)
  const log = await target.server!.log(undefined, before)
  const requests = log.filter((record) => record.accessKeyId === accessKeyId)
  const killed = child.signalCode === 'SIGKILL'
  return { pages: [...kept.values()], closed, killed, requests }
}

/** The points of a run that children are killed at: all with `SPILLWAY_LONG=1`, else every tenth one. */
const stride = process.env['SPILLWAY_LONG'] === '1' ? 1 : 10

/** The points at which a child that makes these requests can be killed, spread over the slots. */
async function atEveryRequest(
  requests: readonly RequestRecord[],
  run: (slot: number, kill: { at: number; when: 'request' | 'answer' }) => Promise<void>,
): Promise<void> {
  const all: { at: number; when: 'request' | 'answer' }[] = []
  for (const [index, { method }] of requests.entries()) {
    const at = index + 1
    all.push({ at, when: 'request' })
    // Reading leaves no trace: before and after are the same.
    if (method !== 'GET' && method !== 'HEAD') all.push({ at, when: 'answer' })
  }
  const points = all.filter((_, index) => index % stride === 0)
  await Promise.all(
    users.map(async (_, slot) => {
      for (let point = points.shift(); point !== undefined; point = points.shift()) await run(slot, point)
    }),
  )
}

async function verify(backup: S3Backup, pages: readonly KeptPage[], what: string): Promise<void> {
  if (pages.length === 0) return
  const memory = new Uint8Array(pages.length * pageBytes)
  const { copied, error } = await backup.copyPages(runsOf(pages.map(({ handle }) => handle)), [memory])
  if (error !== undefined) throw error
  expect(copied, what).toBe(pages.length)
  assertPages(
    memory,
    pages.map(({ id }) => id),
    what,
  )
}

describe(`a process killed at any request (seed ${seed})`, () => {
  it('leaves nothing that a sweep does not remove, and the sweep takes nothing from owners that live', async () => {
    const prefix = target.prefix()
    const open = () =>
      S3Backup.open({ client: target.client(), bucket: target.bucket, prefix, leaseMs: 1500, ...common })
    const writers = await Promise.all([openInTime(open), openInTime(open)])
    const workloads = writers.map(
      (backup, index) => new Workload(backup, { seed: seed + 100 + index, maxBatchPages: 60 }),
    )
    let running = true
    const work = workloads.map(async (workload) => {
      while (running) {
        await workload.step()
        await new Promise((resolve) => setTimeout(resolve, 100))
      }
    })
    const { requests } = await runChild(0, { prefix, leaseMs: 1500 })
    let killed = 0
    await atEveryRequest(requests, async (slot, kill) => {
      const outcome = await runChild(slot, { prefix, leaseMs: 1500 }, kill)
      if (outcome.killed) killed++
    })
    expect(killed).toBeGreaterThan(requests.length / stride)
    // The leases have to run out first; the writers go on all the time.
    const living = writers.map((backup) => backup.stats().epoch)
    const dead = async () =>
      (await target.list(prefix)).filter(({ key }) => !living.some((epoch) => key.includes(epoch)))
    const orphans = (await dead()).length
    const deadline = performance.now() + 30_000
    while ((await dead()).length > 0 && performance.now() < deadline) {
      await new Promise((resolve) => setTimeout(resolve, 500))
      await Promise.all(writers.map((backup) => backup.sweepOrphans()))
    }
    expect(await dead()).toEqual([])
    running = false
    await Promise.all(work)
    expect(orphans).toBeGreaterThan(killed / 2)
    for (const workload of workloads) {
      expect([...workload.errors]).toEqual([])
      await workload.verify()
      await workload.dropAll()
    }
    for (const backup of writers) await backup.close()
    expect(await target.list(prefix)).toEqual([])
  })

  it('leaves a persistent store with every page that was acknowledged', async () => {
    const prefix = target.prefix()
    const options = { persistent: true, leaseMs: 300 }
    const closed = `${prefix}closed/`
    const first = await runChild(0, { prefix: closed, ...options })
    expect(first.closed).toBe(true)
    const outcomes: { own: string; outcome: Outcome; what: string }[] = []
    await atEveryRequest(first.requests, async (slot, kill) => {
      const own = `${prefix}${kill.at}-${kill.when}/`
      const outcome = await runChild(slot, { prefix: own, ...options }, kill)
      outcomes.push({ own, outcome, what: `killed at the ${kill.when} of request ${kill.at}` })
    })
    // Attached when all are dead: the leases of most have run out by then, and nobody has to wait for them.
    for (const { own, outcome, what } of [{ own: closed, outcome: first, what: 'closed' }, ...outcomes]) {
      const backup = await S3Backup.open({
        client: target.client(),
        bucket: target.bucket,
        prefix: own,
        ownerWaitMs: 10_000,
        ...common,
        ...options,
      })
      await verify(backup, outcome.pages, what)
      await backup.close()
      await target.clear(own)
    }
    const killed = outcomes.filter(({ outcome }) => outcome.killed).length
    expect(killed).toBeGreaterThan(first.requests.length / stride)
    // Whoever worked had pages to lose, and told of them before. How many of the points come after that depends on how often
    // leases were renewed until then, so it is looked up and not counted.
    const working = outcomes.filter(({ outcome }) => hasBegun(outcome))
    expect(working.filter(({ outcome }) => !hasBase(outcome))).toEqual([])
    expect(hasBase(first)).toBe(true)
    expect(working.length).toBeGreaterThan(4 / stride)
  })
})
