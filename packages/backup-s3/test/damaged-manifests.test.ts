/** What a damaged manifest, a listing that lacks something, and a sweep cost, in stores of many segments. */

import type { S3Client } from '@aws-sdk/client-s3'
import type { HandleRun } from '@spillway/core'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { S3Backup, type S3BackupOptions } from '../src/index.ts'
import { KeySpace } from '../src/keys.ts'
import { decodeHead } from '../src/ownership/head.ts'
import { MapService } from './harness/map-client.ts'
import { countOf, pageSizeBytes, pick, randomPages, read } from './stores.ts'

let service: MapService
let opened: S3Backup[]
beforeEach(() => {
  service = new MapService()
  opened = []
})
afterEach(async () => {
  service.unlisted = new Set()
  for (const backup of opened) await backup.close().catch(() => {})
})

const prefix = 'pages/'
const keys = new KeySpace(prefix)
const place = { bucket: 'bucket', prefix }

/** Opens the store; a segment has one page. */
async function open(options: Partial<S3BackupOptions> = {}): Promise<S3Backup> {
  const backup = await S3Backup.open({
    ...place,
    client: service.client(),
    persistent: true,
    segmentBytes: pageSizeBytes,
    compaction: false,
    deleteDelayMs: 0,
    lingerMs: 0,
    retryBaseMs: 1,
    ...options,
  })
  opened.push(backup)
  return backup
}

/** Opens the store as a process that `die` ends: none of its requests arrives afterwards, and its lease is over. */
async function openMortal(options: Partial<S3BackupOptions> = {}) {
  const client = service.client() as unknown as { send: (command: unknown) => Promise<unknown> }
  let isDead = false
  const send = (command: unknown) => (isDead ? new Promise(() => {}) : client.send(command))
  const backup = await open({ ...options, client: { ...client, send } as unknown as S3Client })
  opened.pop()
  const die = () => {
    isDead = true
    service.aheadMs += 1_000_000
  }
  return { backup, die }
}

function range(first: number, end: number): number[] {
  return Array.from({ length: end - first }, (_, index) => first + index)
}

function pagesOf(content: Buffer, pages: readonly number[]): Buffer {
  return Buffer.concat(
    pages.map((page) => content.subarray(page * pageSizeBytes, (page + 1) * pageSizeBytes)),
  )
}

/** The manifests that the head names, the newest first. */
function manifests(): string[] {
  const newest = [...service.objects.keys]
    .filter((key) => keys.headVersion(key) !== undefined)
    .sort()
    .at(-1)!
  const { manifest, parent } = decodeHead(service.objects.get(newest)!.body, newest)
  return [manifest, parent].filter((name) => name !== null).map((name) => `${prefix}${name}`)
}

const damage = (key: string) => service.objects.set(key, Buffer.from('junk'))
const remove = (key: string) => service.objects.perform('DeleteObjectCommand', { Key: key })
const segments = () => [...service.objects.keys].filter((key) => key.includes('/s-'))
const segmentOf = ({ first }: HandleRun) =>
  segments().find((key) => key.endsWith(`s-${String(Math.floor(first / 2 ** 21)).padStart(10, '0')}`))!

/**
 * A store of 400 segments of which 70 are dropped and deleted, so that the newest manifest does not name them and its
 * parent does.
 */
async function storeWithDrops(): Promise<{ content: Buffer; handles: readonly HandleRun[]; kept: number[] }> {
  const content = randomPages(400)
  const first = await open()
  const { handles } = await first.backupPages([content])
  await first.close()
  // The drops wait for the manifest that closing writes.
  const second = await open({ deleteDelayMs: 60_000 })
  await second.drop(pick(handles, range(100, 170)))
  await second.close()
  expect(segments()).toHaveLength(330)
  return { content, handles, kept: [...range(0, 100), ...range(170, 400)] }
}

