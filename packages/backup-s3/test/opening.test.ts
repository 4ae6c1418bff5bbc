/** What cannot work is said at `open`, with a code and the service's own words. */
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { CreateBucketCommand, S3Client } from '@aws-sdk/client-s3'
import { isSpillwayError, type SpillwayError } from '@spillway/core'
import { faults, rgwQuirks, type S3Target, s3Target } from '@spillway/test-s3-server'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { S3Backup, type S3BackupOptions } from '../src/index.ts'
import { openOn, pageSizeBytes, randomPages, read } from './stores.ts'

let target: S3Target
beforeEach(async () => {
  const deny = (operation: 'PutObject' | 'GetObject' | 'DeleteObject') => ({
    accessKeyId: `no-${operation}`,
    secretAccessKey: 'secret',
    deny: [operation],
  })
  target = await s3Target({
    embedded: true,
    reuseProcess: true,
    credentials: [
      { accessKeyId: 'main', secretAccessKey: 'main-secret' },
      deny('PutObject'),
      deny('GetObject'),
      deny('DeleteObject'),
    ],
  })
})
afterEach(() => target.close())

async function failure(options: Partial<S3BackupOptions>): Promise<SpillwayError> {
  const error = await openOn(target, { retryForMs: 300, ...options }).then(
    () => undefined,
    (reason: unknown) => reason,
  )
  if (!isSpillwayError(error)) throw new Error(`expected a SpillwayError, got ${String(error)}`)
  expect(error.backup).toBe('s3')
  return error
}

