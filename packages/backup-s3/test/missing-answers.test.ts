/** Services whose listings lack objects, and services that do not tell when an object was written. */
import { type EventEmitter, once } from 'node:events'
import { DeleteObjectCommand, type ListObjectsV2Output, type S3Client } from '@aws-sdk/client-s3'
import { type S3Target, s3Target } from '@spillway/test-s3-server'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { S3Backup } from '../src/index.ts'
import { countOf, openOn, pageSizeBytes, pick, randomPages, read } from './stores.ts'

let target: S3Target
beforeAll(async () => {
  target = await s3Target({ embedded: true, maxListKeys: 20 })
})
beforeEach(() => target.server!.clearLog())
afterAll(() => target.close())

const isSegment = (key: string | undefined) => key !== undefined && /\/s-\d+$/.test(key)

/** A client that gets other answers than the service gave. */
function clientWithAnswers(
  change: (answer: ListObjectsV2Output & { LastModified?: Date }) => void,
): S3Client {
  const client = target.client()
  client.middlewareStack.add(
    (next) => async (args) => {
      const answer = await next(args)
      change(answer.output as ListObjectsV2Output)
      return answer
    },
    { step: 'initialize', name: 'other answers' },
  )
  return client
}

/** Lists all but the first so many segments. */
function listingWithout(segments: number): S3Client {
  const hidden = new Set<string>()
  return clientWithAnswers((answer) => {
    if (answer.Contents === undefined) return
    for (const { Key } of answer.Contents) if (isSegment(Key) && hidden.size < segments) hidden.add(Key!)
    answer.Contents = answer.Contents.filter(({ Key }) => !hidden.has(Key!))
  })
}

function clientWithoutTimes(): S3Client {
  return clientWithAnswers((answer) => {
    delete answer.LastModified
    for (const object of answer.Contents ?? []) delete object.LastModified
  })
}

describe('a listing that lacks segments of the manifest', () => {
  const pages = 70
  const store = {
    persistent: true,
    segmentBytes: pageSizeBytes,
    compaction: false,
    deleteDelayMs: 0,
  } as const

  async function storeOfManySegments() {
    const options = { ...store, prefix: target.prefix() }
    const first = await openOn(target, options)
    const content = randomPages(pages)
    const { handles } = await first.backupPages([content])
    await first.close()
    await target.server!.clearLog()
    return { options, content, handles }
  }

  const wholeAgain = async (
    options: typeof store & { prefix: string },
    handles: Parameters<typeof read>[1],
  ) => {
    const backup = await openOn(target, options)
    const copy = await read(backup, handles)
    await backup.close()
    return copy
  }

  it('has each of 64 asked for by its key: every page comes back, now and later', async () => {
    const { options, content, handles } = await storeOfManySegments()
    const backup = await openOn(target, { ...options, client: listingWithout(64) })
    const asked = (await target.server!.log('HeadObject')).filter(({ key }) => isSegment(key))
    expect(new Set(asked.map(({ key }) => key)).size).toBe(64)
    expect((await read(backup, handles)).equals(content)).toBe(true)
    await backup.close()
    expect((await wholeAgain(options, handles)).equals(content)).toBe(true)
  })

  it('is not believed when it lacks 65: open fails with EIO, and nothing is deleted', async () => {
    const { options, content, handles } = await storeOfManySegments()
    const refused = openOn(target, { ...options, client: listingWithout(65) })
    await expect(refused).rejects.toMatchObject({ code: 'EIO', backup: 's3' })
    await expect(refused).rejects.toThrow('not believed')
    expect((await wholeAgain(options, handles)).equals(content)).toBe(true)
  })

  it('costs the pages of those only that are gone indeed', async () => {
    const { options, content, handles } = await storeOfManySegments()
    const segments = (await target.list(options.prefix)).filter(({ key }) => isSegment(key))
    const client = target.client()
    for (const { key } of segments.slice(0, 3))
      await client.send(new DeleteObjectCommand({ Bucket: target.bucket, Key: key }))
    const backup = await openOn(target, { ...options, client: listingWithout(20) })
    expect(countOf(backup.liveHandles())).toBe(pages - 3)
    const rest = pick(
      handles,
      Array.from({ length: pages - 3 }, (_, page) => page + 3),
    )
    expect((await read(backup, rest)).equals(content.subarray(3 * pageSizeBytes))).toBe(true)
    await backup.close()
  })
})

describe('a service that does not tell when an object was written', () => {
  it('is told of at open, once, by its own lease or a probe', async () => {
    for (const persistent of [false, true]) {
      const warned = once(process as unknown as EventEmitter, 'warning')
      const backup = await openOn(target, { client: clientWithoutTimes(), persistent })
      const [warning] = (await warned) as [Error & { code?: string }]
      expect(warning).toMatchObject({ code: 'SPILLWAY_S3_NO_TIMES' })
      expect(backup.stats().tellsTimes).toBe(false)
      await backup.close()
    }
    const backup = await openOn(target)
    expect(backup.stats().tellsTimes).toBe(true)
    await backup.close()
  })

  it('has no owner swept, scratch or persistent', async () => {
    const prefix = target.prefix()
    const scratch = await openOn(target, { prefix })
    const store = await openOn(target, { prefix, persistent: true })
    const content = randomPages(5)
    const [inScratch, inStore] = [await scratch.backupPages([content]), await store.backupPages([content])]
    const place = { client: clientWithoutTimes(), bucket: target.bucket, prefix, persistent: true }
    expect(await S3Backup.sweepOrphans(place)).toMatchObject({ epochs: [], objects: 0 })
    expect((await read(scratch, inScratch.handles)).equals(content)).toBe(true)
    expect((await read(store, inStore.handles)).equals(content)).toBe(true)
    await scratch.close()
    await store.close()
  })

  it('gives a persistent store to one: to another when the owner was silent for more than a lease', async () => {
    const options = { prefix: target.prefix(), persistent: true, leaseMs: 600, retryForMs: 2_000 }
    let isDead = false
    const client = clientWithoutTimes()
    client.middlewareStack.add(
      (next) => async (args) => {
        if (isDead) throw Object.assign(new Error('dead'), { name: 'AccessDenied' })
        return next(args)
      },
      { step: 'finalizeRequest', name: 'dead', priority: 'low' },
    )
    const first = await openOn(target, { ...options, client })
    const content = randomPages(5)
    const { handles } = await first.backupPages([content])
    // More than a lease, its margin and the second of the clock's resolution.
    const refused = openOn(target, { ...options, client: clientWithoutTimes(), ownerWaitMs: 3_000 })
    await expect(refused).rejects.toMatchObject({ code: 'EBUSY' })
    expect((await read(first, handles)).equals(content)).toBe(true)
    isDead = true
    const second = await openOn(target, { ...options, client: clientWithoutTimes(), ownerWaitMs: 30_000 })
    expect((await read(second, handles)).equals(content)).toBe(true)
    await second.close()
    await first.close().catch(() => {})
  })
})