describe('a store whose newest manifest cannot be read', () => {
  it.each([
    ['damaged', damage],
    ['gone', remove],
  ])('(%s) opens with the one before, however much that one names was deleted since', async (_, harm) => {
    const { content, handles, kept } = await storeWithDrops()
    harm(manifests()[0]!)
    const next = await open()
    expect(next.stats().backgroundError).toMatchObject({ code: 'EBADMSG' })
    expect((await read(next, pick(handles, kept))).equals(pagesOf(content, kept))).toBe(true)
    expect(countOf(next.liveHandles())).toBe(kept.length)
    await expect(read(next, pick(handles, [100]))).rejects.toMatchObject({ code: 'ESTALE' })
    await next.close()
    expect(segments()).toHaveLength(kept.length)
  })

  it('has every page when its owner died after it wrote, dropped and compacted more', async () => {
    const content = randomPages(1600)
    const options = { segmentBytes: 4 * pageSizeBytes }
    const first = await open(options)
    const { handles } = await first.backupPages([content.subarray(0, 800 * pageSizeBytes)])
    await first.close()
    const compaction = { maxAmplification: 1, bytesPerSecond: 1e9 }
    const { backup, die } = await openMortal({ ...options, compaction, deleteDelayMs: 20 })
    const more = (await backup.backupPages([content.subarray(800 * pageSizeBytes)])).handles
    const kept = range(0, 1600).filter((page) => page % 4 === 1 || page % 100 > 60)
    const isKept = new Set(kept)
    const all = [...handles, ...more]
    await backup.drop(
      pick(
        all,
        range(0, 1600).filter((page) => !isKept.has(page)),
      ),
    )
    while (backup.stats().compactions < 30) await new Promise((resolve) => setTimeout(resolve, 5))
    die()
    damage(manifests()[0]!)
    const next = await open({ ...options, ownerWaitMs: 1000 })
    expect((await read(next, pick(all, kept))).equals(pagesOf(content, kept))).toBe(true)
    // What comes back of drops is what it was.
    const live = new Set(
      pick(next.liveHandles(), range(0, countOf(next.liveHandles()))).map(({ first: handle }) => handle),
    )
    const found = range(0, 1600).filter((page) => live.has(pick(all, [page])[0]!.first))
    expect(found.length).toBe(live.size)
    expect((await read(next, pick(all, found))).equals(pagesOf(content, found))).toBe(true)
  })

  it('reads every footer when the one before cannot be read either', async () => {
    const { content, handles, kept } = await storeWithDrops()
    for (const key of manifests()) damage(key)
    const next = await open()
    expect((await read(next, pick(handles, kept))).equals(pagesOf(content, kept))).toBe(true)
    expect(countOf(next.liveHandles())).toBe(kept.length)
  })
})

describe('a listing that lacks objects', () => {
  it.each([
    ['whole', () => {}],
    ['damaged', () => damage(manifests()[0]!)],
  ])(
    'is not believed when they are there (newest manifest %s): EIO, and nothing is deleted',
    async (_, harm) => {
      const { content, handles, kept } = await storeWithDrops()
      harm()
      service.unlisted = new Set(segments().slice(0, 65))
      service.counts.clear()
      await expect(open()).rejects.toMatchObject({
        code: 'EIO',
        message: expect.stringContaining('not believed'),
      })
      // The first that show it are enough.
      expect(service.counts.get('HeadObject')).toBeLessThanOrEqual(65 + 70 + 16)
      expect(segments()).toHaveLength(kept.length)
      service.unlisted = new Set()
      const next = await open()
      expect((await read(next, pick(handles, kept))).equals(pagesOf(content, kept))).toBe(true)
    },
  )

  it('is believed when they are gone: each costs its pages, and the others are served', async () => {
    const { content, handles, kept } = await storeWithDrops()
    // As a rule does that lets objects of a bucket expire.
    for (const run of pick(handles, kept.slice(0, 200))) remove(segmentOf(run))
    const next = await open()
    expect(next.stats().backgroundError).toMatchObject({
      code: 'ENOENT',
      message: expect.stringContaining('200'),
    })
    const left = kept.slice(200)
    expect((await read(next, pick(handles, left))).equals(pagesOf(content, left))).toBe(true)
    await expect(read(next, pick(handles, [0]))).rejects.toMatchObject({ code: 'ESTALE' })
  })
})

describe('a store that was swept', () => {
  it('keeps what is stored in it afterwards, also when its owner dies before the next manifest', async () => {
    const first = await open()
    await first.backupPages([randomPages(5)])
    await first.close()
    await S3Backup.sweepOrphans({ ...place, client: service.client(), persistent: true })
    expect(segments()).toEqual([])
    const { backup, die } = await openMortal()
    const content = randomPages(5)
    const { handles } = await backup.backupPages([content])
    die()
    const next = await open()
    expect((await read(next, handles)).equals(content)).toBe(true)
  })
})
