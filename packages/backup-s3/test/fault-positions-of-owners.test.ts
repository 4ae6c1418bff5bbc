/**
 * Faults at every request that owning makes: opening a persistent store, compacting, manifests, closing, attaching, sweeping.
 * The other half of `fault-positions.test.ts`, with the faults that one leaves out.
 */
import { isSpillwayError } from '@spillway/core'
import { type Fault, faults, type Operation, type S3Target, s3Target } from '@spillway/test-s3-server'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { pageHttpHandler, S3Backup } from '../src/index.ts'
import { assertPages, handlesOf, pageBytes, pagesOf, runsOf } from './workload.ts'

/** Histories run side by side, each as a user of its own that alone meets its fault: most of their time is waiting. */
const users = Array.from({ length: 6 }, (_, index) => ({
  accessKeyId: `user-${index}`,
  secretAccessKey: 'secret',
}))
let target: S3Target
beforeAll(async () => {
  target = await s3Target({
    embedded: true,
    credentials: [{ accessKeyId: 'main', secretAccessKey: 'secret' }, ...users],
  })
})
afterAll(() => target.close())

type User = (typeof users)[number]

function range(first: number, count: number): number[] {
  return Array.from({ length: count }, (_, index) => first + index)
}

function open(prefix: string, user: User): Promise<S3Backup> {
  return S3Backup.open({
    client: target.client({ credentials: user, requestHandler: pageHttpHandler() }),
    bucket: target.bucket,
    prefix,
    persistent: true,
    ownerWaitMs: 10_000,
    segmentBytes: 16 * pageBytes,
    lingerMs: 0,
    deleteDelayMs: 0,
    retryBaseMs: 1,
    retryForMs: 8000,
    firstByteTimeoutMs: 400,
    bodyTimeoutMs: 150,
    compaction: { maxAmplification: 1, bytesPerSecond: 1e9 },
  })
}

/** The pages that must be in the store, by number, and the handles that they have. */
class Kept {
  readonly handles = new Map<number, number>()

  async backUp(backup: S3Backup, ids: number[]): Promise<void> {
    const { handles, error } = await backup.backupPages([pagesOf(ids)])
    for (const [index, handle] of handlesOf(handles).entries()) this.handles.set(ids[index]!, handle)
    if (error !== undefined) throw error
  }

  async drop(backup: S3Backup, ids: number[]): Promise<void> {
    const runs = runsOf(ids.map((id) => this.handles.get(id)!))
    for (const id of ids) this.handles.delete(id)
    await backup.drop(runs)
  }

  /** Throws when bytes are wrong. */
  async verify(backup: S3Backup): Promise<void> {
    const ids = [...this.handles.keys()]
    const memory = new Uint8Array(ids.length * pageBytes)
    const runs = runsOf(ids.map((id) => this.handles.get(id)!))
    const { copied, error } = await backup.copyPages(runs, [memory])
    assertPages(memory, ids.slice(0, copied), 'copy')
    if (error !== undefined) throw error
  }
}

/** A store with garbage in it is compacted, closed, attached to, swept, emptied and closed. */
async function history(prefix: string, user: User): Promise<void> {
  const kept = new Kept()
  const first = await open(prefix, user)
  try {
    await kept.backUp(first, range(0, 32))
    // A quarter of each segment stays: compaction makes one of both.
    await kept.drop(first, [...range(4, 12), ...range(20, 12)])
    const end = performance.now() + 2000
    while (first.stats().objects > 1 && performance.now() < end) await new Promise(setImmediate)
    await kept.verify(first)
  } finally {
    await first.close()
  }
  const second = await open(prefix, user)
  try {
    expect(second.stats().livePages).toBe(kept.handles.size)
    await second.retainOnly(runsOf([...kept.handles.values()]))
    await kept.verify(second)
    await second.sweepOrphans()
    await kept.verify(second)
    await kept.drop(second, [...kept.handles.keys()])
  } finally {
    await second.close()
  }
}

/** What is left of pages; leases and manifests of an empty store are not counted. */
async function segmentsLeft(prefix: string): Promise<string[]> {
  return (await target.list(prefix)).map(({ key }) => key).filter((key) => key.includes('/s-'))
}

/** Every request meets each fault with `SPILLWAY_LONG=1`; else each fault takes every 20th, and begins at another one. */
const stride = process.env['SPILLWAY_LONG'] === '1' ? 1 : 20
let turn = 0

/** Runs the history once for each position, whose request meets the fault; `check` gets what the history threw. */
async function atEveryPosition(
  fault: Fault,
  operation: Operation | 'any',
  check: (failure: unknown, prefix: string, where: string) => Promise<void>,
): Promise<void> {
  await target.server!.clearLog()
  const plain = target.prefix()
  await history(plain, users[0]!)
  expect(await segmentsLeft(plain)).toEqual([])
  const requests = await target.server!.log(operation === 'any' ? undefined : operation)
  expect(requests.length).toBeGreaterThan(1)
  let fired = 0
  let position = 1 + (turn++ % Math.min(stride, requests.length))
  const positions = Math.ceil((requests.length - position + 1) / stride)
  const work = users.map(async (user) => {
    while (position <= requests.length) {
      const at = position
      position += stride
      const prefix = target.prefix()
      const { accessKeyId } = user
      const rule = await target.server!.faults.once(operation, fault, { from: at, accessKeyId })
      const failure = await history(prefix, user).catch((error: unknown) => error)
      const befell = (await target.server!.faults.fired())[rule]! > 0
      await target.server!.faults.remove(rule)
      // How many deletions there are depends on when they happen: the last request may not have come.
      if (!befell) continue
      fired++
      await check(failure, prefix, `at request ${at} of ${requests.length}`)
    }
  })
  await Promise.all(work)
  expect(fired).toBeGreaterThan(positions / 2)
}