describe('open', () => {
  it('says ENOENT for a bucket that does not exist', async () => {
    const error = await failure({ bucket: 'no-such-bucket' })
    expect(error.code).toBe('ENOENT')
    expect(error.message).toContain('NoSuchBucket')
  })

  it('says EACCES for wrong credentials, with the service’s code', async () => {
    const wrong = target.client({ credentials: { accessKeyId: 'main', secretAccessKey: 'wrong' } })
    const unknown = target.client({ credentials: { accessKeyId: 'nobody', secretAccessKey: 'x' } })
    expect(await failure({ client: wrong })).toMatchObject({ code: 'EACCES' })
    expect((await failure({ client: wrong })).message).toContain('SignatureDoesNotMatch')
    expect((await failure({ client: unknown })).message).toContain('InvalidAccessKeyId')
  })

  it('says EACCES for each permission that is missing: to write, to read, to delete', async () => {
    for (const operation of ['PutObject', 'GetObject', 'DeleteObject']) {
      const credentials = { accessKeyId: `no-${operation}`, secretAccessKey: 'secret' }
      const error = await failure({ client: target.client({ credentials }) })
      expect(error.code, operation).toBe('EACCES')
      expect(error.message, operation).toContain('AccessDenied')
    }
  })

  it('says EACCES for credentials that have expired, and keeps the failure as cause', async () => {
    await target.server!.faults.always('any', faults.expiredToken)
    const error = await failure({})
    expect(error).toMatchObject({ code: 'EACCES', retryable: false })
    expect(error.message).toContain('expired')
    expect(error.cause).toMatchObject({ name: 'ExpiredToken' })
  })

  it('says EINVAL for a bucket in another region, and which one', async () => {
    await target.server!.faults.always('any', faults.wrongRegion('eu-north-1'))
    const error = await failure({})
    expect(error.code).toBe('EINVAL')
    expect(error.message).toContain('region')
    expect(error.message).toContain('eu-north-1')
  })

  it('sets the client’s clock by the service’s, and says EINVAL when that does not help', async () => {
    await target.server!.setClock(3_600_000)
    const backup = await openOn(target)
    await backup.close()
    await target.server!.faults.always('any', faults.requestTimeTooSkewed)
    const error = await failure({})
    expect(error.code).toBe('EINVAL')
    expect(error.message).toContain('clock')
  })

  it('says EINVAL for an endpoint that is not S3', async () => {
    for (const status of [200, 404]) {
      const site = createServer((request, response) => {
        request.resume()
        response.writeHead(status, { 'content-type': 'text/html' }).end('<html><p>It works!</p></html>')
      })
      await new Promise<void>((resolve) => site.listen(0, '127.0.0.1', resolve))
      const endpoint = `http://127.0.0.1:${(site.address() as AddressInfo).port}`
      const error = await failure({ client: target.client({ endpoint }) })
      expect(error.message).toMatch(status === 200 ? /does not answer like S3/ : /no such/)
      expect(error.code).toBe(status === 200 ? 'EINVAL' : 'ENOENT')
      site.closeAllConnections()
      site.close()
    }
  })

  it('says EIO, worth trying again, when nobody listens, and ETIMEDOUT when nobody answers', async () => {
    const closed = createServer()
    await new Promise<void>((resolve) => closed.listen(0, '127.0.0.1', resolve))
    const endpoint = `http://127.0.0.1:${(closed.address() as AddressInfo).port}`
    await new Promise((resolve) => closed.close(resolve))
    const refused = await failure({ client: target.client({ endpoint }) })
    expect(refused).toMatchObject({ code: 'EIO', retryable: true })
    expect(refused.message).toContain('ECONNREFUSED')
    await target.server!.faults.always('any', faults.hung)
    const hung = await failure({ firstByteTimeoutMs: 100 })
    expect(hung).toMatchObject({ code: 'ETIMEDOUT', retryable: true })
  })

  it('gives an endpoint that was never there up long before retryForMs, and says what to check', async () => {
    const closed = createServer()
    await new Promise<void>((resolve) => closed.listen(0, '127.0.0.1', resolve))
    const { port } = closed.address() as AddressInfo
    await new Promise((resolve) => closed.close(resolve))
    const client = target.client({ endpoint: `http://127.0.0.1:${port}` })
    const error = await failure({ client, retryForMs: 3_600_000 })
    expect(error).toMatchObject({ code: 'EIO', retryable: true, cause: { code: 'ECONNREFUSED' } })
    expect(error.message).toContain(`127.0.0.1:${port} cannot be reached (ECONNREFUSED): check the endpoint`)
  })

  it('ends with EINTR when its signal is aborted, at any request, and leaves nothing behind', async () => {
    for (const persistent of [false, true]) {
      let requests = 0
      for (let at = 0; ; at++) {
        requests = 0
        const controller = new AbortController()
        if (at === 0) controller.abort(new Error('enough'))
        const client = target.client()
        client.middlewareStack.add(
          (next) => (args) => {
            if (++requests === at) controller.abort(new Error('enough'))
            return next(args)
          },
          { step: 'initialize' },
        )
        const prefix = target.prefix()
        const call = openOn(target, { client, prefix, persistent, signal: controller.signal })
        const backup = await call.catch((error) => {
          expect(error, `request ${at}`).toMatchObject({
            code: 'EINTR',
            backup: 's3',
            cause: { message: 'enough' },
          })
        })
        if (at === 0) expect(requests).toBe(0)
        if (backup !== undefined) {
          expect(requests).toBe(at - 1)
          await backup.close()
          break
        }
        // The head of a persistent store stays: it knows which epochs and numbers were given, and that nobody has it.
        // It may name a manifest already.
        const left = (await target.list(prefix)).filter(({ key }) => !/\/heads\/|\/m-0000000001$/.test(key))
        expect(left, `request ${at}, persistent: ${persistent}`).toEqual([])
        if (persistent) await (await openOn(target, { prefix, persistent })).close()
      }
      expect(requests).toBeGreaterThan(4)
    }
  })

  it('ends with EINTR when its signal is aborted while the service hangs', async () => {
    await target.server!.faults.always('any', faults.hung)
    const signal = AbortSignal.timeout(100)
    expect(await failure({ signal, retryForMs: 3_600_000, firstByteTimeoutMs: 3_600_000 })).toMatchObject({
      code: 'EINTR',
    })
  })

  it('says ENOSYS where If-None-Match is ignored or refused, and does without when told to', async () => {
    for (const quirks of [{ ignoreConditionalPut: true }, { refuseConditionalPut: true }]) {
      await target.server!.setQuirks(quirks)
      expect((await failure({})).code).toBe('ENOSYS')
      const prefix = target.prefix()
      const backup = await openOn(target, { conditionalWrites: false, prefix })
      const content = randomPages(3)
      const { handles } = await backup.backupPages([content])
      expect((await read(backup, handles)).equals(content)).toBe(true)
      await backup.close()
      expect(await target.list(prefix)).toEqual([])
    }
    await expect(openOn(target, { conditionalWrites: false, persistent: true })).rejects.toThrow(TypeError)
  })

  it('leaves nothing behind when it fails', async () => {
    const prefix = target.prefix()
    const credentials = { accessKeyId: 'no-GetObject', secretAccessKey: 'secret' }
    expect((await failure({ prefix, client: target.client({ credentials }) })).code).toBe('EACCES')
    expect(await target.list(prefix)).toEqual([])
  })

  it('works with everything that Ceph does differently, and with services that want Content-MD5', async () => {
    await target.server!.setQuirks({ ...rgwQuirks, requireContentMd5: true })
    const prefix = target.prefix()
    const backup = await openOn(target, { prefix, deleteDelayMs: 0, segmentBytes: 8 * pageSizeBytes })
    const content = randomPages(30)
    const { handles } = await backup.backupPages([content])
    await target.server!.faults.once('GetObject', faults.cut(5000), { keyIncludes: '/s-' })
    expect((await read(backup, handles)).equals(content)).toBe(true)
    await backup.drop(handles)
    await backup.close()
    expect(await target.list(prefix)).toEqual([])
  })

  it('passes settings of objects through', async () => {
    const backup = await openOn(target, {
      objectSettings: { StorageClass: 'ONEZONE_IA', Tagging: 'kind=scratch', ServerSideEncryption: 'AES256' },
    })
    await backup.backupPages([randomPages(1)])
    const puts = await target.server!.log('PutObject')
    const segment = puts.find(({ key }) => key?.includes('/s-'))!
    expect(segment.headers).toMatchObject({
      'x-amz-storage-class': 'ONEZONE_IA',
      'x-amz-tagging': 'kind=scratch',
      'x-amz-server-side-encryption': 'AES256',
    })
    await backup.close()
  })
})

