/** What backup-s3 relies on, asked of whatever service the tests run against. */
import {
  DeleteObjectCommand,
  DeleteObjectsCommand,
  GetObjectCommand,
  HeadObjectCommand,
  ListObjectsV2Command,
  PutObjectCommand,
  type S3Client,
  type S3ServiceException,
} from '@aws-sdk/client-s3'
import { hasConditionalWrites, type S3Target, s3Target } from '@spillway/test-s3-server'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'

let target: S3Target
let client: S3Client
let prefix: string
let Bucket: string

beforeAll(async () => {
  target = await s3Target()
  client = target.client({ maxAttempts: 1 })
  prefix = target.prefix()
  Bucket = target.bucket
})
afterAll(async () => {
  await target.clear(prefix)
  await target.close()
})

const put = (name: string, Body: Uint8Array, extra = {}) =>
  client.send(new PutObjectCommand({ Bucket, Key: prefix + name, Body, ...extra }))
const get = async (name: string, extra = {}) => {
  const answer = await client.send(new GetObjectCommand({ Bucket, Key: prefix + name, ...extra }))
  return { ...answer, bytes: Buffer.from(await answer.Body!.transformToByteArray()) }
}
const failure = async (work: Promise<unknown>): Promise<S3ServiceException> => {
  try {
    await work
  } catch (error) {
    return error as S3ServiceException
  }
  throw new Error('it should have failed')
}
const statusOf = async (work: Promise<unknown>) => (await failure(work)).$metadata?.httpStatusCode

function pattern(lengthBytes: number, seed = 1): Buffer {
  const bytes = Buffer.alloc(lengthBytes)
  for (let at = 0; at < lengthBytes; at++) bytes[at] = (at * 31 + (at >> 8) * 7 + seed) & 255
  return bytes
}