/** Each with the operation that it befalls, all when none is said. */
const passing: [string, Fault, Operation?][] = [
  ['500', faults.internalError],
  ['the page of a proxy', faults.webPage(502)],
  ['lost answer', faults.lostAnswer],
  ['no answer after it was done', faults.silentAfterDone],
  ['400 RequestTimeout', faults.requestTimeout, 'PutObject'],
]
// Of a kind with those, so `SPILLWAY_LONG=1` runs them.
if (process.env['SPILLWAY_LONG'] === '1') {
  passing.push(
    ['503 ServiceUnavailable', faults.serviceUnavailable],
    ['a slow answer', faults.delayed(30)],
    ['a late answer', faults.answeredLate(30)],
    ['dropped connection', faults.dropped],
    ['cut answer', faults.cut()],
    ['stalled body', faults.stalled()],
    ['no answer', faults.hung],
  )
}

describe('a fault that passes, at every request of an owner', () => {
  it('has compaction, manifests, attaching and sweeping in its history', async () => {
    await target.server!.clearLog()
    const prefix = target.prefix()
    await history(prefix, users[0]!)
    const written = (await target.server!.log('PutObject')).map(({ key }) => key.slice(prefix.length))
    // Two of pages and one of compaction.
    expect(written.filter((key) => key.includes('/s-'))).toHaveLength(3)
    expect(written.filter((key) => key.includes('leases/')).length).toBeGreaterThan(1)
    expect((await target.server!.log('ListObjectsV2')).length).toBeGreaterThan(0)
    expect((await target.server!.log('DeleteObjects')).length).toBeGreaterThan(0)
  })

  it.each(passing)('%s: no call fails, every byte is right, nothing is left', async (_, fault, operation) => {
    await atEveryPosition(fault, operation ?? 'any', async (failure, prefix, where) => {
      expect(failure, where).toBeUndefined()
      expect(await segmentsLeft(prefix), where).toEqual([])
    })
  })

  it('errors for the keys of a DeleteObjects: they are deleted later', async () => {
    await atEveryPosition(faults.deleteErrors(), 'DeleteObjects', async (failure, prefix, where) => {
      expect(failure, where).toBeUndefined()
      expect(await segmentsLeft(prefix), where).toEqual([])
    })
  })
})

describe('what is damaged in the store', () => {
  const places = process.env['SPILLWAY_LONG'] === '1' ? [0, 100, 40_000] : [100]
  it.each(places)('a bit at byte %i of any object is told, and never taken for a page', async (at) => {
    await atEveryPosition(faults.flippedInStore(at), 'PutObject', async (failure, _prefix, where) => {
      // Not every object is read again, and a lease that cannot be read is one that somebody else has.
      if (failure === undefined) return
      const code = isSpillwayError(failure) ? failure.code : String((failure as Error).stack)
      expect(['EBADMSG', 'EINVAL', 'EBUSY', 'EBADF'], `${where}: ${failure}`).toContain(code)
    })
  })
})

describe('compaction during an outage', () => {
  it('is given up and done later: the segments are as movable as before', async () => {
    const user = users[0]!
    const kept = new Kept()
    const backup = await S3Backup.open({
      client: target.client({ credentials: user }),
      bucket: target.bucket,
      prefix: target.prefix(),
      segmentBytes: 16 * pageBytes,
      lingerMs: 0,
      deleteDelayMs: 0,
      retryBaseMs: 1,
      retryForMs: 200,
      compaction: { maxAmplification: 1, bytesPerSecond: 1e9 },
    })
    await kept.backUp(backup, range(0, 33))
    const rule = await target.server!.faults.always('GetObject', faults.internalError, {
      accessKeyId: user.accessKeyId,
    })
    await kept.drop(backup, [...range(4, 12), ...range(20, 12)])
    const failed = () => isSpillwayError(backup.stats().backgroundError)
    while (!failed()) await new Promise((resolve) => setTimeout(resolve, 20))
    expect(backup.stats().compactions).toBe(0)
    await target.server!.faults.remove(rule)
    // The next drop looks again, and both segments that were to be moved then are.
    await kept.drop(backup, [32])
    const end = performance.now() + 5000
    while (backup.stats().objects > 1 && performance.now() < end)
      await new Promise((resolve) => setTimeout(resolve, 20))
    expect(backup.stats().objects).toBe(1)
    await kept.verify(backup)
    await backup.close()
  })
})

describe('credentials that expire half way', () => {
  it('say so with the service’s own code, keep every page, and work again when they were renewed', async () => {
    const user = users[1]!
    const kept = new Kept()
    const prefix = target.prefix()
    const backup = await open(prefix, user)
    await kept.backUp(backup, range(0, 20))
    const rule = await target.server!.faults.always('any', faults.expiredToken, {
      accessKeyId: user.accessKeyId,
    })
    const { error } = await backup.backupPages([pagesOf(range(100, 3))])
    expect(error).toMatchObject({ code: 'EACCES', retryable: false, cause: { name: 'ExpiredToken' } })
    await expect(kept.verify(backup)).rejects.toMatchObject({
      code: 'EACCES',
      cause: { name: 'ExpiredToken' },
    })
    await target.server!.faults.remove(rule)
    await kept.verify(backup)
    await kept.backUp(backup, range(200, 20))
    await kept.verify(backup)
    await kept.drop(backup, [...kept.handles.keys()])
    await backup.close()
    expect(await segmentsLeft(prefix)).toEqual([])
  })
})
