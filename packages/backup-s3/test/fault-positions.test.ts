/**
 * Every kind of fault at every request that a small history makes: opening, backing up, restoring, dropping, closing. Faults
 * that pass are not seen at all; faults that stay end the call that met them with a code of its own, and nothing else.
 */
import { type HandleRun, isSpillwayError } from '@spillway/core'
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

interface Trouble {
  readonly step: string
  readonly code: string
}

const codeOf = (error: unknown) => (isSpillwayError(error) ? error.code : String((error as Error)?.stack))

/** A small history; returns what went wrong in it. Throws when bytes are wrong or counts do not add up. */
async function history(prefix: string, user: (typeof users)[number], fast: boolean): Promise<Trouble[]> {
  const troubles: Trouble[] = []
  const trouble = (step: string, error: unknown) => troubles.push({ step, code: codeOf(error) })
  let backup: S3Backup
  try {
    backup = await S3Backup.open({
      client: target.client({ credentials: user, ...(fast ? { requestHandler: pageHttpHandler() } : {}) }),
      bucket: target.bucket,
      prefix,
      segmentBytes: 16 * pageBytes,
      lingerMs: 0,
      deleteDelayMs: 0,
      retryBaseMs: 1,
      retryForMs: 5000,
      firstByteTimeoutMs: 150,
      bodyTimeoutMs: 100,
      compaction: false,
    })
  } catch (error) {
    trouble('open', error)
    return troubles
  }
  const kept = new Map<number, number>()
  const backUp = async (ids: number[]) => {
    const { handles, error } = await backup.backupPages([pagesOf(ids)])
    const known = handlesOf(handles)
    if (error !== undefined) trouble('backup', error)
    else expect(known.length).toBe(ids.length)
    known.forEach((handle, index) => {
      kept.set(ids[index]!, handle)
    })
  }
  const copy = async (ids: number[]) => {
    const there = ids.filter((id) => kept.has(id))
    if (there.length === 0) return
    const memory = new Uint8Array(there.length * pageBytes)
    const runs: HandleRun[] = runsOf(there.map((id) => kept.get(id)!))
    const { copied, error } = await backup.copyPages(runs, [memory])
    if (error !== undefined) trouble('copy', error)
    else expect(copied).toBe(there.length)
    assertPages(memory, there.slice(0, copied), 'copy')
  }
  const drop = async (ids: number[]) => {
    const there = ids.filter((id) => kept.has(id))
    const runs = runsOf(there.map((id) => kept.get(id)!))
    for (const id of there) kept.delete(id)
    await backup.drop(runs).catch((error) => trouble('drop', error))
  }
  const range = (first: number, count: number) => Array.from({ length: count }, (_, index) => first + index)

  // Short, because it is repeated for every request that it makes: whole segments and parts, alone and side by side.
  await backUp(range(0, 24))
  await copy(range(0, 24))
  await drop(range(0, 16))
  await backUp(range(100, 6))
  await copy([...range(20, 4), ...range(100, 6)])
  await drop([...range(16, 8), ...range(100, 6)])
  expect(backup.stats().livePages).toBe(0)
  await backup.close().catch((error) => trouble('close', error))
  return troubles
}

/** How many requests a history makes when nothing goes wrong. */
async function countRequests(operation: Operation | 'any', fast: boolean): Promise<number> {
  await target.server!.clearLog()
  const prefix = target.prefix()
  expect(await history(prefix, users[0]!, fast)).toEqual([])
  return (await target.server!.log(operation === 'any' ? undefined : operation)).length
}

/** Every request meets each fault with `SPILLWAY_LONG=1`; else each fault takes every sixth, and begins at another one. */
const stride = process.env['SPILLWAY_LONG'] === '1' ? 1 : 6
let turn = 0

