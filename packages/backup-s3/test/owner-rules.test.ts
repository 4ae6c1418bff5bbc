/** Rules of owners that no fault is needed for: what large stores cost, what is left alone, and what a report says. */
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { S3Backup, type S3BackupOptions } from '../src/index.ts'
import { KeySpace } from '../src/keys.ts'
import type { Settings } from '../src/options.ts'
import { decodeHead, encodeHead, type Head } from '../src/ownership/head.ts'
import { encodeSummed } from '../src/ownership/summed-json.ts'
import { RetryPolicy } from '../src/service/retry.ts'
import { MapService } from './harness/map-client.ts'
import { type CommandInput, failure } from './harness/object-map.ts'
import { countOf, pageSizeBytes, pick, randomPages, read } from './stores.ts'

let service: MapService
let opened: S3Backup[]
beforeEach(() => {
  service = new MapService()
  opened = []
})
afterEach(async () => {
  for (const backup of opened) await backup.close().catch(() => {})
})

const prefix = 'pages/'
const keys = new KeySpace(prefix)

async function open(options: Partial<S3BackupOptions> = {}): Promise<S3Backup> {
  const common = { client: service.client(), bucket: 'bucket', prefix, segmentBytes: 4 * pageSizeBytes }
  const backup = await S3Backup.open({ ...common, deleteDelayMs: 0, lingerMs: 0, retryBaseMs: 1, ...options })
  opened.push(backup)
  return backup
}

/** The newest head. */
function head(): Head {
  const newest = headKeys().at(-1)!
  return decodeHead(service.objects.get(newest)!.body, newest)
}

const headKeys = () => [...service.objects.keys].filter((key) => keys.headVersion(key) !== undefined).sort()
const namedManifests = () =>
  [head().manifest, head().parent].filter((name) => name !== null).map((name) => `${prefix}${name}`)
const manifestKeys = () => [...service.objects.keys].filter((key) => key.includes('/m-')).sort()

/** The connection breaks. */
const broken = () => Object.assign(new Error('socket hang up'), { code: 'ECONNRESET' })

async function until(what: string, condition: () => boolean): Promise<void> {
  for (const end = performance.now() + 20_000; !condition(); ) {
    if (performance.now() > end) throw new Error(`never: ${what}`)
    await new Promise((resolve) => setTimeout(resolve, 2))
  }
}

/** A scratch epoch whose owner is gone; `objects` segments of it. */
function orphan(name: string, objects: number): string {
  const epoch = `scratch-${name}`
  const lease = { format: 2, epoch, name: 's3', leaseMs: 1000, owner: 'gone' }
  service.objects.set(keys.lease(epoch), encodeSummed(lease))
  const body = Buffer.alloc(1)
  for (let number = 1; number <= objects; number++) service.objects.set(keys.segment(epoch, number), body)
  return epoch
}

