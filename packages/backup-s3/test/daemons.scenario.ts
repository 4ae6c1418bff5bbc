/**
 * A load on a real Ceph cluster while its daemons are killed, frozen and started again. Runs by `npm run test:s3:ceph`,
 * which starts a cluster for it; a failure prints the seed, and `SPILLWAY_SEED` replays it.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { type CephControl, cephControl, type S3Target, s3Target } from '@spillway/test-s3-server'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { S3Backup } from '../src/index.ts'
import { Workload } from './workload.ts'

let target: S3Target
let control: CephControl
const seed = Number(process.env['SPILLWAY_SEED'] ?? Date.now() % 100_000)

beforeAll(async () => {
  const found = cephControl()
  if (found === undefined) throw new Error('no Ceph cluster to kill: run this with `npm run test:s3:ceph`')
  control = found
  target = await s3Target()
})
afterAll(async () => {
  await control.thaw()
  await control.restart()
  await target.close()
})

/** Runs workers on a backup while something happens to the cluster; every page is checked during it and after it. */
async function underLoad(
  name: string,
  happening: () => Promise<void>,
  options: { retryForMs?: number } = {},
): Promise<Workload[]> {
  const prefix = target.prefix()
  const backup = await S3Backup.open({
    client: target.client(),
    bucket: target.bucket,
    prefix,
    segmentBytes: 1024 ** 2,
    firstByteTimeoutMs: 2000,
    bodyTimeoutMs: 2000,
    ...options,
  })
  const workers = [1, 2, 3, 4].map((worker) => new Workload(backup, { seed: seed + worker }))
  let running = true
  const work = workers.map(async (worker) => {
    while (running) await worker.step()
  })
  try {
    await sleep(1000)
    await happening()
    await sleep(1000)
  } finally {
    running = false
  }
  await Promise.all(work)
  for (const worker of workers) await worker.verify()
  const copied = workers.reduce((sum, { counts }) => sum + counts.copied, 0)
  expect(copied, name).toBeGreaterThan(1000)
  for (const worker of workers) await worker.dropAll()
  await backup.close()
  expect(await target.list(prefix), 'left in the bucket').toEqual([])
  return workers
}

const failures = (workers: readonly Workload[]) => workers.flatMap(({ errors }) => [...errors.keys()])

it(`no page is lost or wrong and no call fails while the gateway is killed twice (seed ${seed})`, async () => {
  const workers = await underLoad('gateway', async () => {
    for (let round = 0; round < 2; round++) {
      await control.killGateway()
      await sleep(1000)
      await control.restart()
      await sleep(1000)
    }
  })
  expect(failures(workers)).toEqual([])
})

it(`no page is lost or wrong and no call fails while the storage daemon is killed (seed ${seed})`, async () => {
  const workers = await underLoad('osd', async () => {
    await control.killOsd()
    await sleep(1500)
    await control.restart()
    await sleep(4000)
  })
  expect(failures(workers)).toEqual([])
})

it(`no page is lost or wrong while gateway and storage daemon stand still (seed ${seed})`, async () => {
  const workers = await underLoad('frozen', async () => {
    await control.freezeGateway()
    await sleep(3000)
    await control.thaw()
    await sleep(500)
    await control.freezeOsd()
    await sleep(3000)
    await control.thaw()
  })
  expect(failures(workers)).toEqual([])
})

it(`calls end with a clear error when the outage outlasts the retries, and what was stored stays (seed ${seed})`, async () => {
  const workers = await underLoad(
    'given up',
    async () => {
      await control.killGateway()
      await sleep(4000)
      await control.restart()
    },
    { retryForMs: 1000 },
  )
  expect(failures(workers).length).toBeGreaterThan(0)
  for (const code of failures(workers)) expect(['EIO', 'ETIMEDOUT', 'EAGAIN']).toContain(code)
})