/** Runs the history once for each position, whose request meets the fault. */
async function atEveryPosition(
  fault: Fault,
  scope: { times: number; operation?: Operation; fast?: boolean },
  check: (troubles: Trouble[], prefix: string, at: number) => Promise<void>,
): Promise<void> {
  // What happens on the wire is met with our own handler, what the service says with the SDK's.
  const { operation = 'any', times, fast = true } = scope
  const requests = await countRequests(operation, fast)
  expect(requests).toBeGreaterThan(2)
  let fired = 0
  let position = 1 + (turn++ % Math.min(stride, requests))
  const positions = Math.ceil((requests - position + 1) / stride)
  const work = users.map(async (user) => {
    while (position <= requests) {
      const at = position
      position += stride
      const prefix = target.prefix()
      const { accessKeyId } = user
      const rule = await target.server!.faults.always(operation, fault, { times, from: at, accessKeyId })
      const troubles = await history(prefix, user, fast)
      const befell = (await target.server!.faults.fired())[rule]! > 0
      await target.server!.faults.remove(rule)
      // How many deletions there are depends on when they happen: the last request may not have come.
      if (befell) await check(troubles, prefix, at)
      if (befell) fired++
    }
  })
  await Promise.all(work)
  expect(fired).toBeGreaterThan(positions / 2)
}

describe('a fault that passes, at every request', () => {
  it.each<[string, Fault]>([
    ['500', faults.internalError],
    ['503', faults.slowDown],
    ['429', faults.tooManyRequests()],
    ['409', faults.conditionalConflict],
    ['dropped connection', faults.dropped],
    ['lost answer', faults.lostAnswer],
    ['cut answer', faults.cut()],
    ['stalled body', faults.stalled()],
    ['no answer', faults.hung],
    ['no answer after it was done', faults.silentAfterDone],
  ])('%s: no call fails, every byte is right, nothing is left', async (_, fault) => {
    const fast = fault.kind !== 'error'
    await atEveryPosition(fault, { times: 1, fast }, async (troubles, prefix, at) => {
      expect(troubles, `at request ${at}`).toEqual([])
      expect(await target.list(prefix), `left behind, at request ${at}`).toEqual([])
    })
  })

  it('flipped bit in what is read: it is read again', async () => {
    await atEveryPosition(
      faults.flipped(),
      { times: 1, operation: 'GetObject' },
      async (troubles, prefix, at) => {
        // What was written to try the service out at opening has to come back as it was.
        if (troubles[0]?.step === 'open') expect(troubles).toEqual([{ step: 'open', code: 'EINVAL' }])
        else expect(troubles, `at read ${at}`).toEqual([])
        if (troubles.length === 0) expect(await target.list(prefix)).toEqual([])
      },
    )
  })

  it.each<[string, Fault]>([
    ['one byte short', faults.truncated(1)],
    ['the whole object', faults.rangeIgnored],
  ])('an answer that is %s: it is asked again, and never taken for the pages', async (_, fault) => {
    await atEveryPosition(fault, { times: 1, operation: 'GetObject' }, async (troubles, prefix, at) => {
      expect(troubles, `at read ${at}`).toEqual([])
      expect(await target.list(prefix), `left behind, at read ${at}`).toEqual([])
    })
  })

  it('lost answer: no segment is written twice', async () => {
    await atEveryPosition(faults.lostAnswer, { times: 1 }, async (_, prefix, at) => {
      const written = (await target.server!.log('PutObject')).filter(
        ({ key, status, faults: befell }) =>
          key.startsWith(prefix) && !key.includes('leases/') && (status === 200 || befell.includes('drop')),
      )
      expect(new Set(written.map(({ key }) => key)).size, `at request ${at}`).toBe(written.length)
    })
  })
})

describe('a fault that stays, from every request on', () => {
  it.each<[string, Fault, string[]]>([
    ['AccessDenied', faults.accessDenied, ['EACCES', 'EPERM']],
    ['ExpiredToken', faults.expiredToken, ['EACCES', 'EPERM']],
    ['InvalidAccessKeyId', faults.invalidAccessKeyId, ['EACCES', 'EPERM']],
    ['QuotaExceeded', faults.quotaExceeded, ['EDQUOT']],
    ['NoSuchBucket', faults.noSuchBucket, ['ENOENT']],
    ['RequestTimeTooSkewed', faults.requestTimeTooSkewed, ['EINVAL']],
    ['moved to another region', faults.movedTo('eu-west-1'), ['EINVAL']],
  ])('%s: each call that needs the service says so', async (_, fault, codes) => {
    await atEveryPosition(fault, { times: 1000, fast: false }, async (troubles, _prefix, at) => {
      expect(troubles.length, `at request ${at}`).toBeGreaterThan(0)
      for (const { step, code } of troubles) expect(codes, `${step} at request ${at}`).toContain(code)
    })
  })
})