describe('a sweep', () => {
  it('takes 150,000 leftovers of one owner, a thousand with each request', async () => {
    const epoch = orphan('aa', 150_000)
    service.aheadMs = 10_000
    const sweeper = await open()
    const before = service.counts.get('DeleteObjects') ?? 0
    const report = await sweeper.sweepOrphans()
    expect(report).toMatchObject({ epochs: [epoch], failures: [] })
    expect(report.objects).toBe(150_001)
    // The last two take the lease, and the fence.
    expect(service.counts.get('DeleteObjects')! - before).toBe(152)
  })

  it('reports what it could not remove, leaves no fence there, and sweeps the others', async () => {
    const bad = orphan('aa', 3)
    const good = orphan('bb', 3)
    service.aheadMs = 10_000
    service.onRequest = (verb, { Delete, Key }) => {
      const all = [Key, ...(Delete?.Objects.map((object) => object.Key) ?? [])]
      if (verb.startsWith('Delete') && all.includes(keys.segment(bad, 2))) throw failure('AccessDenied', 403)
    }
    const sweeper = await open({ retryForMs: 50 })
    for (let round = 0; round < 3; round++) {
      const report = await sweeper.sweepOrphans()
      expect(report.epochs).toEqual(round === 0 ? [good] : [])
      expect(report.failures).toMatchObject([{ epoch: bad, error: { code: 'EACCES' } }])
      expect([...service.objects.keys].filter((key) => key.includes('.fence-'))).toEqual([])
    }
    service.onRequest = () => {}
    expect((await sweeper.sweepOrphans()).epochs).toEqual([bad])
  })

  it('leaves leases alone that it cannot read, and reports nothing about them', async () => {
    const epoch = orphan('aa', 2)
    service.objects.set(keys.lease(epoch), encodeSummed({ format: 3, leaseMs: 1000 }))
    service.aheadMs = 10_000
    const sweeper = await open()
    expect(await sweeper.sweepOrphans()).toEqual({ epochs: [], objects: 0, bytes: 0, failures: [] })
    expect(service.objects.get(keys.segment(epoch, 1))).toBeDefined()
  })

  it('leaves a store alone whose lease has a wrong digit', async () => {
    const epoch = orphan('aa', 2)
    const { body } = service.objects.get(keys.lease(epoch))!
    service.objects.set(
      keys.lease(epoch),
      Buffer.from(String(body).replace('"leaseMs":1000', '"leaseMs":1004')),
    )
    service.aheadMs = 10_000
    const sweeper = await open()
    expect(await sweeper.sweepOrphans()).toEqual({ epochs: [], objects: 0, bytes: 0, failures: [] })
    expect(service.objects.get(keys.segment(epoch, 1))).toBeDefined()
  })
})

describe('what a persistent store still has to delete', () => {
  it('counts what the manifest leaves out that is being written', async () => {
    const store = await open({ persistent: true, compaction: false })
    const { handles } = await store.backupPages([randomPages(4)])
    const manifests = Promise.withResolvers<void>()
    const begun = Promise.withResolvers<void>()
    service.onRequest = async (verb, { Key }) => {
      if (verb !== 'PutObject' || !Key!.includes('/m-')) return
      begun.resolve()
      await manifests.promise
    }
    await store.drop(handles)
    await begun.promise
    const { deletionsPending, mediumBytes } = store.stats()
    expect(deletionsPending).toBe(1)
    expect(mediumBytes).toBeGreaterThan(4 * pageSizeBytes)
    manifests.resolve()
    await until('all is gone', () => store.stats().deletionsPending === 0)
  })
})

it('counts nothing to delete any more once the store is another’s', async () => {
  const store = await open({ persistent: true, leaseMs: 1000, deleteDelayMs: 100_000 })
  const { handles } = await store.backupPages([randomPages(8)])
  await store.drop([{ first: handles[0]!.first, count: 4 }])
  expect(store.stats().deletionsPending).toBe(1)
  const newest = head()
  service.objects.set(keys.head(99), encodeHead({ ...newest, nonce: 'another', epoch: newest.epoch + 1 }))
  const code = async () =>
    ((await store.backupPages([randomPages(1)])).error as { code?: string } | undefined)?.code
  while ((await code()) !== 'EBADF') await new Promise((resolve) => setTimeout(resolve, 20))
  expect(store.stats().deletionsPending).toBe(0)
})

describe('a scratch store', () => {
  it('is not opened when that took longer than its lease: a sweep may be under way', async () => {
    let isHeld = false
    service.onRequest = async (verb, { Key }) => {
      if (verb !== 'PutObject' || !Key!.endsWith('/m-0000000000') || isHeld) return
      isHeld = true
      service.aheadMs += 2000
      await new Promise((resolve) => setTimeout(resolve, 1))
    }
    await expect(open({ leaseMs: 1000 })).rejects.toMatchObject({ code: 'ETIMEDOUT', retryable: true })
    expect(isHeld).toBe(true)
    expect([...service.objects.keys]).toEqual([])
  })
})

it.each(['null', '7', '"head"', '[]'])('takes a head that says %s for damaged: EBADMSG', async (text) => {
  const store = await open({ persistent: true })
  await store.close()
  service.objects.set(headKeys().at(-1)!, Buffer.from(text))
  await expect(open({ persistent: true })).rejects.toMatchObject({ code: 'EBADMSG' })
})

