/** What an owner does while the service is slow, refuses, or has lost something. */
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { S3Backup, type S3BackupOptions } from '../src/index.ts'
import { MapService } from './harness/map-client.ts'
import { failure } from './harness/object-map.ts'
import { pageSizeBytes, pick, randomPages } from './stores.ts'

let service: MapService
let opened: S3Backup[]
beforeEach(() => {
  service = new MapService()
  opened = []
})
afterEach(async () => {
  service.onRequest = () => {}
  for (const backup of opened) await backup.close().catch(() => {})
})

const place = () => ({ client: service.client(), bucket: 'bucket', prefix: 'pages/', lingerMs: 0 })

async function open(options: Partial<S3BackupOptions> = {}): Promise<S3Backup> {
  const backup = await S3Backup.open({ ...place(), ...options })
  opened.push(backup)
  return backup
}

const isSegment = (key: string) => /\/s-\d+$/.test(key)

describe('a lease', () => {
  it('is renewed while its owner opens, however long that takes', async () => {
    const store = { persistent: true, leaseMs: 600 }
    const first = await open(store)
    await first.backupPages([randomPages(4)])
    await first.close()
    let goOn = () => {}
    const isSlow = new Promise<void>((resolve) => {
      goOn = resolve
    })
    let isReading = false
    service.onRequest = (verb, { Key }) => {
      if (verb !== 'GetObject' || !/\/m-\d+$/.test(Key!)) return
      isReading = true
      return isSlow
    }
    const slow = open(store)
    await vi.waitFor(() => expect(isReading).toBe(true), 5000)
    // It waits for longer than a lease and the second by which times are rounded.
    await expect(S3Backup.open({ ...place(), ...store, ownerWaitMs: 2500 })).rejects.toMatchObject({
      code: 'EBUSY',
    })
    goOn()
    expect((await slow).stats().livePages).toBe(4)
  })

  it('is renewed before requests that wait for their rate', async () => {
    const owner = await open({
      leaseMs: 600,
      maxRequestsPerSecond: 8,
      segmentBytes: 256 * pageSizeBytes,
      mergeGapBytes: 0,
      hedgeShare: 0,
    })
    const { handles } = await owner.backupPages([randomPages(256)])
    const controller = new AbortController()
    const [memory, options] = [[Buffer.alloc(pageSizeBytes)], { signal: controller.signal }]
    const everyThird = Array.from({ length: 80 }, (_, index) => pick(handles, [3 * index]))
    let reads = 0
    let renewals = 0
    service.onRequest = (verb, { Key = '' }) => {
      if (verb === 'GetObject' && isSegment(Key)) reads++
      else if (verb === 'PutObject' && Key.includes('leases/')) renewals++
    }
    const reading = everyThird.map((handle) => owner.copyPages(handle, memory, options))
    await vi.waitFor(() => expect(renewals).toBeGreaterThanOrEqual(3), 15_000)
    expect(reads).toBeLessThan(everyThird.length)
    controller.abort()
    await Promise.all(reading)
  })

  it('takes its turns from pages for half of the rate only, where it needs more than all of it', async () => {
    // Sixty requests a second.
    const owner = await open({ persistent: true, leaseMs: 150, maxRequestsPerSecond: 20 })
    const renewed = (times: number) => {
      const enough = owner.stats().leaseRenewals + times
      return vi.waitFor(() => expect(owner.stats().leaseRenewals).toBeGreaterThan(enough), 15_000)
    }
    await renewed(40)
    const before = owner.stats().leaseRenewals
    const { error } = await owner.backupPages([randomPages(1)])
    expect(error).toBeUndefined()
    expect(owner.stats().leaseRenewals - before).toBeLessThan(40)
  })
})

describe('deletions that are refused', () => {
  it('for one key, and with it for all: the others go, in the background, at close and in a sweep', async () => {
    const prefix = 'refused/'
    let undeletable = ''
    service.onRequest = (verb, { Delete, Key }) => {
      const keys = verb === 'DeleteObjects' ? Delete!.Objects.map((object) => object.Key) : [Key]
      if (verb.startsWith('Delete') && keys.includes(undeletable)) throw failure('AccessDenied', 403)
    }
    const segments = () => [...service.objects.keys].filter((key) => key.startsWith(prefix) && isSegment(key))
    const options = { prefix, segmentBytes: pageSizeBytes, compaction: false, deleteDelayMs: 1 } as const
    const backup = await open({ ...options, retryForMs: 100 })
    const { handles } = await backup.backupPages([randomPages(12)])
    undeletable = segments().sort()[0]!
    await backup.drop(pick(handles, [0, 1, 2, 3]))
    await vi.waitFor(() => expect(segments().length).toBe(9))
    await expect(backup.close()).rejects.toMatchObject({ code: 'EACCES' })
    expect(segments()).toEqual([undeletable])

    for (const last of '0123456789')
      service.objects.set(`${undeletable.slice(0, -1)}${last}`, Buffer.alloc(1))
    service.aheadMs = 200_000
    const { failures } = await S3Backup.sweepOrphans({ ...place(), prefix, retryForMs: 100 })
    expect(failures).toMatchObject([{ error: { code: 'EACCES' } }])
    expect(segments()).toEqual([undeletable])
  })

  it('are not asked for more often because more than a thousand wait', async () => {
    const backup = await open({ segmentBytes: pageSizeBytes, compaction: false, deleteDelayMs: 1 })
    const { handles } = await backup.backupPages([randomPages(1700)])
    let asked = 0
    service.onRequest = (verb) => {
      if (verb !== 'DeleteObjects' && verb !== 'DeleteObject') return
      asked++
      throw failure('SlowDown', 503)
    }
    await backup.drop(pick(handles, Array(1100).keys()))
    await vi.waitFor(() => expect(asked).toBeGreaterThan(0))
    for (let page = 1100; page < 1700; page++) {
      await backup.drop(pick(handles, [page]))
      if (page % 50 === 0) await new Promise((resolve) => setTimeout(resolve, 5))
    }
    expect(asked).toBeLessThan(20)
  })
})

describe('compaction', () => {
  it('goes on with the other segments when one is gone from the bucket', async () => {
    const backup = await open({
      segmentBytes: 16 * pageSizeBytes,
      deleteDelayMs: 0,
      compaction: { maxAmplification: 1, bytesPerSecond: 1e9 },
    })
    const batches = []
    for (let segment = 0; segment < 12; segment++)
      batches.push((await backup.backupPages([randomPages(16)])).handles)
    const lost = [...service.objects.keys].find(isSegment)!
    service.objects.perform('DeleteObjectCommand', { Key: lost })
    for (const handles of batches) await backup.drop(pick(handles, Array(13).keys()))
    await vi.waitFor(() => expect(backup.stats().compactions).toBeGreaterThan(0), 5000)
    await vi.waitFor(() => expect(backup.stats().spaceAmplification).toBeLessThan(3), 5000)
  })
})
