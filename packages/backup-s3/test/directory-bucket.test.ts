/** Directory buckets of S3 Express: sessions sign instead of the client's credentials, and listings are of whole folders. */
import { pageHttpHandler, S3Backup } from '@spillway/backup-s3'
import { type S3Target, s3Target } from '@spillway/test-s3-server'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { MapService } from './harness/map-client.ts'
import { failure } from './harness/object-map.ts'
import { openOn, pick, randomPages, read } from './stores.ts'

let target: S3Target
beforeAll(async () => {
  target = await s3Target({ embedded: true, buckets: ['spill--use1-az4--x-s3'] })
})
afterAll(() => target.close())

describe('a directory bucket', () => {
  it.each([false, true])('keeps pages and leaves nothing behind (persistent: %s)', async (persistent) => {
    const client = target.client({ requestHandler: pageHttpHandler() })
    const options = { client, persistent, prefix: target.prefix(), mergeGapBytes: 0, hedgeShare: 0 }
    const content = randomPages(40)
    const first = await openOn(target, options)
    const { handles } = await first.backupPages([content])
    let backup = first
    if (persistent) {
      await first.close()
      backup = await openOn(target, options)
    }
    await target.server!.clearLog()
    for (let page = 0; page < 10; page++) {
      const [one] = pick(handles, [page])
      expect((await read(backup, [one])).equals(content.subarray(page * 4096, (page + 1) * 4096))).toBe(true)
    }
    expect(backup.stats().pageRequests).toMatchObject({ way: 'direct', direct: 9, throughSdk: 1 })
    const gets = (await target.server!.log('GetObject')).filter(({ key }) => key?.includes('/s-'))
    // Of a store that was attached to, the checksums of the segment are read first.
    expect(gets).toHaveLength(persistent ? 11 : 10)
    for (const { headers } of gets) expect(headers['x-amz-s3session-token']).toMatch(/^[0-9a-f]{32}$/)
    await backup.sweepOrphans()
    await backup.drop(handles)
    await backup.close()
    const left = (await target.list(options.prefix)).map(({ key }) => key)
    expect(left.filter((key) => key.includes('/s-'))).toEqual([])
    if (!persistent) expect(left).toEqual([])
  })

  it('lists whole folders also after a late renewal, and tells an owner that was swept from one that was not', async () => {
    const service = new MapService()
    let lists = 0
    service.onRequest = (verb, { Prefix }) => {
      if (verb !== 'ListObjectsV2') return
      lists++
      if (!Prefix?.endsWith('/')) throw failure('InvalidRequest', 400)
    }
    const place = { client: service.client(), bucket: 'spill--use1-az4--x-s3', prefix: 'pages/' }
    const backup = await S3Backup.open({ ...place, leaseMs: 30_000, lingerMs: 0 })
    // The machine slept: its lease has run out by the service's clock.
    service.aheadMs = 60_000
    const before = lists
    const { handles, error } = await backup.backupPages([randomPages(2)])
    expect([error, handles[0]?.count]).toEqual([undefined, 2])
    expect(lists).toBeGreaterThan(before)
    const witness = [...service.objects.keys].find((key) => /\/m-0+$/.test(key))
    service.objects.perform('DeleteObjectCommand', { Key: witness! })
    service.aheadMs = 120_000
    const { error: lost } = await backup.backupPages([randomPages(2)])
    expect(lost).toMatchObject({ code: 'EBADF' })
    await backup.close().catch(() => {})
  })
})
