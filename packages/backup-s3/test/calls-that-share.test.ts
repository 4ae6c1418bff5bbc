/** What many calls share: a renewal, a signal, a long deletion; and what a process does not wait for. */
import { getEventListeners } from 'node:events'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { S3Backup, type S3BackupOptions } from '../src/index.ts'
import type { Settings } from '../src/options.ts'
import { Deletions, deleteAll } from '../src/ownership/deletions.ts'
import { LeaseTerm, momentNow } from '../src/ownership/lease-term.ts'
import { Owner } from '../src/ownership/owner.ts'
import type { S3Service } from '../src/service/service.ts'
import { ServiceClock } from '../src/service/service-clock.ts'
import { MapService } from './harness/map-client.ts'
import { pageSizeBytes, pick, randomPages } from './stores.ts'

let service: MapService
let opened: S3Backup[]
beforeEach(() => {
  service = new MapService()
  opened = []
})
afterEach(async () => {
  for (const backup of opened) await backup.close().catch(() => {})
})

async function open(options: Partial<S3BackupOptions> = {}): Promise<S3Backup> {
  const common = { client: service.client(), bucket: 'bucket', prefix: 'pages/', lingerMs: 0 }
  const backup = await S3Backup.open({ ...common, segmentBytes: 512 * pageSizeBytes, ...options })
  opened.push(backup)
  return backup
}

describe('a successor', () => {
  it('reads the footers of at most 256 segments and those under way, however many were written', async () => {
    const store = { persistent: true, segmentBytes: pageSizeBytes, bufferBytes: 16 * pageSizeBytes }
    const owner = await open({ ...store, leaseMs: 60_000, compaction: false })
    const content = randomPages(100)
    for (let batch = 0; batch < 23; batch++) await owner.backupPages([content])
    // It is gone from now on, and nobody has heard that it closed.
    const isFooter = (verb: string, range: string | undefined) => verb === 'GetObject' && range !== undefined
    let footers = 0
    service.aheadMs = 120_000
    service.onRequest = (verb, { Range }) => {
      if (isFooter(verb, Range)) footers++
    }
    const successor = await open(store)
    service.onRequest = () => {}
    expect(successor.stats().livePages).toBe(2300)
    expect(footers).toBeLessThanOrEqual(256 + owner.capabilities.preferredCallsInFlight)
  })
})

/** An owner whose renewals end when the test says so. */
class OwnerInTest extends Owner {
  readonly epoch = 'scratch-test'
  writes = 0
  end: () => void = () => {}

  constructor() {
    super(
      { leaseMs: 60_000, name: 's3' } as Settings,
      new LeaseTerm(60_000, new ServiceClock(), { countsSleep: true }),
      1,
    )
  }

  protected override async writeLease(): Promise<void> {
    this.writes++
    await new Promise<void>((resolve) => {
      this.end = resolve
    })
    this.term.begin(momentNow(), undefined)
  }

  protected override async giveBack(): Promise<void> {}
}

describe('a renewal that several calls wait for', () => {
  it('goes on when the call that began it is aborted, and the others do not hear of that', async () => {
    const owner = new OwnerInTest()
    const controller = new AbortController()
    const first = owner.assertOwned(controller.signal)
    const others = [owner.assertOwned(), owner.takeSegmentNumber(new AbortController().signal)]
    controller.abort()
    await expect(first).rejects.toMatchObject({ code: 'EINTR' })
    owner.end()
    expect(await Promise.all(others)).toEqual([undefined, 1])
    expect(owner.writes).toBe(1)
  })
})

describe('24,000 restores of one segment', () => {
  it('have one listener on their signal, and all end when it is aborted', async () => {
    const backup = await open()
    const { handles } = await backup.backupPages([randomPages(512)])
    const { signal, abort } = controllerOf(new AbortController())
    const page = Buffer.alloc(pageSizeBytes)
    const [{ first }] = handles
    const restores = Array.from({ length: 24_000 }, (_, index) =>
      backup.copyPages([{ first: first + (index % 512), count: 1 }], [page], { signal }),
    )
    // Each listener more would be walked past by every other that is taken back.
    expect(getEventListeners(signal, 'abort').length).toBeLessThanOrEqual(2)
    const before = service.counts.get('GetObject') ?? 0
    abort()
    const results = await Promise.all(restores)
    expect(results.every(({ error }) => (error as { code?: string }).code === 'EINTR')).toBe(true)
    expect((service.counts.get('GetObject') ?? 0) - before).toBeLessThanOrEqual(64)
    expect(getEventListeners(signal, 'abort')).toEqual([])
  })
})

function controllerOf(controller: AbortController): { signal: AbortSignal; abort: () => void } {
  return { signal: controller.signal, abort: () => controller.abort() }
}

describe('compaction', () => {
  it('that waits for its rate does not keep the process alive', async () => {
    const timers = () => process.getActiveResourcesInfo().filter((name) => name === 'Timeout').length
    const before = timers()
    const backup = await open({
      segmentBytes: 8 * pageSizeBytes,
      deleteDelayMs: 60_000,
      compaction: { maxAmplification: 1, bytesPerSecond: 1 },
    })
    const { handles } = await backup.backupPages([randomPages(64)])
    const kept = new Set(Array.from({ length: 64 }, (_, page) => page).filter((page) => page % 3 !== 0))
    await backup.drop(pick(handles, kept))
    // The first run has its tokens; the next waits for days.
    await expect.poll(() => backup.stats().compactions).toBeGreaterThan(0)
    await expect.poll(timers).toBeLessThanOrEqual(before)
  })
})

describe('a long deletion', () => {
  it('has the whole time for retries with each thousand of its keys', async () => {
    const batches: number[] = []
    const stub = {
      retry: { run: (_: unknown, attempt: () => Promise<void>) => attempt() },
      deleteMany: async (keys: readonly string[]) => {
        batches.push(keys.length)
        return new Map()
      },
    }
    let runs = 0
    const { run } = stub.retry
    stub.retry.run = (scope, attempt) => {
      runs++
      return run(scope, attempt)
    }
    await deleteAll(
      stub as unknown as S3Service,
      Array.from({ length: 2500 }, (_, index) => `k${index}`),
    )
    expect([batches, runs]).toEqual([[1000, 1000, 500], 3])
  })

  it('that ends a backup is tried for the whole time again whenever something of it went', async () => {
    let deadlines = 0
    let left = 4
    const stub = {
      // Over at once, unless something went since.
      retry: { deadline: () => (deadlines++ === 0 ? Number.POSITIVE_INFINITY : performance.now() + 60_000) },
      deleteMany: async (keys: readonly string[]) =>
        new Map(keys.slice(0, --left).map((key) => [key, busy()])),
    }
    const settings = { persistent: false, deleteDelayMs: 60_000, retryBaseMs: 1, retryMaxMs: 1, name: 's3' }
    const deletions = new Deletions(settings as Settings, stub as unknown as S3Service)
    for (let index = 0; index < 4; index++) deletions.add(`k${index}`)
    await deletions.drain()
    expect([deletions.pending, deadlines]).toEqual([0, 4])
  })
})

function busy(): Error {
  return Object.assign(new Error('busy'), {
    code: 'EAGAIN',
    retryable: true,
    [Symbol.for('spillway.error')]: true,
  })
}
