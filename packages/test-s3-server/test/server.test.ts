/** The embedded S3 server where it is stricter than other services, or differs from them on purpose. */
import { once } from 'node:events'
import net from 'node:net'
import { Readable } from 'node:stream'
import {
  CopyObjectCommand,
  CreateBucketCommand,
  DeleteBucketCommand,
  DeleteObjectCommand,
  DeleteObjectsCommand,
  GetObjectCommand,
  HeadBucketCommand,
  HeadObjectCommand,
  ListBucketsCommand,
  ListObjectsV2Command,
  PutObjectCommand,
  type S3Client,
  type S3ClientConfig,
  type S3ServiceException,
} from '@aws-sdk/client-s3'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { type EmbeddedServer, rgwQuirks, type S3Target, s3Target } from '../src/index.ts'

let target: S3Target
let server: EmbeddedServer
const Bucket = 'test'
const credentials = [
  { accessKeyId: 'main', secretAccessKey: 'main-secret/+=' },
  {
    accessKeyId: 'reader',
    secretAccessKey: 'r',
    deny: ['PutObject', 'DeleteObject', 'DeleteObjects'] as const,
  },
  { accessKeyId: 'guest', secretAccessKey: 'g', sessionToken: 'token' },
]

beforeAll(async () => {
  target = await s3Target({ embedded: true, credentials, maxObjectBytes: 4 * 1024 ** 2, maxListKeys: 100 })
  server = target.server!
})
afterEach(async () => {
  await server.setQuirks({})
  await server.setCredentials(credentials)
  await server.setClock(0)
})
afterAll(() => target.close())

const clientOf = (config: S3ClientConfig = {}) => target.client({ maxAttempts: 1, ...config })
const silent = { trace() {}, debug() {}, info() {}, warn() {}, error() {} }
const put = (client: S3Client, Key: string, Body: PutObjectCommand['input']['Body'], extra = {}) =>
  client.send(new PutObjectCommand({ Bucket, Key, Body, ...extra } as PutObjectCommand['input']))
const read = async (client: S3Client, Key: string, extra = {}) => {
  const answer = await client.send(new GetObjectCommand({ Bucket, Key, ...extra }))
  return { ...answer, text: await answer.Body!.transformToString() }
}
const failure = async (work: Promise<unknown>): Promise<S3ServiceException> => {
  try {
    await work
  } catch (error) {
    return error as S3ServiceException
  }
  throw new Error('it should have failed')
}
/** A client whose signed requests are changed before they are sent. */
const tampering = (change: (request: { headers: Record<string, string>; body: unknown }) => void) => {
  const client = clientOf()
  client.middlewareStack.add(
    (next) => (args) => {
      change(args.request as never)
      return next(args)
    },
    { step: 'finalizeRequest', priority: 'low' },
  )
  return client
}
/** A client that adds headers before it signs. */
const adding = (headers: Record<string, string>) => {
  const client = clientOf()
  client.middlewareStack.add(
    (next) => (args) => {
      Object.assign((args.request as { headers: object }).headers, headers)
      return next(args)
    },
    { step: 'build' },
  )
  return client
}