describe('a sweep of persistent stores', () => {
  const sweep = (options: Partial<S3BackupOptions> = {}) =>
    S3Backup.sweepOrphans({
      client: service.client(),
      bucket: 'bucket',
      prefix,
      persistent: true,
      retryForMs: 30,
      retryBaseMs: 1,
      ...options,
    })

  it('writes nothing where the store is closed and empty', async () => {
    const store = await open({ persistent: true })
    await store.backupPages([randomPages(5)])
    await store.close()
    expect((await sweep()).epochs).toEqual(['store'])
    const before = headKeys()
    const requests: string[] = []
    service.onRequest = (verb, { Key }) => {
      if (verb === 'PutObject') requests.push(Key!)
    }
    expect(await sweep()).toMatchObject({ epochs: [], objects: 0, failures: [] })
    expect(headKeys()).toEqual(before)
    expect(requests.filter((key) => !key.includes('scratch-'))).toEqual([])
  })

  it('says why it failed, and not that the store could not be given back afterwards either', async () => {
    await (await open({ persistent: true })).close()
    service.onRequest = (verb, { Prefix, Key, Body }) => {
      if (verb === 'ListObjectsV2' && Prefix === keys.storesPrefix) throw failure('AccessDenied', 403)
      const isHead = Key !== undefined && keys.headVersion(Key) !== undefined
      if (verb === 'PutObject' && isHead && String(Body).includes('closed')) throw broken()
    }
    expect((await sweep()).failures).toMatchObject([{ epoch: 'store', error: { code: 'EACCES' } }])
  })

  it('rejects with what ended it, and not with what its own close says then', async () => {
    service.onRequest = (verb, { Prefix }) => {
      if (verb === 'ListObjectsV2' && Prefix === keys.leasesPrefix) throw failure('AccessDenied', 403)
      if (verb === 'DeleteObject' && headKeys().length === 0 && isSweeping) throw broken()
      if (verb === 'ListObjectsV2') isSweeping = true
    }
    let isSweeping = false
    await expect(sweep()).rejects.toMatchObject({ code: 'EACCES' })
  })

  it('that is not asked for lists nothing of the store', async () => {
    const store = await open({ persistent: true })
    await store.backupPages([randomPages(5)])
    await store.close()
    const listed: string[] = []
    service.onRequest = (verb, { Prefix }) => {
      if (verb === 'ListObjectsV2') listed.push(Prefix!)
    }
    await sweep({ persistent: false })
    expect(listed.filter((prefixed) => keys.storesPrefix.startsWith(prefixed))).toEqual([])
  })
})

describe('a manifest of which it is not known whether the head names it', () => {
  it.each([true, false])('is kept until that is known (it does: %s)', async (isNamed) => {
    const content = randomPages(40)
    let isOut = false
    const wrong: string[] = []
    service.onRequest = (verb, input: CommandInput) => {
      const deleted =
        input.Delete?.Objects.map(({ Key }) => Key) ?? (verb === 'DeleteObject' ? [input.Key!] : [])
      // Whatever goes, it is nothing that the next owner would look for.
      if (headKeys().length > 0) wrong.push(...namedManifests().filter((name) => deleted.includes(name)))
      if (!isOut || !(input.Key ?? input.Prefix)?.startsWith(keys.headsPrefix)) return
      if (verb === 'PutObject' && isNamed && service.objects.get(input.Key!) === undefined)
        service.objects.perform('PutObjectCommand', input)
      throw broken()
    }
    const backup = await open({ persistent: true, retryForMs: 30, compaction: false, leaseMs: 600_000 })
    const { handles } = await backup.backupPages([content])
    await until('the manifest of opening counts', () => head().manifest !== null)
    const dropped = keys.segment(backup.stats().epoch, Math.floor(handles[0]!.first / 2 ** 21))
    isOut = true
    await backup.drop(pick(handles, [0, 1, 2, 3]))
    await until('the manifest after it was not published', () => backup.stats().backgroundError !== undefined)
    const [first, second] = manifestKeys()
    expect(namedManifests()[0]).toBe(isNamed ? second : first)
    expect(service.objects.get(dropped)).toBeDefined()
    // Whoever takes the store over now finds all that was stored.
    for (const name of namedManifests()) expect(service.objects.get(name)).toBeDefined()
    await new Promise((resolve) => setTimeout(resolve, 100))
    isOut = false
    await until('another manifest counts', () => ![first, second].includes(namedManifests()[0]))
    await until('what was dropped is gone', () => service.objects.get(dropped) === undefined)
    expect(namedManifests()).not.toContain(second)
    await backup.close()
    expect(manifestKeys()).toEqual(namedManifests().sort())
    expect(wrong).toEqual([])
    const next = await open({ persistent: true })
    expect(
      (await read(next, pick(handles, [4, 39]))).equals(
        Buffer.concat([
          content.subarray(4 * pageSizeBytes, 5 * pageSizeBytes),
          content.subarray(39 * pageSizeBytes),
        ]),
      ),
    ).toBe(true)
  })
})

