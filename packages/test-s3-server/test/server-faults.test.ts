/** Every fault of the embedded S3 server does what its name says, as the real SDK sees it. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  DeleteObjectsCommand,
  GetObjectCommand,
  HeadObjectCommand,
  ListObjectsV2Command,
  PutObjectCommand,
  type S3Client,
  type S3ServiceException,
} from '@aws-sdk/client-s3'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { type EmbeddedServer, faults, type S3Target, s3Target } from '../src/index.ts'

let target: S3Target
let server: EmbeddedServer
let client: S3Client
const Bucket = 'test'
const content = Buffer.from('0123456789'.repeat(1000))

beforeAll(async () => {
  target = await s3Target({ embedded: true, seed: 7 })
  server = target.server!
  client = target.client({ maxAttempts: 1 })
})
afterEach(async () => {
  await server.faults.clear()
  await server.clearLog()
})
afterAll(() => target.close())

const put = (Key: string, Body: Uint8Array | string = content, extra = {}) =>
  client.send(new PutObjectCommand({ Bucket, Key, Body, ...extra }))
const read = async (Key: string, extra = {}, abortSignal?: AbortSignal) => {
  const answer = await client.send(new GetObjectCommand({ Bucket, Key, ...extra }), {
    ...(abortSignal ? { abortSignal } : {}),
  })
  return Buffer.from(await answer.Body!.transformToByteArray())
}
const failure = async (work: Promise<unknown>): Promise<S3ServiceException> => {
  try {
    await work
  } catch (error) {
    return error as S3ServiceException
  }
  throw new Error('it should have failed')
}
const exists = async (Key: string) => {
  const found = await client.send(new HeadObjectCommand({ Bucket, Key })).catch(() => undefined)
  return found !== undefined
}

describe('faults', () => {
  it.each([
    ['internalError', faults.internalError, 500, 'InternalError'],
    ['slowDown', faults.slowDown, 503, 'SlowDown'],
    ['tooManyRequests', faults.tooManyRequests(1), 429, 'TooManyRequests'],
    ['quotaExceeded', faults.quotaExceeded, 403, 'QuotaExceeded'],
    ['accessDenied', faults.accessDenied, 403, 'AccessDenied'],
    ['expiredToken', faults.expiredToken, 400, 'ExpiredToken'],
    ['requestTimeTooSkewed', faults.requestTimeTooSkewed, 403, 'RequestTimeTooSkewed'],
    ['movedTo', faults.movedTo('eu-west-1'), 301, 'PermanentRedirect'],
    ['wrongRegion', faults.wrongRegion('eu-west-1'), 400, 'AuthorizationHeaderMalformed'],
    ['conditionalConflict', faults.conditionalConflict, 409, 'ConditionalRequestConflict'],
  ])('%s refuses once and nothing is done', async (name, fault, status, code) => {
    const rule = await server.faults.once('PutObject', fault, { keyIncludes: name })
    await put('other')
    const error = await failure(put(`refused-${name}`))
    expect(error.name).toBe(code)
    expect(error.$metadata.httpStatusCode).toBe(status)
    expect(await exists(`refused-${name}`)).toBe(false)
    await put(`refused-${name}`)
    expect(await server.faults.fired()).toEqual({ [rule]: 1 })
    const records = await server.log('PutObject')
    expect(records.map((record) => [record.status, record.code, ...record.faults])).toEqual([
      [200, undefined],
      [status, code, 'error'],
      [200, undefined],
    ])
  })

  it('counts from the request that was asked for', async () => {
    await server.faults.always('PutObject', faults.slowDown, { from: 3, times: 2 })
    const outcomes: boolean[] = []
    for (let call = 1; call <= 6; call++) outcomes.push(await put('counted').then(Boolean, () => false))
    expect(outcomes).toEqual([true, true, false, false, true, true])
  })

  it('befalls one user only', async () => {
    await server.setCredentials([
      { ...target.credentials },
      { accessKeyId: 'unlucky', secretAccessKey: 'secret' },
    ])
    const unlucky = target.client({
      maxAttempts: 1,
      credentials: { accessKeyId: 'unlucky', secretAccessKey: 'secret' },
    })
    await server.faults.always('any', faults.slowDown, { accessKeyId: 'unlucky' })
    await put('lucky')
    const error = await failure(unlucky.send(new PutObjectCommand({ Bucket, Key: 'a', Body: 'a' })))
    expect(error.name).toBe('SlowDown')
    expect((await server.log()).map(({ accessKeyId }) => accessKeyId)).toEqual(['test-access-key', 'unlucky'])
  })

  it('comes by chance as often as it was told to, the same for the same seed', async () => {
    const draw = async () => {
      await using own = await s3Target({ embedded: true, seed: 3 })
      const drawing = own.client({ maxAttempts: 1 })
      await own.server!.faults.always('any', faults.slowDown, { chance: 0.2 })
      const outcomes: boolean[] = []
      for (let call = 0; call < 200; call++)
        outcomes.push(
          await drawing.send(new ListObjectsV2Command({ Bucket })).then(
            () => true,
            () => false,
          ),
        )
      return outcomes
    }
    const first = await draw()
    const failed = first.filter((fine) => !fine).length
    expect(failed).toBeGreaterThan(20)
    expect(failed).toBeLessThan(60)
    expect(await draw()).toEqual(first)
  })

  it('delays, and another fault of the same request comes after the delay', async () => {
    await server.faults.always('any', faults.delayed(30, 10))
    await server.faults.once('PutObject', faults.slowDown)
    expect((await failure(put('delayed'))).name).toBe('SlowDown')
    await put('delayed')
    for (const record of await server.log()) expect(record.endedMs! - record.startedMs).toBeGreaterThan(29)
  })

  it('does what was delayed even when the client has gone', async () => {
    await server.faults.once('PutObject', faults.delayed(200))
    const sent = client.send(new PutObjectCommand({ Bucket, Key: 'late', Body: 'late' }), {
      abortSignal: AbortSignal.timeout(60),
    })
    expect((await failure(sent)).name).toMatch(/Abort|Timeout/)
    expect(await exists('late')).toBe(false)
    await expect.poll(() => exists('late'), { timeout: 10_000 }).toBe(true)
  })

  it('hangs, and is silent after it was done', async () => {
    await server.faults.once('PutObject', faults.hung)
    await server.faults.once('PutObject', faults.silentAfterDone, { from: 2 })
    for (const Key of ['hung', 'silent']) {
      const sent = client.send(new PutObjectCommand({ Bucket, Key, Body: 'a' }), {
        abortSignal: AbortSignal.timeout(200),
      })
      expect((await failure(sent)).name).toMatch(/Abort|Timeout/)
    }
    expect(await exists('hung')).toBe(false)
    expect(await exists('silent')).toBe(true)
  })

  it('drops the connection before and after', async () => {
    await server.faults.once('PutObject', faults.dropped)
    await server.faults.once('PutObject', faults.lostAnswer, { from: 2 })
    for (const Key of ['dropped', 'lost'])
      expect(((await failure(put(Key))) as Error & { code?: string }).code).toBe('ECONNRESET')
    expect(await exists('dropped')).toBe(false)
    expect((await read('lost')).equals(content)).toBe(true)
    const again = await failure(put('lost', content, { IfNoneMatch: '*' }))
    expect(again.name).toBe('PreconditionFailed')
  })

  it('drops the connection of an upload that waits for 100 Continue', async () => {
    await server.faults.once('PutObject', faults.dropped)
    await failure(put('dropped-large', Buffer.alloc(3 * 1024 ** 2)))
    expect(await exists('dropped-large')).toBe(false)
  })

  it('cuts an answer half way, at a byte, in its head', async () => {
    await put('cut')
    await server.faults.once('GetObject', faults.cut())
    await failure(read('cut'))
    await server.faults.once('GetObject', faults.cut(1))
    const answer = await client.send(new GetObjectCommand({ Bucket, Key: 'cut', Range: 'bytes=10-19' }))
    let receivedBytes = 0
    await failure(
      (async () => {
        for await (const piece of answer.Body as AsyncIterable<Uint8Array>) receivedBytes += piece.length
      })(),
    )
    expect(receivedBytes).toBe(1)
    expect((await server.log('GetObject')).map((record) => record.bytesOut)).toEqual([5000, 1])
    await server.faults.once('GetObject', faults.cut(0))
    await failure(read('cut'))
    await server.faults.once('PutObject', faults.cut())
    await failure(put('cut-in-head'))
    expect(await exists('cut-in-head')).toBe(true)
  })

  it('stalls in the body for a while and for ever', async () => {
    await put('stalled')
    await server.faults.once('GetObject', faults.stalled({ forMs: 100, afterBytes: 10 }))
    expect((await read('stalled')).equals(content)).toBe(true)
    const [record] = await server.log('GetObject')
    expect(record!.endedMs! - record!.startedMs).toBeGreaterThan(95)
    await server.faults.once('GetObject', faults.stalled())
    const answer = await client.send(new GetObjectCommand({ Bucket, Key: 'stalled' }))
    const body = answer.Body as AsyncIterable<Uint8Array> & { destroy(): void }
    let receivedBytes = 0
    const timer = setTimeout(() => body.destroy(), 200)
    await (async () => {
      for await (const piece of body) receivedBytes += piece.length
    })().catch(() => {})
    clearTimeout(timer)
    expect(receivedBytes).toBe(5000)
  })

  it('flips one bit: on the way, and in the store', async () => {
    await put('flipped')
    await server.faults.once('GetObject', faults.flipped(3))
    const wrong = await read('flipped', { Range: 'bytes=0-9' })
    expect(wrong.toString()).toBe('0122456789')
    expect((await read('flipped')).equals(content)).toBe(true)
    await server.faults.once('PutObject', faults.flippedInStore(3))
    await put('flipped')
    expect((await read('flipped', { Range: 'bytes=0-9' })).toString()).toBe('0122456789')
    expect((await failure(read('flipped', { ChecksumMode: 'ENABLED' }))).message).toMatch(/[Cc]hecksum/)
  })

  it('answers short, or with the whole object instead of a range', async () => {
    await put('short')
    await server.faults.once('GetObject', faults.truncated(3))
    expect((await read('short', { Range: 'bytes=0-9' })).toString()).toBe('0123456')
    await server.faults.once('GetObject', faults.rangeIgnored)
    expect(await read('short', { Range: 'bytes=0-9' })).toHaveLength(content.length)
  })

  it('keeps some keys of a DeleteObjects and says so', async () => {
    await put('delete/keep-1')
    await put('delete/go')
    await server.faults.once('DeleteObjects', faults.deleteErrors('AccessDenied', 'keep'))
    const Objects = ['delete/keep-1', 'delete/go'].map((Key) => ({ Key }))
    const answer = await client.send(new DeleteObjectsCommand({ Bucket, Delete: { Objects, Quiet: true } }))
    expect(answer.Errors?.map(({ Key, Code }) => [Key, Code])).toEqual([['delete/keep-1', 'AccessDenied']])
    expect((await target.list('delete/')).map(({ key }) => key)).toEqual(['delete/keep-1'])
  })

  it('can be a web server that is no S3 service', async () => {
    await server.faults.always('any', faults.webPage())
    // The SDK takes any 200 for an answer, with nothing in it.
    const { Name, KeyCount } = await client.send(new ListObjectsV2Command({ Bucket }))
    expect([Name, KeyCount]).toEqual([undefined, undefined])
    await server.faults.clear()
    await server.faults.always('any', faults.webPage(404))
    const error = await failure(client.send(new ListObjectsV2Command({ Bucket })))
    expect(error.$metadata.httpStatusCode).toBe(404)
  })

  it('kills a process when its request comes, or when it has been done', async () => {
    const start = (Key: string): ChildProcess => {
      const program = `
        const { PutObjectCommand, S3Client } = await import('@aws-sdk/client-s3')
        process.once('message', async (config) => {
          await new S3Client(config).send(new PutObjectCommand({ Bucket: 'test', Key: '${Key}', Body: 'a' }))
        })
        process.send('ready')`
      return spawn(process.execPath, ['--input-type=module', '-e', program], {
        stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
        cwd: import.meta.dirname,
      })
    }
    for (const when of ['request', 'answer'] as const) {
      const child = start(`killed-${when}`)
      await once(child, 'message')
      await server.faults.once('PutObject', faults.killed(child.pid!, when), { keyIncludes: when })
      child.send(target.clientConfig)
      const [, signal] = await once(child, 'exit')
      expect(signal).toBe('SIGKILL')
      expect(await exists(`killed-${when}`)).toBe(when === 'answer')
    }
  })
})

describe('the request log', () => {
  it('tells each request with its range, bytes, status and connection', async () => {
    await put('logged')
    await read('logged', { Range: 'bytes=5-14' })
    const [write, ranged] = await server.log()
    expect(write).toMatchObject({
      serial: 1,
      operation: 'PutObject',
      method: 'PUT',
      key: 'logged',
      status: 200,
    })
    expect(write!.bytesIn).toBe(content.length)
    expect(ranged).toMatchObject({ operation: 'GetObject', range: 'bytes=5-14', status: 206, bytesOut: 10 })
    expect(ranged!.connection).toBe(write!.connection)
    const counters = await server.counters()
    expect(counters.operations.PutObject).toMatchObject({ requests: 1, bytesIn: content.length })
    expect(counters.operations.GetObject).toMatchObject({ requests: 1, bytesOut: 10, statuses: { 206: 1 } })
    expect(counters.underWay).toBe(0)
    expect(counters.cpuMs).toBeGreaterThan(0)
  })

  it('counts how many requests were under way at once', async () => {
    await server.faults.always('any', faults.delayed(300))
    await Promise.all(Array.from({ length: 5 }, () => read('logged')))
    expect((await server.counters()).mostUnderWay).toBe(5)
  })
})
