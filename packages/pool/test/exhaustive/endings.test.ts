import { type Backup, faultyBackup, kernelFaults, memoryBackup } from '@spillway/core'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { Pool } from '../../src/index.ts'
import { VirtualTime } from '../model/virtual-time.ts'
import { firstDifference, page, pattern } from '../support/bytes.ts'
import {
  atomicBackup,
  backup,
  codeOf,
  copy,
  evict,
  type Operation,
  pin,
  read,
  restore,
  setLimit,
  shrink,
  write,
} from './support/operations.ts'
import { failed, sizes } from './support/run.ts'
import { Scene, type SceneOptions } from './support/scene.ts'
import { fewestChunks } from './support/shapes.ts'

const time = new VirtualTime()
beforeAll(() => time.install())
afterAll(() => time.uninstall())

/** Chunks in every state, small batches and several calls in flight: many points at which something else can happen. */
const options: SceneOptions = {
  shape: [
    { order: 2, state: 'dirty' },
    { order: 2, state: 'partial' },
    { order: 1, state: 'clean' },
    { order: 1, state: 'dirty' },
    { order: 2, state: 'stored' },
    { order: 0, state: 'dirty' },
    { order: 0, state: 'empty' },
  ],
  maxOrder: 3,
  limitPages: 24,
  backup: { batchPages: 3, callsInFlight: 2 },
}
const operations: readonly Operation[] = [
  backup,
  atomicBackup,
  restore,
  read,
  pin,
  write,
  copy,
  evict,
  shrink,
  setLimit,
]

/** The backup takes a moment for each page. */
async function slowScene(): Promise<Scene> {
  const scene = await Scene.build(options, time)
  scene.backup.script = () => Promise.resolve(undefined)
  return scene
}

/** Microtask ticks until an operation has ended by itself. */
async function ticksOf(operation: Operation): Promise<number> {
  const scene = await slowScene()
  let ended = false
  const running = operation.run(scene).then(() => {
    ended = true
  })
  let ticks = 0
  for (; !ended && ticks < 2000; ticks++) await tick(ticks)
  await running
  await scene.finish()
  return ticks
}

/** Mostly a microtask; a turn of the event loop from time to time, for what waits for one. */
async function tick(number: number): Promise<void> {
  if (number % 50 === 49) await new Promise((resolve) => setImmediate(resolve))
  else await undefined
}

async function afterTicks(ticks: number, call: () => Promise<void>): Promise<void> {
  for (let passed = 0; passed < ticks; passed++) await tick(passed)
  await call()
}

describe('an end at every microtask of an operation', () => {
  for (const operation of operations) {
    it(`T19, T49, T50, I2, I3, I9, I12: close() while a ${operation.name} runs`, async () => {
      const ticks = await ticksOf(operation)
      expect(ticks).toBeGreaterThan(0)
      for (let at = 0; at <= ticks; at++) {
        const scene = await slowScene()
        try {
          const running = operation.run(scene).catch((error: unknown) => ({ error }))
          const closing = afterTicks(at, async () => {
            // Pins are refused, and are gone a moment later.
            for (let attempt = 0; attempt < 50; attempt++) {
              const refused = await scene.pool.close().catch((error: unknown) => error)
              if (refused === undefined) return
              if (codeOf(refused) !== 'EBUSY') throw refused
            }
          })
          const [{ error }] = await Promise.all([running, closing])
          if (error !== undefined && error !== 'stopped' && codeOf(error) !== 'EBADF') throw error
          await scene.pool.close()
          await scene.check()
          scene.checkEmpty()
        } catch (failure) {
          throw failed(failure, options, operation, `close after ${at} of ${ticks} ticks`)
        }
      }
    })
  }

  for (const operation of operations.filter(({ name }) => !['setLimit', 'shrink'].includes(name))) {
    it(`T49, T50, I1, I3, I9: free() while a ${operation.name} runs`, async () => {
      const ticks = await ticksOf(operation)
      for (let at = 0; at <= ticks; at++) {
        const scene = await slowScene()
        try {
          const running = operation.run(scene).catch((error: unknown) => ({ error }))
          const freeing = afterTicks(at, async () => {
            for (let attempt = 0; attempt < 50 && !scene.buffer.freed; attempt++) {
              const refused = await scene.buffer.free().catch((error: unknown) => error)
              if (refused !== undefined && codeOf(refused) !== 'EBUSY') throw refused
            }
          })
          const [{ error }] = await Promise.all([running, freeing])
          if (error !== undefined && codeOf(error) !== 'EBADF') throw error
          expect(scene.buffer.residentBytes + scene.buffer.backedUpBytes).toBe(0)
          await scene.check()
          // Bytes of a copy that was stopped are old or new; the target is given up unread.
          if (operation === copy && error !== undefined) await scene.others.pop()?.buffer.free()
          await scene.finish()
        } catch (failure) {
          throw failed(failure, options, operation, `free after ${at} of ${ticks} ticks`)
        }
      }
    })
  }

  for (const operation of operations.filter(({ name }) => name !== 'shrink')) {
    it(`T6, T43, I1, I9: an abort while a ${operation.name} runs, then the same again`, async () => {
      const ticks = await ticksOf(operation)
      for (let at = 0; at <= ticks; at++) {
        const scene = await slowScene()
        const controller = new AbortController()
        try {
          const running = operation.run(scene, controller.signal)
          await afterTicks(at, async () => controller.abort(new Error('enough')))
          const { error } = await running
          if (error !== undefined && codeOf(error) !== 'EINTR') throw error
          await scene.check()
          const again = await operation.run(scene)
          if (again.error !== undefined) throw again.error
          await scene.check()
          await scene.finish()
        } catch (failure) {
          throw failed(failure, options, operation, `abort after ${at} of ${ticks} ticks`)
        }
      }
    })
  }
})

