/**
 * Owners whose lease is renewed too late, while another instance sweeps all the time: whoever is taken for dead hears of it
 * before anything it relies on is gone, and whoever is not keeps every page.
 */
import { isSpillwayError } from '@spillway/core'
import { faults, type S3Target, s3Target } from '@spillway/test-s3-server'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { S3Backup } from '../src/index.ts'
import { openInTime } from './stores.ts'
import { assertPages, handlesOf, pageBytes, pagesOf, runsOf } from './workload.ts'

const leaseMs = 400
/** How late the renewals are; the service's clock has whole seconds, so about 1.4 s make an owner look dead. */
const latenesses = [0, 900, 1500, 2200, 4000]
const seed = Number(process.env['SPILLWAY_SEED'] ?? 5)
let target: S3Target

beforeAll(async () => {
  const users = latenesses.map((_, index) => ({ accessKeyId: `owner-${index}`, secretAccessKey: 'secret' }))
  const main = { accessKeyId: 'sweeper', secretAccessKey: 'secret' }
  target = await s3Target({ embedded: true, credentials: [main, ...users], seed })
})
afterAll(() => target.close())

interface Life {
  readonly lost: boolean
  readonly pages: number
}

/** Lives for a while with late renewals and checks what it was promised. */
async function live(backup: S3Backup, forMs: number): Promise<Life> {
  const kept = new Map<number, number>()
  const end = performance.now() + forMs
  let nextId = 0
  const verify = async (ids: number[]): Promise<Error | undefined> => {
    const memory = new Uint8Array(ids.length * pageBytes)
    const { copied, error } = await backup.copyPages(runsOf(ids.map((id) => kept.get(id)!)), [memory])
    assertPages(memory, ids.slice(0, copied), 'reading back')
    return error
  }
  while (performance.now() < end) {
    const ids = Array.from({ length: 20 }, () => nextId++)
    const { handles, error } = await backup.backupPages([pagesOf(ids)])
    handlesOf(handles).forEach((handle, index) => {
      kept.set(ids[index]!, handle)
    })
    const failure = error ?? (await verify([...kept.keys()].slice(-60)))
    if (failure !== undefined) {
      // The only way to fail is to hear that the pages belong to somebody else now, and then it is for good.
      const after = await backup.backupPages([pagesOf([1])])
      expect(isSpillwayError(after.error) && after.error.code, String(failure)).toBe('EBADF')
      return { lost: true, pages: kept.size }
    }
    await new Promise((resolve) => setTimeout(resolve, 60))
  }
  const failure = await verify([...kept.keys()])
  if (failure === undefined) return { lost: false, pages: kept.size }
  const after = await backup.backupPages([pagesOf([1])])
  expect(isSpillwayError(after.error) && after.error.code, String(failure)).toBe('EBADF')
  return { lost: true, pages: kept.size }
}

describe('an owner that renews its lease late', () => {
  it(`keeps every page or hears that it has lost them (seed ${seed})`, async () => {
    const prefix = target.prefix()
    const open = (accessKeyId: string, ms: number) =>
      S3Backup.open({
        client: target.client({ credentials: { accessKeyId, secretAccessKey: 'secret' } }),
        bucket: target.bucket,
        prefix,
        leaseMs: ms,
        segmentBytes: 16 * pageBytes,
        lingerMs: 0,
      })
    const sweeper = await open('sweeper', 60_000)
    const owners = await Promise.all(
      latenesses.map((_, index) => openInTime(() => open(`owner-${index}`, leaseMs))),
    )
    for (const [index, lateMs] of latenesses.entries()) {
      if (lateMs === 0) continue
      await target.server!.faults.always('PutObject', faults.delayed(lateMs, lateMs / 4), {
        keyIncludes: 'leases/',
        accessKeyId: `owner-${index}`,
      })
    }
    let running = true
    const sweptEpochs: string[] = []
    const sweeping = (async () => {
      while (running) {
        sweptEpochs.push(...(await sweeper.sweepOrphans()).epochs)
        await new Promise((resolve) => setTimeout(resolve, 50))
      }
    })()
    const lives = await Promise.all(owners.map((owner) => live(owner, 6000)))
    await target.server!.faults.clear()
    running = false
    await sweeping

    for (const [index, life] of lives.entries()) {
      const epoch = owners[index]!.stats().epoch
      expect(life.lost, `late by ${latenesses[index]} ms`).toBe(sweptEpochs.includes(epoch))
    }
    expect(lives[0]).toMatchObject({ lost: false })
    expect(lives.at(-1)).toMatchObject({ lost: true })
    await Promise.all(owners.map((owner) => owner.close().catch(() => {})))
    const dead = async () =>
      (await target.list(prefix)).filter(({ key }) => !key.includes(sweeper.stats().epoch))
    const deadline = performance.now() + 20_000
    while ((await dead()).length > 0 && performance.now() < deadline) {
      await sweeper.sweepOrphans()
      await new Promise((resolve) => setTimeout(resolve, 300))
    }
    expect(await dead()).toEqual([])
    await sweeper.close()
    expect(await target.list(prefix)).toEqual([])
  })
})