describe('an open that fails', () => {
  it.each([true, false])('at any request leaves nothing behind (persistent: %s)', async (persistent) => {
    for (let at = 1; ; at++) {
      service = new MapService()
      if (persistent) await (await open({ persistent })).close()
      let requests = 0
      service.onRequest = () => {
        if (++requests === at) throw failure('AccessDenied', 403)
      }
      const backup = await open({ persistent }).catch((error) => {
        expect(error, `request ${at}`).toMatchObject({ code: 'EACCES' })
      })
      service.onRequest = () => {}
      await backup?.close()
      // A manifest that the head does not name any more goes with the next opening.
      const isLeft = (key: string) => !persistent || !key.includes('/m-')
      const left = [...service.objects.keys].filter(isLeft)
      expect(left, `request ${at}`).toEqual(persistent ? [headKeys().at(-1)] : [])
      // Nobody waits for a lease.
      await (await open({ persistent })).close()
      const expected = persistent ? [headKeys().at(-1), ...namedManifests()].sort() : []
      expect([...service.objects.keys].sort(), `request ${at}`).toEqual(expected)
      if (requests < at) break
    }
  })
})

const newer = encodeHead({
  nonce: 'n',
  epoch: 1,
  state: 'closed',
  leaseMs: 1,
  owner: 'o',
  name: 's3',
  manifest: null,
  parent: null,
  nextNumber: 1,
  emptiedBelow: 0,
})

describe('a store of another version', () => {
  const older = [keys.segment('store-00000001', 7), keys.manifest('store-00000001', 1)]

  it('without a head is refused with ENOTSUP, and neither opening nor a sweep removes anything of it', async () => {
    for (const key of older) service.objects.set(key, Buffer.from('older'))
    await expect(open({ persistent: true })).rejects.toMatchObject({ code: 'ENOTSUP', retryable: false })
    const report = await S3Backup.sweepOrphans({
      client: service.client(),
      bucket: 'bucket',
      prefix,
      persistent: true,
    })
    expect(report.objects).toBe(0)
    expect([...service.objects.keys].sort()).toEqual([...older].sort())
  })

  it('with a head of a newer format is refused with ENOTSUP, and nothing of it is removed', async () => {
    service.objects.set(keys.head(1), Buffer.from(newer.toString().replace('"format":3', '"format":4')))
    for (const key of older) service.objects.set(key, Buffer.from('newer'))
    await expect(open({ persistent: true })).rejects.toMatchObject({ code: 'ENOTSUP', retryable: false })
    const sweeper = await open()
    const report = await sweeper.sweepOrphans({ persistent: true })
    expect(report).toMatchObject({
      epochs: [],
      objects: 0,
      failures: [{ epoch: 'store', error: { code: 'ENOTSUP' } }],
    })
    for (const key of [keys.head(1), ...older]) expect(service.objects.get(key)).toBeDefined()
  })
})