describe('signatures', () => {
  it('takes temporary credentials with their token only', async () => {
    const guest = { accessKeyId: 'guest', secretAccessKey: 'g' }
    await put(clientOf({ credentials: { ...guest, sessionToken: 'token' } }), 'guest', 'a')
    const other = clientOf({ credentials: { ...guest, sessionToken: 'other' } })
    expect((await failure(put(other, 'guest', 'a'))).name).toBe('InvalidToken')
    expect((await failure(put(clientOf({ credentials: guest }), 'guest', 'a'))).name).toBe('InvalidToken')
  })

  it('refuses a user the operations it may not do', async () => {
    await put(clientOf(), 'readable', 'abc')
    const reader = clientOf({ credentials: { accessKeyId: 'reader', secretAccessKey: 'r' } })
    expect((await read(reader, 'readable')).text).toBe('abc')
    expect((await failure(put(reader, 'readable', 'x'))).name).toBe('AccessDenied')
    const deletion = reader.send(new DeleteObjectCommand({ Bucket, Key: 'readable' }))
    expect((await failure(deletion)).name).toBe('AccessDenied')
    expect((await read(reader, 'readable')).text).toBe('abc')
  })

  it('refuses credentials that were taken back', async () => {
    const client = clientOf()
    await put(client, 'revoked', 'a')
    await server.setCredentials([credentials[2]!])
    expect((await failure(put(client, 'revoked', 'b'))).name).toBe('InvalidAccessKeyId')
  })

  it('refuses a signature for another region and names the right one', async () => {
    const error = await failure(put(clientOf({ region: 'eu-west-1' }), 'region', 'a'))
    expect(error.name).toBe('AuthorizationHeaderMalformed')
    expect(error.$response?.headers['x-amz-bucket-region']).toBe('us-east-1')
  })

  it('refuses a request that is 16 minutes old, and follows its own clock', async () => {
    const late = clientOf({ systemClockOffset: -16 * 60_000 })
    expect((await failure(put(late, 'skew', 'a'))).name).toBe('RequestTimeTooSkewed')
    await server.setClock(-16 * 60_000)
    const behind = clientOf({ systemClockOffset: -16 * 60_000 })
    await put(behind, 'skew', 'a')
    const head = await behind.send(new HeadObjectCommand({ Bucket, Key: 'skew' }))
    const ageMs = Date.now() - head.LastModified!.getTime()
    expect(ageMs).toBeGreaterThan(15 * 60_000)
    expect(ageMs).toBeLessThan(17 * 60_000)
  })

  it('refuses headers that were changed, added or left out after signing', async () => {
    const changes: ((headers: Record<string, string>) => void)[] = [
      (headers) => {
        headers['x-amz-checksum-crc32'] = 'AAAAAA=='
      },
      (headers) => {
        headers['x-amz-meta-added'] = 'later'
      },
      (headers) => {
        delete headers['x-amz-content-sha256']
      },
      (headers) => {
        headers['authorization'] = 'AWS main:signature'
      },
    ]
    for (const change of changes) {
      const error = await failure(
        put(
          tampering(({ headers }) => change(headers)),
          'tampered',
          'abc',
        ),
      )
      expect([400, 403]).toContain(error.$metadata.httpStatusCode)
    }
    expect((await failure(read(clientOf(), 'tampered'))).name).toBe('NoSuchKey')
  })

  it('refuses a query that was changed after signing', async () => {
    const client = tampering((request) => {
      ;(request as unknown as { query: Record<string, string> }).query['prefix'] = 'other'
    })
    const error = await failure(client.send(new ListObjectsV2Command({ Bucket, Prefix: 'a' })))
    expect(error.name).toBe('SignatureDoesNotMatch')
  })
})

describe('bodies', () => {
  it('decodes aws-chunked streams and checks their trailer', async () => {
    const pieces = ['first ', 'second ', 'x'.repeat(100_000)]
    const stream = Readable.from(pieces.map((piece) => Buffer.from(piece)))
    await put(clientOf(), 'stream', stream, { ContentLength: pieces.join('').length })
    expect((await read(clientOf(), 'stream')).text).toBe(pieces.join(''))
    const [record] = (await server.log('PutObject')).slice(-1)
    expect(record!.headers['x-amz-content-sha256']).toBe('STREAMING-UNSIGNED-PAYLOAD-TRAILER')
  })

  it('keeps a CRC32, checks it and returns it with whole objects only', async () => {
    const stored = await put(clientOf(), 'checked', '123456789', { ChecksumAlgorithm: 'CRC32' })
    expect(stored.ChecksumCRC32).toBe('y/Q5Jg==')
    expect((await read(clientOf(), 'checked', { ChecksumMode: 'ENABLED' })).ChecksumCRC32).toBe('y/Q5Jg==')
    const part = await read(clientOf(), 'checked', { ChecksumMode: 'ENABLED', Range: 'bytes=0-3' })
    expect(part.ChecksumCRC32).toBeUndefined()
    const wrong = adding({ 'x-amz-checksum-crc32': 'AAAAAA==' })
    expect((await failure(put(wrong, 'wrong', '123456789'))).name).toBe('BadDigest')
    const wrongMd5 = adding({ 'content-md5': Buffer.alloc(16).toString('base64') })
    expect((await failure(put(wrongMd5, 'wrong', '123456789'))).name).toBe('BadDigest')
    expect((await failure(read(clientOf(), 'wrong'))).name).toBe('NoSuchKey')
  })

  it('leaves nothing behind of a body that was cut short', async () => {
    const before = (await server.counters()).storedObjects
    const abort = new AbortController()
    const slow = new Readable({ read() {} })
    slow.push(Buffer.alloc(100_000))
    const attempt = clientOf({ requestChecksumCalculation: 'WHEN_REQUIRED', logger: silent }).send(
      new PutObjectCommand({ Bucket, Key: 'cut-short', Body: slow, ContentLength: 200_000 }),
      { abortSignal: abort.signal },
    )
    while ((await server.counters()).underWay === 0) await new Promise((done) => setTimeout(done, 5))
    abort.abort()
    await failure(attempt)
    slow.destroy()
    while ((await server.counters()).underWay > 0) await new Promise((done) => setTimeout(done, 5))
    expect((await server.counters()).storedObjects).toBe(before)
  })

  it('refuses before the body is sent where the client waits for 100 Continue', async () => {
    const body = Buffer.alloc(3 * 1024 ** 2)
    await put(clientOf(), 'expected', body, { IfNoneMatch: '*' })
    const [first] = (await server.log('PutObject')).slice(-1)
    expect(first!.headers['expect']).toBe('100-continue')
    expect(first!.bytesIn).toBe(body.length)
    expect((await failure(put(clientOf(), 'expected', body, { IfNoneMatch: '*' }))).name).toBe(
      'PreconditionFailed',
    )
    const [second] = (await server.log('PutObject')).slice(-1)
    expect(second!.bytesIn).toBe(0)
  })

  it('refuses an object that is too large', async () => {
    const error = await failure(put(clientOf(), 'large', Buffer.alloc(4 * 1024 ** 2 + 1)))
    expect(error.name).toBe('EntityTooLarge')
  })

  it('answers 400 to what is not HTTP or not a key', async () => {
    const error = await failure(read(clientOf(), 'k'.repeat(1025)))
    expect(error.name).toBe('KeyTooLongError')
    const socket = net.connect(Number(new URL(server.endpoint).port), '127.0.0.1')
    socket.write('GET /%zz HTTP/1.1\r\nHost: a\r\n\r\n')
    const [answer] = await once(socket, 'data')
    expect(String(answer)).toMatch(/^HTTP\/1\.1 400 /)
    socket.destroy()
  })
})