describe('an S3 service', () => {
  it.each([0, 1, 4096, 8 * 1024 ** 2])('stores an object of %i bytes and returns it', async (lengthBytes) => {
    const bytes = pattern(lengthBytes)
    const stored = await put(`size-${lengthBytes}`, bytes)
    expect(stored.ETag).toMatch(/^".+"$/)
    const { bytes: read, ContentLength, ETag } = await get(`size-${lengthBytes}`)
    expect(read.equals(bytes)).toBe(true)
    expect(ContentLength).toBe(lengthBytes)
    expect(ETag).toBe(stored.ETag)
    const head = await client.send(new HeadObjectCommand({ Bucket, Key: `${prefix}size-${lengthBytes}` }))
    expect(head.ContentLength).toBe(lengthBytes)
    expect(head.ETag).toBe(stored.ETag)
    expect(head.LastModified).toBeInstanceOf(Date)
  })

  it('keeps metadata and content type', async () => {
    await put('meta', pattern(10), {
      Metadata: { epoch: 'a1', note: 'two  words' },
      ContentType: 'text/plain',
    })
    const { Metadata, ContentType } = await get('meta')
    expect(Metadata).toMatchObject({ epoch: 'a1' })
    expect(ContentType).toBe('text/plain')
  })

  it('answers ranges: inside, open, clipped, from the end', async () => {
    const bytes = pattern(10_000)
    await put('ranged', bytes)
    const cases: [string, number, number][] = [
      ['bytes=0-0', 0, 1],
      ['bytes=100-4195', 100, 4196],
      ['bytes=9000-', 9000, 10_000],
      ['bytes=9990-20000', 9990, 10_000],
      ['bytes=-10', 9990, 10_000],
    ]
    for (const [Range, start, end] of cases) {
      const answer = await get('ranged', { Range })
      expect(answer.$metadata.httpStatusCode, Range).toBe(206)
      expect(answer.ContentRange, Range).toBe(`bytes ${start}-${end - 1}/10000`)
      expect(answer.bytes.equals(bytes.subarray(start, end)), Range).toBe(true)
    }
    expect(await statusOf(get('ranged', { Range: 'bytes=10000-10001' }))).toBe(416)
  })

  it('refuses a read under If-Match once the object is another', async () => {
    const first = await put('matched', pattern(100, 1))
    expect((await get('matched', { IfMatch: first.ETag })).bytes.length).toBe(100)
    await put('matched', pattern(101, 2))
    expect(await statusOf(get('matched', { IfMatch: first.ETag }))).toBe(412)
  })

  it('answers 304 to a read under If-None-Match', async () => {
    const { ETag } = await put('cached', pattern(100))
    expect(await statusOf(get('cached', { IfNoneMatch: ETag }))).toBe(304)
  })

  it('names what is missing', async () => {
    expect((await failure(get('missing'))).name).toBe('NoSuchKey')
    expect(await statusOf(client.send(new HeadObjectCommand({ Bucket, Key: `${prefix}missing` })))).toBe(404)
    const Missing = 'spillway-no-such-bucket-1b7d'
    const read = failure(client.send(new GetObjectCommand({ Bucket: Missing, Key: 'a' })))
    expect((await read).name).toBe('NoSuchBucket')
    const written = failure(
      client.send(new PutObjectCommand({ Bucket: Missing, Key: 'a', Body: pattern(10) })),
    )
    expect((await written).name).toBe('NoSuchBucket')
  })

  it.runIf(hasConditionalWrites())('writes once under If-None-Match: *', async () => {
    await put('once', pattern(100, 1), { IfNoneMatch: '*' })
    const second = await failure(put('once', pattern(100, 2), { IfNoneMatch: '*' }))
    expect(second.name).toBe('PreconditionFailed')
    expect(second.$metadata.httpStatusCode).toBe(412)
    expect((await get('once')).bytes.equals(pattern(100, 1))).toBe(true)
  })

  it.runIf(hasConditionalWrites())('lets one of 16 racing writers win under If-None-Match: *', async () => {
    const writers = Array.from({ length: 16 }, (_, writer) =>
      put('race', pattern(5000, writer), { IfNoneMatch: '*' }).then(
        () => writer,
        (error: S3ServiceException) => {
          expect(error.$metadata.httpStatusCode).toBe(412)
          return undefined
        },
      ),
    )
    const winners = (await Promise.all(writers)).filter((writer) => writer !== undefined)
    expect(winners).toHaveLength(1)
    expect((await get('race')).bytes.equals(pattern(5000, winners[0]!))).toBe(true)
  })

  it('refuses a write under a stale If-Match', async () => {
    const first = await put('replaced', pattern(100, 1))
    await put('replaced', pattern(100, 2))
    const bare = first.ETag!.replaceAll('"', '')
    expect(await statusOf(put('replaced', pattern(100, 3), { IfMatch: bare }))).toBe(412)
    expect((await get('replaced')).bytes.equals(pattern(100, 2))).toBe(true)
  })

  it('takes a write under the current If-Match, without quotes', async () => {
    const first = await put('renewed', pattern(100, 1))
    await put('renewed', pattern(100, 2), { IfMatch: first.ETag!.replaceAll('"', '') })
    expect((await get('renewed')).bytes.equals(pattern(100, 2))).toBe(true)
  })

  it('deletes, and also what is not there', async () => {
    await put('deleted', pattern(10))
    await client.send(new DeleteObjectCommand({ Bucket, Key: `${prefix}deleted` }))
    expect((await failure(get('deleted'))).name).toBe('NoSuchKey')
    await client.send(new DeleteObjectCommand({ Bucket, Key: `${prefix}deleted` }))
  })

  it('lists in byte order, by pages, with awkward keys, and deletes them in one request', async () => {
    const names = ['a b', 'a&<>"\'c', 'a+c', 'a/1', 'a/2', 'a/b/3', 'aé', 'aЖ', 'a%41', 'b', 'z=?#']
    const keys = names.map((name) => `${prefix}list/${name}`)
    await Promise.all(keys.map((Key) => client.send(new PutObjectCommand({ Bucket, Key, Body: pattern(7) }))))
    const ordered = [...keys].sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)))
    const listed: string[] = []
    let ContinuationToken: string | undefined
    let pages = 0
    do {
      const page = await client.send(
        new ListObjectsV2Command({ Bucket, Prefix: `${prefix}list/`, MaxKeys: 3, ContinuationToken }),
      )
      for (const { Key, Size } of page.Contents ?? []) {
        listed.push(Key!)
        expect(Size).toBe(7)
      }
      ContinuationToken = page.NextContinuationToken
      pages++
    } while (ContinuationToken !== undefined)
    expect(listed).toEqual(ordered)
    expect(pages).toBe(4)

    const after = await client.send(
      new ListObjectsV2Command({ Bucket, Prefix: `${prefix}list/`, StartAfter: ordered[4] }),
    )
    expect(after.Contents?.map(({ Key }) => Key)).toEqual(ordered.slice(5))
    const grouped = await client.send(
      new ListObjectsV2Command({ Bucket, Prefix: `${prefix}list/`, Delimiter: '/' }),
    )
    expect(grouped.CommonPrefixes?.map(({ Prefix }) => Prefix)).toEqual([`${prefix}list/a/`])
    expect(grouped.Contents).toHaveLength(names.length - 3)

    const Objects = [...keys, `${prefix}list/never-there`].map((Key) => ({ Key }))
    const deleted = await client.send(new DeleteObjectsCommand({ Bucket, Delete: { Objects } }))
    expect(deleted.Errors ?? []).toEqual([])
    expect(deleted.Deleted).toHaveLength(Objects.length)
    expect(await target.list(`${prefix}list/`)).toEqual([])
  })

  it('deletes 1,000 keys in one request', async () => {
    const keys = Array.from({ length: 1000 }, (_, index) => `${prefix}many/${index}`)
    for (let start = 0; start < keys.length; start += 50)
      await Promise.all(
        keys
          .slice(start, start + 50)
          .map((Key) => client.send(new PutObjectCommand({ Bucket, Key, Body: pattern(1) }))),
      )
    expect(await target.list(`${prefix}many/`)).toHaveLength(1000)
    const Objects = keys.map((Key) => ({ Key }))
    const answer = await client.send(new DeleteObjectsCommand({ Bucket, Delete: { Objects, Quiet: true } }))
    expect(answer.Errors ?? []).toEqual([])
    expect(await target.list(`${prefix}many/`)).toEqual([])
  })

  it('refuses a wrong secret, an unknown key and a request without a signature', async () => {
    const { accessKeyId } = target.credentials
    const wrong = target.client({ maxAttempts: 1, credentials: { accessKeyId, secretAccessKey: 'wrong' } })
    const refused = await failure(wrong.send(new HeadObjectCommand({ Bucket, Key: prefix })))
    expect(refused.$metadata.httpStatusCode).toBe(403)
    const named = await failure(wrong.send(new ListObjectsV2Command({ Bucket })))
    expect(named.name).toBe('SignatureDoesNotMatch')
    const unknown = target.client({
      maxAttempts: 1,
      credentials: { accessKeyId: 'AKIAUNKNOWN000000000', secretAccessKey: 'wrong' },
    })
    expect((await failure(unknown.send(new ListObjectsV2Command({ Bucket })))).name).toBe(
      'InvalidAccessKeyId',
    )
    const path = target.forcePathStyle ? `/${Bucket}/${prefix}size-1` : `/${prefix}size-1`
    expect((await fetch(target.endpoint + path)).status).toBe(403)
  })

  it('refuses a body altered after it was signed', async () => {
    const altered = target.client({ maxAttempts: 1 })
    altered.middlewareStack.add(
      (next) => (args) => {
        const request = args.request as { body: Uint8Array }
        request.body = pattern(100, 2)
        return next(args)
      },
      { step: 'finalizeRequest', priority: 'low' },
    )
    const attempt = altered.send(
      new PutObjectCommand({ Bucket, Key: `${prefix}altered`, Body: pattern(100, 1) }),
    )
    expect(await statusOf(attempt)).toBe(400)
    expect((await failure(get('altered'))).name).toBe('NoSuchKey')
  })
})