describe('a head of which one bit is wrong', () => {
  it('is no head, whichever bit it is, and the store is left alone', async () => {
    for (let bit = 0; bit < newer.length * 8; bit++) {
      const flipped = Buffer.from(newer)
      flipped[bit >> 3]! ^= 1 << (bit & 7)
      expect(() => decodeHead(flipped, 'head'), `bit ${bit}`).toThrow(/EBADMSG|ENOTSUP/)
    }
    const backup = await open({ persistent: true })
    await backup.backupPages([randomPages(8)])
    await backup.close()
    const [key] = [...service.objects.keys].filter((name) => name.startsWith(keys.headsPrefix))
    const body = Buffer.from(
      service.objects
        .get(key!)!
        .body.toString()
        .replace(/"emptiedBelow":\d/, '$&9'),
    )
    service.objects.set(key!, body)
    await expect(open({ persistent: true })).rejects.toMatchObject({ code: 'EBADMSG' })
    expect([...service.objects.keys].filter((name) => /\/s-\d+$/.test(name)).length).toBe(2)
  })
})

describe('a store that was swept', () => {
  it('keeps what is stored in it afterwards, also when that owner dies', async () => {
    const first = await open({ persistent: true })
    await first.backupPages([randomPages(4)])
    await first.close()
    const place = { client: service.client(), bucket: 'bucket', prefix }
    expect((await S3Backup.sweepOrphans({ ...place, persistent: true })).epochs).toEqual(['store'])
    let isDead = false
    service.onRequest = (_verb, { Key = '' }) => {
      if (isDead && Key.startsWith(keys.headsPrefix)) throw failure('AccessDenied', 403)
    }
    const dying = await open({ persistent: true, leaseMs: 1000 })
    const content = randomPages(8)
    const { handles } = await dying.backupPages([content])
    isDead = true
    await expect(dying.close()).rejects.toMatchObject({ code: 'EACCES' })
    isDead = false
    service.aheadMs = 10_000
    const next = await open({ persistent: true })
    expect((await read(next, handles)).equals(content)).toBe(true)
  })
})

describe('opening', () => {
  it('waits for a dead owner no longer because the clock of the service was set back after it died', async () => {
    service.aheadMs = 3_600_000
    let isDead = false
    service.onRequest = (verb, { Key = '' }) => {
      if (isDead && verb === 'PutObject' && Key.startsWith(keys.headsPrefix))
        throw failure('AccessDenied', 403)
    }
    const dying = await open({ persistent: true, leaseMs: 300 })
    const { handles } = await dying.backupPages([randomPages(4)])
    isDead = true
    await expect(dying.close()).rejects.toMatchObject({ code: 'EACCES' })
    isDead = false
    service.aheadMs = 0
    const next = await open({ persistent: true, ownerWaitMs: 30_000 })
    expect(countOf(next.liveHandles())).toBe(countOf(handles))
  })

  it.each([true, false])(
    'is ended by an abort while it gives back what it claimed: %j',
    async (persistent) => {
      const before = await open({ persistent })
      await before.close()
      const controller = new AbortController()
      let isFailing = false
      service.onRequest = (verb, { Key = '' }) => {
        if (isFailing) throw failure('InternalError', 500)
        if (verb !== (persistent ? 'GetObject' : 'PutObject') || !/\/m-\d+$/.test(Key)) return
        isFailing = true
        setTimeout(() => controller.abort(), 50)
        throw failure('AccessDenied', 403)
      }
      // Longer than the test may take.
      const opening = open({ persistent, signal: controller.signal, retryForMs: 600_000 })
      await expect(opening).rejects.toMatchObject({ code: 'EINTR' })
      service.onRequest = () => {}
    },
  )
})