describe('objects and buckets', () => {
  it('keeps storage class and encryption, and gives every write an ETag of its own', async () => {
    const first = await put(clientOf(), 'class', 'a', {
      StorageClass: 'STANDARD_IA',
      ServerSideEncryption: 'AES256',
      Tagging: 'team=blue',
    })
    expect(first.ServerSideEncryption).toBe('AES256')
    const answer = await read(clientOf(), 'class')
    expect(answer.StorageClass).toBe('STANDARD_IA')
    expect(answer.ServerSideEncryption).toBe('AES256')
    const second = await put(clientOf(), 'class', 'a')
    expect(second.ETag).not.toBe(first.ETag)
  })

  it('takes If-Match with and without quotes, one winner of a race', async () => {
    const { ETag } = await put(clientOf(), 'matched', 'first')
    const { ETag: next } = await put(clientOf(), 'matched', 'second', { IfMatch: ETag })
    const writers = Array.from({ length: 8 }, (_, writer) =>
      put(clientOf(), 'matched', `writer ${writer}`, { IfMatch: next }).then(
        () => true,
        (error: S3ServiceException) => {
          expect(error.name).toBe('PreconditionFailed')
          return false
        },
      ),
    )
    expect((await Promise.all(writers)).filter(Boolean)).toHaveLength(1)
    const missing = await failure(put(clientOf(), 'never-there', 'a', { IfMatch: ETag }))
    expect(missing.name).toBe('NoSuchKey')
    const deletion = clientOf().send(new DeleteObjectCommand({ Bucket, Key: 'matched', IfMatch: ETag }))
    expect((await failure(deletion)).name).toBe('PreconditionFailed')
  })

  it('makes, finds and deletes buckets', async () => {
    const client = clientOf()
    await client.send(new CreateBucketCommand({ Bucket: 'second' }))
    const again = await failure(client.send(new CreateBucketCommand({ Bucket: 'second' })))
    expect(again.name).toBe('BucketAlreadyOwnedByYou')
    expect((await client.send(new HeadBucketCommand({ Bucket: 'second' }))).BucketRegion).toBe('us-east-1')
    const { Buckets } = await client.send(new ListBucketsCommand({}))
    expect(Buckets?.map(({ Name }) => Name)).toEqual(['second', 'test'])
    await client.send(new PutObjectCommand({ Bucket: 'second', Key: 'a', Body: 'a' }))
    const full = await failure(client.send(new DeleteBucketCommand({ Bucket: 'second' })))
    expect(full.name).toBe('BucketNotEmpty')
    await client.send(new DeleteObjectCommand({ Bucket: 'second', Key: 'a' }))
    await client.send(new DeleteBucketCommand({ Bucket: 'second' }))
    const gone = await failure(client.send(new HeadBucketCommand({ Bucket: 'second' })))
    expect(gone.$metadata.httpStatusCode).toBe(404)
  })

  it('never lists more keys in a page than it was told to, and goes on after a deleted key', async () => {
    const client = clientOf()
    const keys = Array.from({ length: 250 }, (_, index) => `page/${String(index).padStart(3, '0')}`)
    await Promise.all(keys.map((key) => put(client, key, 'a')))
    expect((await target.list('page/')).map(({ key }) => key)).toEqual(keys)
    const first = await client.send(new ListObjectsV2Command({ Bucket, Prefix: 'page/' }))
    expect(first.KeyCount).toBe(100)
    expect(first.IsTruncated).toBe(true)
    const Objects = keys.slice(90, 110).map((Key) => ({ Key }))
    await client.send(new DeleteObjectsCommand({ Bucket, Delete: { Objects, Quiet: true } }))
    const second = await client.send(
      new ListObjectsV2Command({
        Bucket,
        Prefix: 'page/',
        ContinuationToken: first.NextContinuationToken,
      }),
    )
    expect(second.Contents?.[0]?.Key).toBe(keys[110])
    await target.clear('page/')
  })

  it('says what it does not implement', async () => {
    const copy = clientOf().send(new CopyObjectCommand({ Bucket, Key: 'copy', CopySource: 'test/class' }))
    expect((await failure(copy)).name).toBe('NotImplemented')
  })
})