describe("the kernel's own fault injection", () => {
  it('T44, T37, T43, I9: half of the pages at a time, every second copy interrupted, for 1 to 64 pages', async () => {
    for (const pageCount of sizes) {
      for (const maxOrder of [0, 3, 6]) {
        const inner: Backup = memoryBackup({ capacityBytes: 65 * page })
        const faulty = faultyBackup(inner, kernelFaults)
        await using pool = new Pool({
          limitBytes: 128 * page,
          maxOrder,
          provider: 'resizable',
          backup: faulty,
          background: false,
        })
        const buffer = await pool.allocate(pageCount * page)
        const bytes = pattern(pageCount * page, pageCount)
        await buffer.write(0, bytes)
        // Half of what is left, rounded up: one page is done whole.
        for (let left = pageCount; left > 0; left -= Math.ceil(left / 2)) {
          const { pages, error } = await buffer.backup()
          expect(pages).toBe(Math.ceil(left / 2))
          expect(codeOf(error)).toBe(left === 1 ? undefined : 'ENOMEM')
          expect(pool.verify()).toEqual([])
        }
        expect(inner.stats().livePages).toBe(pageCount)
        const { signal } = new AbortController()
        let attempts = 0
        for (let error: unknown = 'not yet'; error !== undefined; attempts++) {
          error = (await buffer.restore({ signal })).error
          if (error !== undefined) expect(codeOf(error)).toBe('EINTR')
          expect(attempts).toBeLessThanOrEqual(pageCount + 1)
        }
        expect(inner.stats().copiedPages).toBe(pageCount)
        const found = new Uint8Array(bytes.byteLength)
        await buffer.read(0, found)
        expect(firstDifference(found, bytes)).toBe(-1)
        await buffer.free()
        expect(inner.stats().livePages).toBe(0)
      }
    }
  })

  it('T11, T38, T44: a chunk that is stored in half or by its first page is split there', async () => {
    for (const stop of ['first of chunk', 'half of chunk'] as const) {
      for (let pageCount = 2; pageCount <= 64; pageCount += 3) {
        const inner = memoryBackup({ capacityBytes: 65 * page })
        const faulty = faultyBackup(inner, { faults: [{ method: 'backupPages', stop, code: 'ENOMEM' }] })
        await using pool = new Pool({
          limitBytes: 64 * page,
          maxOrder: 6,
          provider: 'resizable',
          backup: faulty,
        })
        const buffer = await pool.allocate(pageCount * page)
        const bytes = pattern(pageCount * page, pageCount)
        await buffer.write(0, bytes)
        let calls = 0
        for (let left = buffer.residentBytes; left > 0; left = buffer.residentBytes, calls++) {
          const { pages } = await buffer.backup()
          expect(pages * page).toBe(left - buffer.residentBytes)
          expect(calls).toBeLessThanOrEqual(pageCount)
          expect(pool.verify()).toEqual([])
        }
        expect(buffer.backedUpBytes).toBe(pageCount * page)
        const found = new Uint8Array(bytes.byteLength)
        await buffer.read(0, found)
        expect(firstDifference(found, bytes)).toBe(-1)
        await buffer.free()
        expect(inner.stats().livePages).toBe(0)
      }
    }
  })
})

describe('what is done twice', () => {
  it('I12, T19, T54: a second backup, restore, purge, close is harmless, a second free is refused', async () => {
    for (let pageCount = 1; pageCount <= 64; pageCount += 7) {
      const scene = await Scene.build({ shape: fewestChunks(pageCount, 'dirty'), maxOrder: 6 }, time)
      const { buffer, pool } = scene
      expect([await buffer.backup(), await buffer.backup()]).toEqual([{ pages: pageCount }, { pages: 0 }])
      expect([await buffer.restore(), await buffer.restore()]).toEqual([{ pages: pageCount }, { pages: 0 }])
      expect([await buffer.purge(), await buffer.purge()]).toEqual([{ pages: pageCount }, { pages: 0 }])
      await buffer.free()
      await expect(buffer.free()).rejects.toMatchObject({ code: 'EBADF' })
      await Promise.all([pool.close(), pool.close()])
      await pool.close()
      scene.checkEmpty()
    }
  })
})
