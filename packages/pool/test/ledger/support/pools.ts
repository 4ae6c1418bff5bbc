import { type FaultyBackup, faultyBackup, memoryBackup } from '@spillway/core'
import { expect } from 'vitest'
import {
  type AllocateOptions,
  type Caching,
  type PagedBuffer,
  Pool,
  type PoolOptions,
} from '../../../src/index.ts'
import { firstDifference, page, pattern } from '../../support/bytes.ts'
import { FakeProvider } from '../../support/fake-provider.ts'

/** A pool of chunks of at most 8 pages over memory and a backup that write down what they are asked. */
export interface Subject extends AsyncDisposable {
  readonly pool: Pool
  readonly provider: FakeProvider
  readonly backup: FaultyBackup
  /** A buffer full of known bytes; `seed` makes them. */
  filled(pages: number, seed?: number, options?: AllocateOptions): Promise<PagedBuffer>
  /** Idle chunks of a kind. */
  idle(caching: Caching, order: number): number
}

export interface SubjectOptions extends Partial<PoolOptions> {
  readonly provider?: FakeProvider
  readonly capacityPages?: number
}

/** Ends with every page back at the provider, every mapping ended and every handle dropped (I2, I3, I4). */
export function subjectPool(options: SubjectOptions = {}): Subject {
  const { capacityPages = 1000, provider = new FakeProvider(), ...poolOptions } = options
  const backup = faultyBackup(memoryBackup({ capacityBytes: capacityPages * page }))
  const limitBytes = 64 * page
  const pool = new Pool({
    limitBytes,
    maxOrder: 3,
    idleBytes: typeof poolOptions.limitBytes === 'number' ? poolOptions.limitBytes : limitBytes,
    background: false,
    backup,
    ...poolOptions,
    provider,
  })
  return {
    pool,
    provider,
    backup,
    async filled(pages, seed = 1, allocateOptions = {}) {
      const buffer = await pool.allocate(pages * page, allocateOptions)
      await buffer.write(0, pattern(pages * page, seed))
      return buffer
    },
    idle(caching, order) {
      const list = pool.dump().freeLists.find((candidate) => candidate.caching === caching)
      return list!.chunksByOrder[order]!
    },
    async [Symbol.asyncDispose]() {
      backup.heal()
      provider.refuse = () => false
      provider.failCaching = false
      provider.mapsUntilFailure = Number.POSITIVE_INFINITY
      expect(pool.verify()).toEqual([])
      await pool.close()
      expect(provider.pagesOut).toBe(0)
      expect(provider.mappings.size).toBe(0)
      expect(backup.stats().livePages).toBe(0)
      await backup.close()
    },
  }
}

/** Reads a whole buffer that `filled` made and compares. */
export async function expectFilled(buffer: PagedBuffer, seed = 1): Promise<void> {
  const found = new Uint8Array(buffer.sizeBytes)
  await buffer.read(0, found)
  expect(firstDifference(found, pattern(buffer.sizeBytes, seed))).toBe(-1)
}

/** Whether all of a buffer reads as zeros. */
export async function expectZeros(buffer: PagedBuffer): Promise<void> {
  const found = new Uint8Array(buffer.sizeBytes).fill(0xee)
  await buffer.read(0, found)
  expect(found.every((byte) => byte === 0)).toBe(true)
}

/** The orders of the chunks that hold a buffer. */
export async function ordersOf(buffer: PagedBuffer): Promise<number[]> {
  using pin = await buffer.pin()
  return pin.spans.map((span) => Math.log2(span.byteLength / page))
}

export const code = (failure: unknown) => (failure as { code?: string } | undefined)?.code