describe('quirks', () => {
  it('answers like RADOS Gateway where that is asked for', async () => {
    const { ETag } = await put(clientOf(), 'quirk', 'abc')
    await server.setQuirks(rgwQuirks)
    const stream = put(clientOf({ logger: silent }), 'streamed', Readable.from([Buffer.from('abc')]), {
      ContentLength: 3,
    })
    const refused = await failure(stream)
    expect(refused.$metadata.httpStatusCode).toBe(411)
    expect(refused.name).toBe('MissingContentLength')
    expect((await failure(put(clientOf(), 'quirk', 'd', { IfMatch: ETag }))).name).toBe('PreconditionFailed')
    await put(clientOf(), 'quirk', 'd', { IfMatch: ETag!.replaceAll('"', '') })
    await put(adding({ 'x-amz-checksum-crc32': 'AAAAAA==' }), 'quirk', 'e')
    expect((await read(clientOf(), 'quirk', { ChecksumMode: 'ENABLED' })).ChecksumCRC32).toBeUndefined()
    const { port } = new URL(server.endpoint)
    const missing = await fetch(`http://127.0.0.1:${port}/test/a`)
    expect(await missing.text()).not.toContain('<Message>')
  })

  it('answers like services without conditional writes or without CRC32 in DeleteObjects', async () => {
    await put(clientOf(), 'quirk', 'abc')
    await server.setQuirks({ refuseConditionalPut: true, requireContentMd5: true, emptyETag: true })
    expect((await failure(put(clientOf(), 'quirk', 'd', { IfNoneMatch: '*' }))).name).toBe('NotImplemented')
    const deletion = clientOf().send(
      new DeleteObjectsCommand({ Bucket, Delete: { Objects: [{ Key: 'quirk' }] } }),
    )
    expect((await failure(deletion)).name).toBe('InvalidRequest')
    await server.setQuirks({ ignoreConditionalPut: true, emptyETag: true })
    expect((await put(clientOf(), 'quirk', 'd', { IfNoneMatch: '*' })).ETag ?? '').toBe('')
    expect((await read(clientOf(), 'quirk')).text).toBe('d')
  })
})

describe('the process', () => {
  it('ends with the one that started it, and takes an outage and its end', async () => {
    await using own = await s3Target({ embedded: true, quotaBytes: 1000 })
    const client = own.client({ maxAttempts: 1 })
    await put(client, 'kept', 'abc')
    expect((await failure(put(client, 'over', Buffer.alloc(998)))).name).toBe('QuotaExceeded')
    await own.server!.setQuota(2000)
    await put(client, 'over', Buffer.alloc(998))
    await own.server!.outage(true)
    expect(((await failure(read(client, 'kept'))) as Error & { code?: string }).code).toBe('ECONNREFUSED')
    await own.server!.outage(false)
    expect((await read(client, 'kept')).text).toBe('abc')
    const { pid } = own.server!
    await own.close()
    expect(() => process.kill(pid, 0)).toThrow()
    await expect(own.server!.counters()).rejects.toThrow('has ended')
  })
})