describe('retainOnly', () => {
  it('keeps what is being stored when it is called, whichever segment of it is where', async () => {
    const backup = await open({ compaction: false, bufferBytes: 8 * pageSizeBytes })
    const first = (await backup.backupPages([randomPages(6)])).handles
    const content = randomPages(40)
    const storing = backup.backupPages([content])
    // Some segments are written by then, others are not begun.
    let calls = 0
    service.onRequest = (verb) => {
      if (verb === 'PutObject' && ++calls === 3) void backup.retainOnly(pick(first, [0, 5]))
    }
    const { handles, error } = await storing
    service.onRequest = () => {}
    expect([error, countOf(handles), calls >= 3]).toEqual([undefined, 40, true])
    expect((await read(backup, handles)).equals(content)).toBe(true)
    expect(backup.stats().livePages).toBe(42)
  })

  it('keeps what others stored into the same segment and have not heard of yet', async () => {
    const backup = await open({ segmentBytes: 16 * pageSizeBytes, lingerMs: 1 })
    const contents = Array.from({ length: 5 }, () => randomPages(2))
    const puts = service.counts.get('PutObject')!
    // The first to hear is the first to drop what it does not know.
    let dropped: Promise<number> | undefined
    const stored = await Promise.all(
      contents.map(async (content) => {
        const { handles } = await backup.backupPages([content])
        dropped ??= backup.retainOnly(handles)
        return handles
      }),
    )
    expect([await dropped, service.counts.get('PutObject')! - puts]).toEqual([0, 1])
    for (const [index, handles] of stored.entries())
      expect((await read(backup, handles)).equals(contents[index]!)).toBe(true)
    expect(await backup.retainOnly(stored[2]!)).toBe(8)
  })

  it('takes no notice of pages that a call which just ended has stored, and that are dropped already', async () => {
    const backup = await open()
    const { handles } = await backup.backupPages([randomPages(6)])
    await backup.drop(handles)
    expect(await backup.retainOnly([])).toBe(0)
    expect(backup.stats().livePages).toBe(0)
  })
})

describe('retries', () => {
  const settings = { retriesPerSecond: 2, retryForMs: 200, retryBaseMs: 1, retryMaxMs: 10 } as Settings

  it('that come too late take nothing from those that come after an outage', async () => {
    const policy = new RetryPolicy(settings)
    policy.wasReached = true
    const outage = async () => {
      throw Object.assign(new Error('503'), {
        code: 'EAGAIN',
        retryable: true,
        [Symbol.for('spillway.error')]: true,
      })
    }
    const failed = await Promise.allSettled(Array.from({ length: 200 }, () => policy.run({}, outage)))
    expect(failed.every(({ status }) => status === 'rejected')).toBe(true)
    await new Promise((resolve) => setTimeout(resolve, 1000))
    let attempts = 0
    const passing = async () => (++attempts < 2 ? outage() : 'done')
    expect(await policy.run({}, passing)).toBe('done')
  })
})

describe('a segment', () => {
  it('fits into one PUT with its footer, or is refused before any request', async () => {
    await expect(open({ segmentBytes: 5 * 2 ** 30 })).rejects.toThrow(RangeError)
    expect(service.requests).toBe(0)
  })
})

describe('waiting for a store', () => {
  it('costs a request a second at most, whatever the store holds', async () => {
    const owner = await open({ persistent: true, leaseMs: 60_000 })
    for (let number = 1; number <= 5000; number++)
      service.objects.set(keys.segment('store-00000001', number), Buffer.alloc(1))
    const startedAt = performance.now()
    const before = service.requests
    const waiting = open({ persistent: true, ownerWaitMs: 3000 })
    // It also says what to do about it.
    await expect(waiting).rejects.toMatchObject({
      code: 'EBUSY',
      message: expect.stringMatching(/ownerWaitMs \(3000\).*61000/),
    })
    const seconds = (performance.now() - startedAt) / 1000
    // The first look is a listing of heads, the head, and what opening tries: beside the store, five requests.
    expect(service.requests - before).toBeLessThanOrEqual(7 + Math.ceil(seconds))
    expect(owner.stats().epoch).toBe('store-00000001')
  })
})

describe('holding a store', () => {
  it('takes a PUT, a LIST and a delete for each renewal, whatever the store holds', async () => {
    const backup = await open({ persistent: true, leaseMs: 600 })
    // Of a thousand segments and more the list has two pages.
    for (let number = 1000; number <= 2500; number++)
      service.objects.set(keys.segment('store-00000001', number), Buffer.alloc(1))
    const { leaseRenewals } = backup.stats()
    service.counts.clear()
    while (backup.stats().leaseRenewals < leaseRenewals + 3)
      await new Promise((resolve) => setTimeout(resolve, 20))
    const renewals = backup.stats().leaseRenewals - leaseRenewals
    expect(service.counts.get('PutObject')).toBeGreaterThanOrEqual(renewals)
    expect(service.requests).toBeLessThanOrEqual(3 * (renewals + 1))
  })
})
