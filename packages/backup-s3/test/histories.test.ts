/**
 * Random histories against an oracle that is a plain map from handle to bytes: backups, restores, drops, compaction,
 * lost answers and other faults by chance, and processes that are cut off from the service and attached after.
 */
import type { S3Client } from '@aws-sdk/client-s3'
import { faults, type S3Target, s3Target } from '@spillway/test-s3-server'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { pageHttpHandler, type S3Backup, type S3BackupOptions } from '../src/index.ts'
import { openOn, pageSizeBytes, randomPages } from './stores.ts'

/** `SPILLWAY_RUNS=500 npx vitest run histories` is the long version. */
const runs = Number(process.env['SPILLWAY_RUNS'] ?? 3)

let target: S3Target
beforeAll(async () => {
  target = await s3Target({ embedded: true })
})
afterAll(() => target.close())

type Step =
  | { readonly kind: 'backup'; readonly pages: number; readonly cuts: number }
  | { readonly kind: 'copy' | 'drop'; readonly from: number; readonly pages: number; readonly stride: number }
  | { readonly kind: 'together'; readonly pages: number }
  | { readonly kind: 'stale' }

const steps: fc.Arbitrary<Step[]> = fc.array(
  fc.oneof(
    {
      weight: 4,
      arbitrary: fc.record({
        kind: fc.constant('backup' as const),
        pages: fc.integer({ min: 1, max: 40 }),
        cuts: fc.integer({ min: 1, max: 5 }),
      }),
    },
    {
      weight: 7,
      arbitrary: fc.record({
        kind: fc.constantFrom('copy' as const, 'drop' as const),
        from: fc.nat(1000),
        pages: fc.integer({ min: 1, max: 60 }),
        stride: fc.integer({ min: 1, max: 7 }),
      }),
    },
    {
      weight: 1,
      arbitrary: fc.record({
        kind: fc.constant('together' as const),
        pages: fc.integer({ min: 1, max: 9 }),
      }),
    },
    { weight: 1, arbitrary: fc.constant({ kind: 'stale' as const }) },
  ),
  { minLength: 10, maxLength: 40 },
)

/** After which there is something to compact: of three segments every second page is dropped. */
const halfDropped: Step[] = [
  { kind: 'backup', pages: 40, cuts: 3 },
  { kind: 'drop', from: 0, pages: 20, stride: 2 },
  { kind: 'copy', from: 0, pages: 20, stride: 1 },
]

const small: Partial<S3BackupOptions> = {
  segmentBytes: 16 * pageSizeBytes,
  lingerMs: 0,
  deleteDelayMs: 0,
  retryBaseMs: 1,
  firstByteTimeoutMs: 2000,
  bodyTimeoutMs: 500,
  mergeGapBytes: 2 * pageSizeBytes,
  compaction: { maxAmplification: 1, bytesPerSecond: 1e9 },
}

/** What must be there: every handle that was given out and not dropped, with its bytes. */
class Oracle {
  readonly pages = new Map<number, Buffer>()
  readonly dropped: number[] = []

  async step(backup: S3Backup, step: Step): Promise<void> {
    if (step.kind === 'backup') await this.#backUp(backup, step.pages, step.cuts)
    else if (step.kind === 'copy') await this.verify(backup, this.#some(step))
    else if (step.kind === 'drop') await this.#drop(backup, this.#some(step))
    else if (step.kind === 'together') {
      const some = [...this.pages.keys()].slice(0, 20)
      const copies = [this.verify(backup, some), this.verify(backup, some.toReversed())]
      const backups = [1, 2, 3].map(() => this.#backUp(backup, step.pages, 1))
      await Promise.all([...copies, ...backups])
    } else {
      for (const first of this.dropped.slice(-3)) {
        await expect(backup.drop([{ first, count: 1 }])).rejects.toThrow('ESTALE')
        const page = Buffer.alloc(pageSizeBytes)
        await expect(backup.copyPages([{ first, count: 1 }], [page])).rejects.toThrow('ESTALE')
      }
    }
    expect(backup.stats().livePages).toBe(this.pages.size)
  }

  async verify(backup: S3Backup, handles = [...this.pages.keys()]): Promise<void> {
    const memory = Buffer.alloc(handles.length * pageSizeBytes, 0xa5)
    const result = await backup.copyPages(
      handles.map((first) => ({ first, count: 1 })),
      handles.length === 0 ? [] : [memory],
    )
    expect(result).toEqual({ copied: handles.length })
    for (const [index, handle] of handles.entries()) {
      const page = memory.subarray(index * pageSizeBytes, (index + 1) * pageSizeBytes)
      if (!page.equals(this.pages.get(handle)!)) throw new Error(`handle ${handle} gave other bytes`)
    }
  }

  #some({ from, pages, stride }: { from: number; pages: number; stride: number }): number[] {
    const all = [...this.pages.keys()]
    const chosen = new Set<number>()
    for (let index = 0; index < pages && all.length > 0; index++) {
      chosen.add(all[(from + index * stride) % all.length])
    }
    return [...chosen]
  }

  async #backUp(backup: S3Backup, pages: number, cuts: number): Promise<void> {
    const content = randomPages(pages)
    const spans: Buffer[] = []
    for (let page = 0; page < pages; page += Math.ceil(pages / cuts)) {
      const end = Math.min(pages, page + Math.ceil(pages / cuts))
      spans.push(content.subarray(page * pageSizeBytes, end * pageSizeBytes))
    }
    const { handles, error } = await backup.backupPages(spans)
    expect(error).toBeUndefined()
    let page = 0
    for (const { first, count } of handles) {
      for (let handle = first; handle < first + count; handle++, page++) {
        expect(this.pages.has(handle)).toBe(false)
        this.pages.set(handle, content.subarray(page * pageSizeBytes, (page + 1) * pageSizeBytes))
      }
    }
    expect(page).toBe(pages)
  }

