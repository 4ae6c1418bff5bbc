/** What becomes of dropped pages, of dead owners, and of stores that outlive their process. */

import type { HandleRun } from '@spillway/core'
import { faults, type S3Target, s3Target } from '@spillway/test-s3-server'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { S3Backup, type S3BackupOptions } from '../src/index.ts'
import { countOf, openInTime, openOn, pageSizeBytes, pick, randomPages, read } from './stores.ts'

let target: S3Target
beforeEach(async () => {
  target = await s3Target({ embedded: true, reuseProcess: true })
})
afterEach(() => target.close())

const segment = '/s-'
const open = (options: Partial<S3BackupOptions> = {}) =>
  openInTime(() =>
    openOn(target, { deleteDelayMs: 0, lingerMs: 0, segmentBytes: 16 * pageSizeBytes, ...options }),
  )

async function until(what: string, check: () => boolean | Promise<boolean>): Promise<void> {
  const deadline = performance.now() + 20_000
  while (!(await check())) {
    if (performance.now() > deadline) throw new Error(`waited in vain until ${what}`)
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
}

/** What is left of a store, but for the head of a persistent one. */
const leftUnder = async (prefix: string, where = target) =>
  (await where.list(prefix)).filter(({ key }) => !key.includes('/heads/'))

const segmentsUnder = async (prefix: string) =>
  (await target.list(prefix)).filter(({ key }) => key.includes(segment))

/** An owner that dies: nothing that it sends arrives any more. */
async function dyingOwner(
  options: Partial<S3BackupOptions>,
): Promise<{ backup: S3Backup; die: () => Promise<void> }> {
  const client = target.client()
  let isDead = false
  client.middlewareStack.add(
    (next) => async (args) => {
      if (isDead) throw Object.assign(new Error('dead'), { name: 'AccessDenied' })
      return next(args)
    },
    { step: 'finalizeRequest', name: 'dead', priority: 'low' },
  )
  const backup = await open({ client, ...options })
  const die = async () => {
    isDead = true
    await backup.close().catch(() => {})
  }
  return { backup, die }
}

describe('dropping', () => {
  it('T4: deletes an object when its last page is dropped, many in one request, in the background', async () => {
    const prefix = target.prefix()
    const backup = await open({ prefix, deleteDelayMs: 50, compaction: false })
    // Opening has tried one.
    await target.server!.clearLog()
    const { handles } = await backup.backupPages([randomPages(160)])
    expect(await segmentsUnder(prefix)).toHaveLength(10)
    await backup.drop(pick(handles, [0, 1, 2]))
    await backup.drop(handles.slice(1))
    await until('nine are gone', async () => (await segmentsUnder(prefix)).length === 1)
    expect((await target.server!.log('DeleteObjects')).length).toBe(1)
    expect(await target.server!.log('ListObjectsV2').then((log) => log.length)).toBeLessThan(200)
    await backup.close()
    expect(await target.list(prefix)).toEqual([])
  })

  it('sees errors for single keys in an answer that says 200, and tries these again', async () => {
    const prefix = target.prefix()
    const backup = await open({ prefix, retryBaseMs: 1 })
    await target.server!.faults.always('DeleteObjects', faults.deleteErrors('InternalError'), { times: 3 })
    const { handles } = await backup.backupPages([randomPages(48)])
    await backup.drop(handles)
    await until('all are gone', () => backup.stats().deletionsPending === 0)
    expect(await segmentsUnder(prefix)).toEqual([])
    expect(backup.stats().deletionFailures).toBeGreaterThanOrEqual(3)
    await backup.close()
  })

  it('a permission to delete that is taken away later shows at close, and a sweep finds the rest', async () => {
    const prefix = target.prefix()
    const backup = await open({ prefix, leaseMs: 200 })
    await backup.backupPages([randomPages(20)])
    const rule = await target.server!.faults.always(['DeleteObjects', 'DeleteObject'], faults.accessDenied)
    await expect(backup.close()).rejects.toMatchObject({ code: 'EACCES' })
    expect(backup.stats().leakedPages).toBe(20)
    await target.server!.faults.remove(rule)
    const next = await open({ prefix, leaseMs: 200 })
    await until('it is swept', async () => (await next.sweepOrphans()).objects > 0)
    await next.close()
    expect(await target.list(prefix)).toEqual([])
  })

  it('never lists while it works', async () => {
    const backup = await open()
    await target.server!.clearLog()
    for (let round = 0; round < 5; round++) {
      const { handles } = await backup.backupPages([randomPages(40)])
      await read(backup, handles)
      await backup.drop(handles)
    }
    await backup.close()
    expect(await target.server!.log('ListObjectsV2')).toEqual([])
  })
})

describe('compaction', () => {
  it('gives the space of dropped pages back while every handle stays valid', async () => {
    const prefix = target.prefix()
    const backup = await open({ prefix, compaction: { maxAmplification: 1.2, bytesPerSecond: 1e9 } })
    const content = randomPages(320)
    const { handles } = await backup.backupPages([content])
    const kept = Array.from({ length: 320 }, (_, page) => page).filter((page) => page % 5 === 0)
    const gone = Array.from({ length: 320 }, (_, page) => page).filter((page) => page % 5 !== 0)
    await backup.drop(pick(handles, gone))
    await until('it is compact', () => backup.stats().spaceAmplification < 1.6)
    await until('the old objects are gone', async () => (await segmentsUnder(prefix)).length <= 5)
    const expected = kept.map((page) => content.subarray(page * pageSizeBytes, (page + 1) * pageSizeBytes))
    expect((await read(backup, pick(handles, kept))).equals(Buffer.concat(expected))).toBe(true)
    // And again, from what was compacted before.
    const few = kept.filter((page) => page % 25 === 0)
    await backup.drop(
      pick(
        handles,
        kept.filter((page) => page % 25 !== 0),
      ),
    )
    const runs = backup.stats().compactions
    await until('it is compacted again', () => backup.stats().compactions > runs)
    const left = few.map((page) => content.subarray(page * pageSizeBytes, (page + 1) * pageSizeBytes))
    expect((await read(backup, pick(handles, few))).equals(Buffer.concat(left))).toBe(true)
    for (const page of gone.slice(0, 20)) {
      await expect(backup.drop(pick(handles, [page]))).rejects.toMatchObject({ code: 'ESTALE' })
    }
    expect(backup.stats().livePages).toBe(few.length)
    await backup.close()
    expect(await target.list(prefix)).toEqual([])
  })

  it('moves no more pages than were dropped, and stops at its budget', async () => {
    const backup = await open({ compaction: { maxAmplification: 1, bytesPerSecond: 1e9 } })
    let dropped = 0
    for (let round = 0; round < 6; round++) {
      const { handles } = await backup.backupPages([randomPages(96)])
      const half = Array.from({ length: 64 }, (_, page) => page + (page >> 1))
      await backup.drop(pick(handles, half))
      dropped += half.length
      await new Promise((resolve) => setTimeout(resolve, 50))
    }
    expect(backup.stats().compactedPages).toBeGreaterThan(0)
    expect(backup.stats().compactedPages).toBeLessThanOrEqual(dropped)
    await backup.close()
  })

  it('a handle of a compacted segment’s own number is not live: nobody was given one', async () => {
    const backup = await open({ compaction: { maxAmplification: 1, bytesPerSecond: 1e9 } })
    const { handles } = await backup.backupPages([randomPages(64)])
    await backup.drop(
      pick(
        handles,
        Array.from({ length: 48 }, (_, page) => page + Math.floor(page / 3)),
      ),
    )
    await until('it is compacted', () => backup.stats().compactions > 0)
    const last = Math.max(...handles.map(({ first }) => first))
    const forged = [{ first: last + 2 ** 21, count: 1 }]
    await expect(backup.copyPages(forged, [Buffer.alloc(pageSizeBytes)])).rejects.toMatchObject({
      code: 'ESTALE',
    })
    await backup.close()
  })

  it('a failure changes nothing', async () => {
    const backup = await open({ compaction: { maxAmplification: 1, bytesPerSecond: 1e9 } })
    const content = randomPages(64)
    const { handles } = await backup.backupPages([content])
    await target.server!.faults.always('PutObject', faults.accessDenied, { keyIncludes: segment })
    const pages = Array.from({ length: 64 }, (_, page) => page)
    await backup.drop(
      pick(
        handles,
        pages.filter((page) => page % 4 !== 0),
      ),
    )
    const wasTried = async () => (await target.server!.log('PutObject')).some(({ status }) => status === 403)
    await until('it was tried', wasTried)
    const rest = pages.filter((page) => page % 4 === 0)
    const expected = rest.map((page) => content.subarray(page * pageSizeBytes, (page + 1) * pageSizeBytes))
    expect((await read(backup, pick(handles, rest))).equals(Buffer.concat(expected))).toBe(true)
    await until('it is told', () => backup.stats().backgroundError !== undefined)
    expect(backup.stats().backgroundError).toMatchObject({ code: 'EACCES' })
    await target.server!.faults.clear()
    await backup.close()
  })
})

describe('owners', () => {
  it('T83: several scratch instances share a prefix, and a sweep takes nothing from those that live', async () => {
    const prefix = target.prefix()
    const dead = await dyingOwner({ prefix, leaseMs: 300 })
    await dead.backup.backupPages([randomPages(40)])
    const [left, right] = [await open({ prefix }), await open({ prefix })]
    const content = randomPages(40)
    const { handles } = await left.backupPages([content])
    expect(await right.sweepOrphans()).toMatchObject({ epochs: [], objects: 0 })
    await dead.die()
    await until('the dead owner is swept', async () => (await right.sweepOrphans()).epochs.length > 0)
    expect((await read(left, handles)).equals(content)).toBe(true)
    await left.close()
    await right.close()
    expect(await target.list(prefix)).toEqual([])
  })

  it('sweeps on its own, without a store, and leaves persistent stores alone unless told', async () => {
    const prefix = target.prefix()
    const store = await open({ prefix, persistent: true })
    const content = randomPages(20)
    const { handles } = await store.backupPages([content])
    await store.close()
    const dead = await dyingOwner({ prefix, leaseMs: 300 })
    await dead.backup.backupPages([randomPages(5)])
    await dead.die()
    const options = { client: target.client(), bucket: target.bucket, prefix }
    await until('it is swept', async () => (await S3Backup.sweepOrphans(options)).epochs.length > 0)
    const again = await open({ prefix, persistent: true })
    expect((await read(again, handles)).equals(content)).toBe(true)
    await again.close()
    const report = await S3Backup.sweepOrphans({ ...options, persistent: true })
    expect(report.bytes).toBeGreaterThan(20 * pageSizeBytes)
    expect(report.failures).toEqual([])
    expect(await leftUnder(prefix)).toEqual([])
  })

  it('keeps its lease by renewing, for as long as it lives', async () => {
    const backup = await open({ leaseMs: 300 })
    const { handles } = await backup.backupPages([randomPages(3)])
    await until('it was renewed often', () => backup.stats().leaseRenewals >= 5)
    await read(backup, handles)
    await backup.close()
  })

  it('keep their leases and heads, sweep and close without any budget', async () => {
    const prefix = target.prefix()
    for (const persistent of [false, true]) {
      const dead = await dyingOwner({ prefix, leaseMs: 300 })
      await dead.backup.backupPages([randomPages(5)])
      await dead.die()
      const backup = await open({ prefix, persistent, leaseMs: 600 })
      backup.setBudget({ maxRequests: 0 })
      const before = backup.stats().leaseRenewals
      await until('it was renewed often', () => backup.stats().leaseRenewals >= before + 5)
      await until('the dead owner is swept', async () => (await backup.sweepOrphans()).epochs.length > 0)
      expect((await backup.backupPages([randomPages(1)])).error).toMatchObject({ code: 'EDQUOT' })
      await backup.close()
    }
    const left = (await leftUnder(prefix)).map(({ key }) => key)
    expect(left.filter((key) => !key.includes('/store-'))).toEqual([])
  })

  it('T85: exactly one of many processes gets a persistent store; the others are told EBUSY and by whom', async () => {
    const prefix = target.prefix()
    const attempts = await Promise.allSettled(
      Array.from({ length: 6 }, () => open({ prefix, persistent: true })),
    )
    const owners = attempts.filter((attempt) => attempt.status === 'fulfilled')
    // All may step back when they meet; two can never go on.
    expect(owners.length).toBeLessThanOrEqual(1)
    for (const attempt of attempts) {
      if (attempt.status === 'rejected')
        expect(attempt.reason).toMatchObject({ code: 'EBUSY', retryable: true })
    }
    for (const owner of owners) await owner.value.close()
    const owner = await open({ prefix, persistent: true })
    await expect(open({ prefix, persistent: true })).rejects.toThrow(String(process.pid))
    const waiting = open({ prefix, persistent: true, ownerWaitMs: 10_000 })
    await owner.close()
    await (await waiting).close()
  })

  it('a persistent owner that comes back too late is told so, and does no harm', async () => {
    const prefix = target.prefix()
    const content = randomPages(20)
    const client = target.client()
    let comeBack = () => {}
    let isBack: Promise<void> | undefined
    client.middlewareStack.add(
      (next) => async (args) => {
        await isBack
        return next(args)
      },
      { step: 'finalizeRequest', name: 'cut off', priority: 'low' },
    )
    const first = await open({ client, prefix, persistent: true, leaseMs: 300, firstByteTimeoutMs: 300 })
    const { handles } = await first.backupPages([content])
    isBack = new Promise((resolve) => {
      comeBack = resolve
    })
    const second = await open({ prefix, persistent: true, leaseMs: 5_000, ownerWaitMs: 20_000 })
    expect((await read(second, handles)).equals(content)).toBe(true)
    comeBack()
    await until('it knows', async () => {
      const { error } = await first
        .backupPages([randomPages(1)])
        .catch((failure: Error) => ({ error: failure }))
      return (error as { code?: string } | undefined)?.code === 'EBADF'
    })
    expect(await first.bytesAvailable()).toBe(0)
    await first.close().catch(() => {})
    expect((await read(second, handles)).equals(content)).toBe(true)
    await second.close()
  }, 90_000)
})

describe('a machine that sleeps', () => {
  it('hears that it was swept, also when the first request for its witness arrives after the sweep', async () => {
    const prefix = target.prefix()
    await target.server!.faults.once('PutObject', faults.delayed(1500), { keyIncludes: '/m-' })
    const options = { prefix, leaseMs: 120_000, firstByteTimeoutMs: 300, retryBaseMs: 1 }
    const backup = await open(options)
    const { handles } = await backup.backupPages([randomPages(1)])
    await target.server!.setClock(300_000)
    const report = await S3Backup.sweepOrphans({ client: target.client(), bucket: target.bucket, prefix })
    expect(report.epochs.length).toBe(1)
    await until('the late request is there', async () => (await leftUnder(prefix)).length > 0)
    expect((await backup.backupPages([randomPages(1)])).error).toMatchObject({ code: 'EBADF' })
    await expect(read(backup, handles)).rejects.toThrow()
    await backup.close().catch(() => {})
  })

  it('is noticed by the service’s clock, also when the answer to the first lease was lost', async () => {
    await target.server!.faults.once('PutObject', faults.lostAnswer, { keyIncludes: 'leases/' })
    const backup = await open({ leaseMs: 120_000 })
    await target.server!.clearLog()
    // More than the lease, which this process has not lived through.
    await target.server!.setClock(300_000)
    const { handles, error } = await backup.backupPages([randomPages(1)])
    expect([error, countOf(handles)]).toEqual([undefined, 1])
    const written = (await target.server!.log('PutObject')).map(({ key }) => key)
    expect(written.some((key) => key.includes('leases/'))).toBe(true)
    await backup.close()
  })
})

describe('listings', () => {
  it('are read to their end, however many pages they have', async () => {
    await using many = await s3Target({ embedded: true, maxListKeys: 3 })
    const prefix = many.prefix()
    const options = { deleteDelayMs: 0, lingerMs: 0, segmentBytes: pageSizeBytes, compaction: false as const }
    const store = await openOn(many, { ...options, prefix, persistent: true })
    const content = randomPages(40)
    const { handles } = await store.backupPages([content])
    await store.close()
    const again = await openOn(many, { ...options, prefix, persistent: true })
    expect((await read(again, handles)).equals(content)).toBe(true)
    await again.close()
    const report = await S3Backup.sweepOrphans({
      client: many.client(),
      bucket: many.bucket,
      prefix,
      persistent: true,
    })
    expect(report.objects).toBeGreaterThan(40)
    expect(await leftUnder(prefix, many)).toEqual([])
  })
})

describe('persistent stores', () => {
  it('come back with handles, drops and compactions after an orderly close', async () => {
    const prefix = target.prefix()
    const options = { prefix, persistent: true, compaction: { maxAmplification: 1, bytesPerSecond: 1e9 } }
    const content = randomPages(200)
    let handles: readonly HandleRun[] = []
    let kept = Array.from({ length: 200 }, (_, page) => page)
    const first = await open(options)
    expect(first.capabilities.persistent).toBe(true)
    handles = (await first.backupPages([content])).handles
    for (let life = 0; life < 3; life++) {
      const backup = life === 0 ? first : await open(options)
      expect(countOf(backup.liveHandles())).toBe(kept.length)
      const expected = kept.map((page) => content.subarray(page * pageSizeBytes, (page + 1) * pageSizeBytes))
      expect((await read(backup, pick(handles, kept))).equals(Buffer.concat(expected))).toBe(true)
      const gone = kept.filter((page) => (page + life) % 4 === 0)
      await backup.drop(pick(handles, gone))
      kept = kept.filter((page) => (page + life) % 4 !== 0)
      await new Promise((resolve) => setTimeout(resolve, 100))
      await backup.close()
      expect(backup.stats().leakedPages).toBe(0)
    }
    const last = await open(options)
    expect(await last.retainOnly(pick(handles, kept.slice(0, 3)))).toBe(kept.length - 3)
    expect(last.stats().livePages).toBe(3)
    await last.close()
  })

  it('send nothing any more once they could not be closed', async () => {
    const backup = await open({ persistent: true, compaction: false, retryForMs: 50, retryBaseMs: 1 })
    await target.server!.faults.always('DeleteObjects', faults.refused(403, 'AccessDenied'))
    await target.server!.faults.always('DeleteObject', faults.refused(403, 'AccessDenied'))
    const { handles } = await backup.backupPages([randomPages(16)])
    await backup.drop(handles)
    await until('something waits to be deleted', () => backup.stats().deletionFailures > 0)
    await target.server!.faults.always('PutObject', faults.refused(403, 'AccessDenied'))
    await expect(backup.close()).rejects.toThrow('EACCES')
    await target.server!.clearLog()
    await new Promise((resolve) => setTimeout(resolve, 300))
    expect(await target.server!.log()).toEqual([])
  })

  it('leave one version of the head, however often its old ones are not deleted at once', async () => {
    const prefix = target.prefix()
    const backup = await open({ prefix, persistent: true, retryBaseMs: 1 })
    await target.server!.faults.always('DeleteObjects', faults.deleteErrors('InternalError', '/heads/'), {
      times: 6,
    })
    await backup.close()
    const heads = (await target.list(prefix)).filter(({ key }) => key.includes('/heads/'))
    expect(heads.length).toBe(1)
  })

  it('a drop that a crash made forgotten never shows another page, also when the rest was compacted', async () => {
    const prefix = target.prefix()
    const options = { prefix, persistent: true, leaseMs: 300, ownerWaitMs: 20_000 }
    const eager = { maxAmplification: 1, bytesPerSecond: 1e9 }
    const content = randomPages(64)
    const first = await open({ ...options, compaction: eager })
    const { handles } = await first.backupPages([content])
    await first.close()
    const pages = Array.from({ length: 64 }, (_, page) => page)
    // The manifest that this owner writes at opening knows all pages as live.
    const owner = await dyingOwner({ ...options, compaction: eager })
    const gone = pages.filter((page) => page % 4 !== 1)
    await owner.backup.drop(pick(handles, gone))
    await until('it is compacted', () => owner.backup.stats().compactions > 0)
    await owner.die()
    const next = await open({ ...options, compaction: false })
    const live = new Set(
      pick(next.liveHandles(), Array(countOf(next.liveHandles())).keys()).map(({ first }) => first),
    )
    expect(next.stats().livePages).toBe(live.size)
    let alive = 0
    for (const page of pages) {
      const [run] = pick(handles, [page])
      if (!live.has(run.first)) {
        expect(page % 4, `page ${page}`).not.toBe(1)
        continue
      }
      alive++
      const expected = content.subarray(page * pageSizeBytes, (page + 1) * pageSizeBytes)
      expect((await read(next, [run])).equals(expected), `page ${page}`).toBe(true)
    }
    expect(alive).toBeGreaterThanOrEqual(16)
    await next.close()
  })

  it('say EINVAL for another page size, and come back whole when their manifests are damaged', async () => {
    const prefix = target.prefix()
    const backup = await open({ prefix, persistent: true })
    const content = randomPages(3)
    const { handles } = await backup.backupPages([content])
    await backup.close()
    const other = open({ prefix, persistent: true, pageSizeBytes: 8192, segmentBytes: 64 * 8192 })
    await expect(other).rejects.toMatchObject({ code: 'EINVAL' })
    await target.server!.faults.always('GetObject', faults.flipped(9), { keyIncludes: '/m-' })
    const client = target.client({ responseChecksumValidation: 'WHEN_REQUIRED' })
    const again = await open({ client, prefix, persistent: true })
    expect(again.stats().backgroundError).toMatchObject({ code: 'EBADMSG' })
    await target.server!.faults.clear()
    expect((await read(again, handles)).equals(content)).toBe(true)
    await target.server!.faults.always('GetObject', faults.flipped(), { keyIncludes: segment })
    const memory = Buffer.alloc(3 * pageSizeBytes)
    const result = await again.copyPages(again.liveHandles(), [memory])
    expect(result).toMatchObject({ error: { code: 'EBADMSG' } })
    await target.server!.faults.clear()
    await again.close()
    const last = await open({ prefix, persistent: true })
    expect(await last.copyPages(last.liveHandles(), [memory])).toEqual({ copied: 3 })
    await last.close()
  })

  it('write a manifest now and then, so that attaching reads few footers', async () => {
    const prefix = target.prefix()
    const owner = await dyingOwner({ prefix, persistent: true, leaseMs: 300 })
    const content = randomPages(16 * 100)
    const { handles } = await owner.backup.backupPages([content])
    await owner.die()
    await target.server!.clearLog()
    const next = await open({ prefix, persistent: true, ownerWaitMs: 20_000 })
    const footers = (await target.server!.log('GetObject')).filter(({ key }) => key?.includes(segment))
    expect(footers.length).toBeLessThan(50)
    expect((await read(next, handles)).equals(content)).toBe(true)
    await next.close()
  })
})
