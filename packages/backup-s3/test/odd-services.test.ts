/** Services that answer in ways that S3 itself does not, or seldom: what is found out at `open`, and what passes by. */
import { type EventEmitter, once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { S3ClientConfig } from '@aws-sdk/client-s3'
import { pageHttpHandler } from '@spillway/backup-s3'
import { faults, type S3Target, s3Target } from '@spillway/test-s3-server'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { openOn, pageSizeBytes, pick, randomPages, read } from './stores.ts'

let target: S3Target
const segment = '/s-'

beforeAll(async () => {
  target = await s3Target({ embedded: true, maxListKeys: 20 })
})
afterEach(async () => {
  await target.server!.faults.clear()
  await target.server!.setClock(0)
})
afterAll(() => target.close())

const log = async (operation?: 'PutObject' | 'GetObject' | 'DeleteObjects' | 'DeleteObject') => [
  ...(await target.server!.log(operation)),
]

describe('a listing', () => {
  it('that is cut without saying how it goes on is not believed: open fails with EIO, and nothing is deleted', async () => {
    const prefix = target.prefix()
    const options = { prefix, persistent: true, segmentBytes: pageSizeBytes, compaction: false } as const
    const first = await openOn(target, options)
    const content = randomPages(40)
    const { handles } = await first.backupPages([content])
    await first.close()
    await target.server!.faults.always('ListObjectsV2', faults.cutListing)
    await expect(openOn(target, { ...options, retryForMs: 100 })).rejects.toMatchObject({ code: 'EIO' })
    await target.server!.faults.clear()
    const second = await openOn(target, options)
    expect((await read(second, handles)).equals(content)).toBe(true)
    await second.close()
  })

  it('asks and deletes in the name of the requester and the expected owner, as every other request', async () => {
    await target.server!.clearLog()
    const objectSettings = { RequestPayer: 'requester', ExpectedBucketOwner: '111122223333' } as const
    const backup = await openOn(target, { objectSettings })
    const { handles } = await backup.backupPages([randomPages(4)])
    await read(backup, handles)
    await backup.drop(handles)
    await backup.sweepOrphans()
    await backup.close()
    for (const { operation, headers } of await log()) {
      expect([operation, headers['x-amz-request-payer']]).toEqual([operation, 'requester'])
      expect([operation, headers['x-amz-expected-bucket-owner']]).toEqual([operation, '111122223333'])
    }
  })
})

describe('deletions', () => {
  it.each([
    ['InvalidArgument', 400],
    ['MissingContentLength', 411],
    ['Unheard', 418],
    ['NotFound', 404],
    ['AccessDenied', 403],
  ])(
    'go one by one where the service refuses batches with %s, which open finds out',
    async (code, status) => {
      const prefix = target.prefix()
      await target.server!.faults.always('DeleteObjects', faults.refused(status, code))
      const backup = await openOn(target, { prefix, segmentBytes: pageSizeBytes, deleteDelayMs: 1 })
      await target.server!.clearLog()
      const { handles } = await backup.backupPages([randomPages(6)])
      await backup.drop(handles)
      await backup.close()
      expect(await target.list(prefix)).toEqual([])
      expect(await log('DeleteObjects')).toEqual([])
    },
  )

  it('go one by one where batches end with a 500 again and again', async () => {
    const prefix = target.prefix()
    const backup = await openOn(target, { prefix, segmentBytes: pageSizeBytes, deleteDelayMs: 1 })
    await target.server!.faults.always('DeleteObjects', faults.internalError)
    const { handles } = await backup.backupPages([randomPages(6)])
    await backup.drop(handles)
    await backup.close()
    expect(await target.list(prefix)).toEqual([])
  })

  it('that are refused in any form fail at open with EACCES', async () => {
    await target.server!.faults.always(['DeleteObjects', 'DeleteObject'], faults.accessDenied)
    await expect(openOn(target)).rejects.toMatchObject({ code: 'EACCES' })
  })
})

describe('open', () => {
  it('leaves nothing behind where a PUT is answered without an ETag', async () => {
    const prefix = target.prefix()
    await target.server!.faults.always('PutObject', faults.withHeaders({ etag: null }))
    await expect(openOn(target, { prefix })).rejects.toMatchObject({ code: 'EINVAL' })
    await target.server!.faults.clear()
    expect(await target.list(prefix)).toEqual([])
  })

  it('advises conditionalWrites: false where the service has none, and leaves nothing behind', async () => {
    const prefix = target.prefix()
    await target.server!.setQuirks({ refuseConditionalPut: true })
    const refused = openOn(target, { prefix })
    await expect(refused).rejects.toMatchObject({ code: 'ENOSYS' })
    await expect(refused).rejects.toThrow('conditionalWrites: false')
    expect(await target.list(prefix)).toEqual([])
    const backup = await openOn(target, { prefix, conditionalWrites: false })
    const content = randomPages(3)
    expect((await read(backup, (await backup.backupPages([content])).handles)).equals(content)).toBe(true)
    await backup.close()
    await target.server!.setQuirks({})
  })

  it('says that a bucket keeps versions', async () => {
    const warned = once(process as unknown as EventEmitter, 'warning')
    await target.server!.faults.always('PutObject', faults.withHeaders({ 'x-amz-version-id': 'v1' }))
    const backup = await openOn(target)
    const [warning] = (await warned) as [Error & { code?: string }]
    expect(warning).toMatchObject({ code: 'SPILLWAY_S3_VERSIONS' })
    expect(backup.stats().keepsVersions).toBe(true)
    await backup.close()
  })

  it('does not take an owner for dead where the service tells no times', async () => {
    const prefix = target.prefix()
    await target.server!.faults.always(
      ['GetObject', 'HeadObject'],
      faults.withHeaders({ 'last-modified': null }),
    )
    const owner = await openOn(target, { prefix })
    const content = randomPages(5)
    const { handles } = await owner.backupPages([content])
    const other = await openOn(target, { prefix })
    await other.sweepOrphans()
    await other.close()
    expect((await read(owner, handles)).equals(content)).toBe(true)
    await owner.close()
  })

  it.each([
    ['400 InvalidArgument', 400, 'InvalidArgument', 'EINVAL'],
    ['402 Unpaid', 402, 'Unpaid', 'EINVAL'],
    ['418', 418, '', 'EINVAL'],
  ])('gives %s a code and the key', async (_, status, code, expected) => {
    const prefix = target.prefix()
    await target.server!.faults.always('PutObject', faults.refused(status, code))
    const refused = openOn(target, { prefix })
    await expect(refused).rejects.toMatchObject({ code: expected, backup: 's3' })
    await expect(refused).rejects.toThrow(prefix)
  })

  it('names the host of the bucket that was not found, and path style', async () => {
    const client = target.client({ endpoint: 'http://s3.example.invalid', forcePathStyle: false })
    const refused = openOn(target, { client })
    await expect(refused).rejects.toMatchObject({ code: 'EIO' })
    await expect(refused).rejects.toThrow(`${target.bucket}.s3.example.invalid`)
    await expect(refused).rejects.toThrow('forcePathStyle')
  })

  it('says what is wrong where https meets a service that speaks http', async () => {
    const service = createServer()
    await new Promise<void>((resolve) => service.listen(0, '127.0.0.1', resolve))
    const endpoint = `https://127.0.0.1:${(service.address() as AddressInfo).port}`
    for (const config of [{}, { requestHandler: pageHttpHandler() }] as S3ClientConfig[]) {
      const refused = openOn(target, { client: target.client({ ...config, endpoint }) })
      await expect(refused).rejects.toMatchObject({ code: 'EINVAL', backup: 's3' })
    }
    service.close()
  })

  it.each(['a\u0000b/', 'line\n/', '\u0085/', 'half \ud800/', 'x'.repeat(901)])(
    'refuses the prefix %j',
    async (prefix) => {
      await expect(openOn(target, { prefix })).rejects.toThrow(RangeError)
    },
  )

  it('refuses times that no timer can wait for where one has to fire', async () => {
    for (const name of ['leaseMs', 'lingerMs', 'deleteDelayMs']) {
      await expect(openOn(target, { [name]: Number.POSITIVE_INFINITY })).rejects.toThrow(RangeError)
    }
  })
})

describe('failures that pass', () => {
  it.each([
    [408, ''],
    [425, ''],
    [409, ''],
    [502, ''],
  ])('a bare %i is tried again', async (status, code) => {
    const backup = await openOn(target, { retryBaseMs: 1 })
    await target.server!.faults.once('PutObject', faults.refused(status, code), { keyIncludes: segment })
    expect((await backup.backupPages([randomPages(2)])).error).toBeUndefined()
    await backup.close()
  })

  it('one look-up of credentials that fails is tried again, at open and later, whatever it says', async () => {
    let failure: Error | undefined = Object.assign(new Error('busy'), { name: 'CredentialsProviderError' })
    const credentials = async () => {
      const error = failure
      failure = undefined
      if (error !== undefined) throw error
      return { ...target.credentials, expiration: new Date(Date.now() + 50) } as never
    }
    const backup = await openOn(target, { client: target.client({ credentials }), retryBaseMs: 1 })
    for (const error of [new Error('connect ECONNREFUSED 169.254.169.254'), new TypeError('fetch failed')]) {
      failure = error
      expect((await backup.backupPages([randomPages(1)])).error).toBeUndefined()
      expect(failure).toBeUndefined()
    }
    await backup.close()
  })

  it('all requests under way go on when the clock jumps', async () => {
    const backup = await openOn(target, {
      segmentBytes: pageSizeBytes,
      retryBaseMs: 1,
      bufferBytes: 32 * pageSizeBytes,
    })
    const content = randomPages(12)
    await target.server!.setClock(3_600_000)
    const calls = Array.from({ length: 12 }, (_, page) =>
      backup.backupPages([content.subarray(page * pageSizeBytes, (page + 1) * pageSizeBytes)]),
    )
    for (const { error } of await Promise.all(calls)) expect(error).toBeUndefined()
    await backup.close()
  })

  it('a redirect to another region is followed where the client says so, and counted', async () => {
    const client = target.client({ followRegionRedirects: true })
    const backup = await openOn(target, { client })
    const before = backup.stats().costs.requests
    await target.server!.clearLog()
    await target.server!.faults.once('PutObject', faults.movedTo('us-east-1'), { keyIncludes: segment })
    expect((await backup.backupPages([randomPages(1)])).error).toBeUndefined()
    expect(backup.stats().retries).toBe(0)
    expect(backup.stats().costs.requests - before).toBe((await log()).length)
    await backup.close()
  })

  it('a 417 after Expect: 100-continue is sent again without', async () => {
    for (const config of [{}, { requestHandler: pageHttpHandler() }] as S3ClientConfig[]) {
      const backup = await openOn(target, { client: target.client(config), retryBaseMs: 1 })
      // The page handler asks for leave only after a refusal.
      await target.server!.faults.once('PutObject', faults.internalError, { keyIncludes: segment })
      await target.server!.faults.once('PutObject', faults.refused(417, ''), {
        keyIncludes: segment,
        from: 2,
      })
      await target.server!.clearLog()
      expect((await backup.backupPages([randomPages(1000)])).error).toBeUndefined()
      const puts = await log('PutObject')
      expect(puts.map(({ status }) => status)).toEqual([500, 417, 200])
      expect(puts.at(-1)!.headers['expect']).toBeUndefined()
      await backup.close()
    }
  })
})

for (const fast of [false, true]) {
  const client = () => target.client(fast ? { requestHandler: pageHttpHandler() } : {})
  describe(`restores with ${fast ? 'pageHttpHandler()' : 'the SDK handler'}`, () => {
    it('a body that trickles ends with ETIMEDOUT, and so does close()', async () => {
      const backup = await openOn(target, {
        client: client(),
        retryForMs: 300,
        bodyTimeoutMs: 200,
        retryBaseMs: 1,
      })
      const { handles } = await backup.backupPages([randomPages(100)])
      await target.server!.faults.always('GetObject', faults.trickling(2, 20), { keyIncludes: segment })
      const memory = Buffer.alloc(100 * pageSizeBytes)
      expect((await backup.copyPages(handles, [memory])).error).toMatchObject({ code: 'ETIMEDOUT' })
      await backup.close()
    })

    it('a body that trickles once is continued on another connection', async () => {
      const backup = await openOn(target, { client: client(), bodyTimeoutMs: 200, retryBaseMs: 1 })
      const content = randomPages(100)
      const { handles } = await backup.backupPages([content])
      await target.server!.faults.once('GetObject', faults.trickling(2, 20), { keyIncludes: segment })
      expect((await read(backup, handles)).equals(content)).toBe(true)
      expect(backup.stats().resumes).toBe(1)
      await backup.close()
    })

    it('a body that trickles is asked for again before it counts as silent', async () => {
      const backup = await openOn(target, {
        client: client(),
        segmentBytes: 128 * pageSizeBytes,
        hedgeShare: 1,
      })
      const content = randomPages(100)
      const { handles } = await backup.backupPages([content])
      for (let round = 0; round < 32; round++) await read(backup, handles)
      const { hedges, resumes } = backup.stats()
      await target.server!.faults.once('GetObject', faults.trickling(2, 20), { keyIncludes: segment })
      expect((await read(backup, handles)).equals(content)).toBe(true)
      expect(backup.stats()).toMatchObject({ hedges: hedges + 1, resumes, retries: 0 })
      await backup.close()
    })

    it('a body is continued where ETags are weak, or change from answer to answer', async () => {
      const backup = await openOn(target, { client: client(), retryBaseMs: 1 })
      const content = randomPages(200)
      const { handles } = await backup.backupPages([content])
      for (const etag of ['W/"weak"', '"another"']) {
        await target.server!.faults.once('GetObject', faults.cut(100_001), { keyIncludes: segment })
        await target.server!.faults.always('GetObject', faults.withHeaders({ etag }), {
          keyIncludes: segment,
        })
        expect((await read(backup, handles)).equals(content)).toBe(true)
        await target.server!.faults.clear()
      }
      await backup.close()
    })
  })
}

describe('the budget', () => {
  it('holds for what waits for its turn, side by side, and hedged', async () => {
    const options = {
      segmentBytes: pageSizeBytes,
      bufferBytes: 64 * pageSizeBytes,
      compaction: false,
    } as const
    const backup = await openOn(target, {
      ...options,
      maxRequestsPerSecond: 400,
      restoresInFlight: 64,
      hedgeShare: 1,
    })
    const { handles } = await backup.backupPages([randomPages(40)])
    await target.server!.clearLog()
    backup.setBudget({ maxRequests: backup.stats().costs.requests + 5 })
    const all = pick(
      handles,
      Array.from({ length: 40 }, (_, page) => page),
    )
    const results = await Promise.all(
      all.map((run) => backup.copyPages([run], [Buffer.alloc(pageSizeBytes)])),
    )
    expect(results.filter(({ error }) => error === undefined)).toHaveLength(5)
    expect(await log('GetObject')).toHaveLength(5)
    await target.server!.clearLog()
    backup.setBudget({ maxRequests: backup.stats().costs.requests + 5 })
    await Promise.all(Array.from({ length: 40 }, () => backup.backupPages([randomPages(1)])))
    expect(await log('PutObject')).toHaveLength(5)
    await backup.close()
  })

  it.each(['direct', 'sdk'] as const)(
    'counts the GET that goes out again on a new connection, and refuses it where there is no room (%s)',
    async (pageRequests) => {
      const client = target.client({ requestHandler: pageHttpHandler() })
      const backup = await openOn(target, { client, hedgeShare: 0, pageRequests })
      const { handles } = await backup.backupPages([randomPages(1)])
      await read(backup, handles)
      for (const room of [2, 1]) {
        await read(backup, handles)
        await target.server!.faults.once('GetObject', faults.dropped, { keyIncludes: segment })
        await target.server!.clearLog()
        const maxRequests = backup.stats().costs.requests + room
        backup.setBudget({ maxRequests })
        const { error } = await backup.copyPages(handles, [Buffer.alloc(pageSizeBytes)])
        expect([room, error === undefined]).toEqual([room, room === 2])
        expect(await log('GetObject')).toHaveLength(room)
        expect(backup.stats().costs.requests).toBe(maxRequests)
        backup.setBudget({})
      }
      await backup.close()
    },
  )

  it('counts the PUT that goes out again on a new connection, and refuses it where there is no room', async () => {
    const client = target.client({ requestHandler: pageHttpHandler() })
    const backup = await openOn(target, { client, lingerMs: 0 })
    const sent = () => {
      const { requests, housekeeping } = backup.stats().costs.verbs.put
      return requests - housekeeping
    }
    for (const room of [2, 1]) {
      await backup.backupPages([randomPages(1)])
      await target.server!.faults.once('PutObject', faults.dropped, { keyIncludes: segment })
      await target.server!.clearLog()
      const before = sent()
      backup.setBudget({ maxRequests: backup.stats().costs.requests + room })
      const { error } = await backup.backupPages([randomPages(1)])
      expect([room, (error as { code?: string } | undefined)?.code]).toEqual([
        room,
        room === 2 ? undefined : 'EDQUOT',
      ])
      expect((await log('PutObject')).filter(({ key }) => key?.includes(segment))).toHaveLength(room)
      expect(sent() - before).toBe(room)
      backup.setBudget({})
    }
    expect(backup.stats().retries).toBeLessThanOrEqual(1)
    await backup.close()
  })
})