  async #drop(backup: S3Backup, handles: readonly number[]): Promise<void> {
    await backup.drop(handles.map((first) => ({ first, count: 1 })))
    for (const handle of handles) {
      this.pages.delete(handle)
      this.dropped.push(handle)
    }
  }
}

async function makeTrouble(): Promise<void> {
  const { faults: server } = target.server!
  await server.always('PutObject', faults.lostAnswer, { chance: 0.08, keyIncludes: '/s-' })
  await server.always('GetObject', faults.cut(), { chance: 0.08, keyIncludes: '/s-' })
  await server.always('any', faults.slowDown, { chance: 0.05 })
  await server.always('DeleteObjects', faults.deleteErrors(), { chance: 0.2 })
}

/** A client that can be cut off: from then on nothing it sends arrives, as if its process had been killed. */
function cuttableClient(fast: boolean): { client: S3Client; cut: () => void } {
  const client = target.client(fast ? { requestHandler: pageHttpHandler() } : {})
  let isCut = false
  client.middlewareStack.add(
    (next) => async (args) => {
      if (isCut) throw Object.assign(new Error('cut off'), { name: 'AccessDenied' })
      return next(args)
    },
    { step: 'finalizeRequest', name: 'cut', priority: 'low' },
  )
  return {
    client,
    cut: () => {
      isCut = true
    },
  }
}

describe('random histories with faults', () => {
  it('T3, T4, T13: a scratch store gives every page back, and leaves nothing', {
    timeout: 600_000,
  }, async () => {
    await makeTrouble()
    let compactions = 0
    await fc.assert(
      fc.asyncProperty(steps, fc.boolean(), async (history, fast) => {
        const prefix = target.prefix()
        const client = target.client(fast ? { requestHandler: pageHttpHandler() } : {})
        const backup = await openOn(target, { ...small, client, prefix })
        const oracle = new Oracle()
        for (const step of history) await oracle.step(backup, step)
        const deadline = performance.now() + 5000
        while (history === halfDropped && backup.stats().compactions === 0 && performance.now() < deadline)
          await new Promise((resolve) => setTimeout(resolve, 5))
        await oracle.verify(backup)
        compactions += backup.stats().compactions
        await backup.close()
        expect(await target.list(prefix)).toEqual([])
      }),
      {
        numRuns: runs + 2,
        endOnFailure: runs < 100,
        examples: [
          [halfDropped, true],
          [halfDropped, false],
        ],
      },
    )
    expect(compactions).toBeGreaterThan(0)
    await target.server!.faults.clear()
  })

  it('a persistent store gives every page back to whoever attaches after a crash or a close', {
    timeout: 600_000,
  }, async () => {
    await makeTrouble()
    const lives = fc.array(fc.record({ history: steps, crash: fc.boolean() }), {
      minLength: 2,
      maxLength: 3,
    })
    await fc.assert(
      fc.asyncProperty(lives, fc.boolean(), async (processes, fast) => {
        const prefix = target.prefix()
        const oracle = new Oracle()
        const keep = { ...small, prefix, persistent: true, leaseMs: 300, ownerWaitMs: 20_000 }
        for (const { history, crash } of processes) {
          const { client, cut } = cuttableClient(fast)
          const backup = await openOn(target, { ...keep, client })
          // A drop that no manifest saw is forgotten by a crash; the application knows what it holds.
          await backup.retainOnly([...oracle.pages.keys()].map((first) => ({ first, count: 1 })))
          await oracle.verify(backup)
          for (const step of history) await oracle.step(backup, step)
          if (crash) {
            cut()
            await backup.close().catch(() => {})
          } else await backup.close()
        }
        const last = await openOn(target, keep)
        await last.retainOnly([...oracle.pages.keys()].map((first) => ({ first, count: 1 })))
        await oracle.verify(last)
        await last.drop(last.liveHandles())
        await last.close()
        // Nothing but what says that the store is empty: one head, the manifest and the one before.
        const left = (await target.list(prefix)).map(({ key }) => key.slice(prefix.length))
        expect(left.filter((key) => /\/s-/.test(key))).toEqual([])
        const isHead = (key: string) => key.startsWith('heads/')
        expect(left.filter((key) => !isHead(key)).length).toBeLessThanOrEqual(2)
        expect(left.filter(isHead).length).toBe(1)
      }),
      { numRuns: Math.ceil(runs / 2), endOnFailure: runs < 100 },
    )
    await target.server!.faults.clear()
  })
})