describe('bad options', () => {
  const good = () => ({ client: target.client(), bucket: 'test' })
  const cases: [string, Record<string, unknown>, typeof TypeError | typeof RangeError][] = [
    ['segmentBytes is 4095', { segmentBytes: 4095 }, RangeError],
    ['segmentBytes is 2048', { segmentBytes: 2048 }, RangeError],
    ['segmentBytes is 5368713216', { segmentBytes: 5 * 2 ** 30 + 4096 }, RangeError],
    ['pageSizeBytes is 5000', { pageSizeBytes: 5000 }, RangeError],
    ['bufferBytes is 4096', { bufferBytes: 4096 }, RangeError],
    ['capacityBytes is -1', { capacityBytes: -1 }, RangeError],
    ['retryForMs is -5', { retryForMs: -5 }, RangeError],
    ['restoresInFlight is 1.5', { restoresInFlight: 1.5 }, RangeError],
    ['hedgeShare is 2', { hedgeShare: 2 }, RangeError],
    ['maxRequestsPerSecond is 0', { maxRequestsPerSecond: 0 }, RangeError],
    ['leaseMs is 3', { leaseMs: 3 }, RangeError],
    ['leaseMs is Infinity', { leaseMs: Number.POSITIVE_INFINITY }, RangeError],
    ['budget.maxDollars is -1', { budget: { maxDollars: -1 } }, RangeError],
    ['prices.per1000Puts is NaN', { prices: { per1000Puts: Number.NaN } }, RangeError],
    ['compaction.maxAmplification is 0.5', { compaction: { maxAmplification: 0.5 } }, RangeError],
    ['no option "segmentSize"', { segmentSize: 1 }, TypeError],
    ['no option "maxDollar"', { budget: { maxDollar: 1 } }, TypeError],
    ['no option "Storage"', { objectSettings: { Storage: 'X' } }, TypeError],
    ['bucket is ""', { bucket: '' }, TypeError],
    ['client must be an S3Client', { client: {} }, TypeError],
    ['persistent is yes', { persistent: 'yes' }, TypeError],
    ['signal is never', { signal: 'never' }, TypeError],
    ['payloadSigning is none', { payloadSigning: 'none' }, TypeError],
  ]
  it('are refused before any request, by name and value', async () => {
    for (const [text, options, kind] of cases) {
      const call = S3Backup.open({ ...good(), ...options } as S3BackupOptions)
      await expect(call, text).rejects.toThrow(text)
      await expect(S3Backup.open({ ...good(), ...options } as S3BackupOptions)).rejects.toThrow(kind)
    }
    expect(await target.server!.log()).toEqual([])
  })

  it('a time for which no timer can count is as long as one can', async () => {
    const backup = await S3Backup.open({
      ...good(),
      prefix: target.prefix(),
      firstByteTimeoutMs: Number.POSITIVE_INFINITY,
      minUploadBytesPerSecond: 1,
    })
    const { error } = await backup.backupPages([randomPages(64)])
    expect(error).toBeUndefined()
    await backup.close()
  })

  it('a segment that the service finds too large is EFBIG, and no page is lost', async () => {
    await target.server!.faults.always('PutObject', faults.entityTooLarge, { keyIncludes: '/s-' })
    const backup = await openOn(target)
    const { handles, error } = await backup.backupPages([randomPages(2)])
    expect(handles).toEqual([])
    expect(error).toMatchObject({ code: 'EFBIG', retryable: false })
    await backup.close()
  })
})

describe('a bucket of its own', () => {
  it('needs no prefix', async () => {
    const client = new S3Client(target.clientConfig)
    await client.send(new CreateBucketCommand({ Bucket: 'own' }))
    const backup = await S3Backup.open({ client, bucket: 'own', prefix: '' })
    const content = randomPages(2)
    const { handles } = await backup.backupPages([content])
    expect((await read(backup, handles)).equals(content)).toBe(true)
    await backup.close()
    client.destroy()
  })
})
