import { mkdtempSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { type HandleRun, SlotAllocator } from '@spillway/core'
import { describe, expect, it } from 'vitest'
import { Headroom } from '../src/headroom.ts'
import { attachShmemBackup, openShmemBackup } from '../src/index.ts'
import type { Medium } from '../src/media/medium.ts'
import { ShmemBackup } from '../src/shmem-backup.ts'
import { canMountTmpfs, inSmallTmpfs, mountEnvironment, TestProcess } from './processes/process.ts'

const pageSizeBytes = 4096
const capacityPages = 6

/** Memory that fails at one call. Stores what it was given, and knows which parts have backing. */
class FailingMedium implements Medium {
  readonly kind = 'memfd'
  readonly access = 'mapped'
  readonly giveBackUnitBytes = 4096
  readonly backsOnWrite: boolean
  calls = 0
  failAt = -1
  code = 'EIO'
  readonly #bytes = new Uint8Array(pageSizeBytes * capacityPages)
  readonly #backed = new Set<number>()

  constructor(backsOnWrite: boolean) {
    this.backsOnWrite = backsOnWrite
  }

  heldBytes(): number {
    return this.#backed.size * pageSizeBytes
  }

  back(offsetBytes: number, lengthBytes: number): void {
    this.#step()
    this.#each(offsetBytes, lengthBytes, (page) => this.#backed.add(page))
  }

  write(offsetBytes: number, from: Uint8Array, fromBytes: number, lengthBytes: number): void {
    this.#step()
    this.#each(offsetBytes, lengthBytes, (page) => {
      if (this.backsOnWrite) this.#backed.add(page)
      // What a real mapping would answer with SIGBUS.
      else expect(this.#backed.has(page)).toBe(true)
    })
    this.#bytes.set(from.subarray(fromBytes, fromBytes + lengthBytes), offsetBytes)
  }

  read(offsetBytes: number, into: Uint8Array, intoBytes: number, lengthBytes: number): void {
    this.#step()
    into.set(this.#bytes.subarray(offsetBytes, offsetBytes + lengthBytes), intoBytes)
  }

  giveBack(offsetBytes: number, lengthBytes: number): void {
    this.#step()
    this.#bytes.fill(0, offsetBytes, offsetBytes + lengthBytes)
    this.#each(offsetBytes, lengthBytes, (page) => this.#backed.delete(page))
  }

  close(): void {
    this.#backed.clear()
  }

  #step(): void {
    if (this.calls++ === this.failAt) throw Object.assign(new Error('injected'), { code: this.code })
  }

  #each(offsetBytes: number, lengthBytes: number, visit: (page: number) => void): void {
    for (let page = offsetBytes / pageSizeBytes; page < (offsetBytes + lengthBytes) / pageSizeBytes; page++) {
      visit(page)
    }
  }
}

const page = (fill: number) => new Uint8Array(pageSizeBytes).fill(fill)
const count = (handles: readonly HandleRun[]) => handles.reduce((sum, run) => sum + run.count, 0)

/** Stores, copies, drops and reserves; what fails is called again. Returns how many calls the medium saw. */
async function history(medium: FailingMedium, warmBytes: number): Promise<number> {
  const system = { procDirectory: '/nowhere', cgroupDirectory: '/nowhere' }
  const backup = new ShmemBackup({
    name: 'faulty',
    pageSizeBytes,
    // Every page is a step of its own.
    sliceBytes: pageSizeBytes,
    capacityBytes: pageSizeBytes * capacityPages,
    warmBytes,
    medium,
    mediumReason: 'a test',
    headroom: new Headroom({ ...system, backup: 'faulty' }),
    slots: new SlotAllocator({ capacitySlots: capacityPages }),
  })
  const free = await backup.bytesAvailable()
  for (let round = 0; round < 2; round++) {
    const spans = [1, 2, 3, 4].map((fill) => page(fill + round))
    const handles: HandleRun[] = []
    for (let attempt = 0; count(handles) < 4; attempt++) {
      expect(attempt).toBeLessThan(2)
      const result = await backup.backupPages(spans.slice(count(handles)))
      handles.push(...result.handles)
      expect(result.error === undefined).toBe(count(handles) === 4)
      expect(backup.stats().livePages).toBe(count(handles))
      expect(await backup.bytesAvailable()).toBe(free - count(handles) * pageSizeBytes)
      if (result.error !== undefined) expect(result.error).toMatchObject({ code: medium.code })
    }
    let copy = await backup.copyPages(handles, [page(0), page(0), page(0), page(0)])
    if (copy.error !== undefined) {
      expect(copy.error).toMatchObject({ code: medium.code })
      expect(copy.copied).toBeLessThan(4)
    }
    const into = page(0)
    for (const [index, fill] of [1, 2, 3, 4].entries()) {
      const handle = handles.flatMap((run) => Array.from({ length: run.count }, (_, at) => run.first + at))[
        index
      ]
      copy = await backup.copyPages([{ first: handle, count: 1 }], [into])
      if (copy.error !== undefined) copy = await backup.copyPages([{ first: handle, count: 1 }], [into])
      expect(copy).toEqual({ copied: 1 })
      expect(Buffer.compare(into, page(fill + round))).toBe(0)
    }
    await backup.drop(handles)
    expect(await backup.bytesAvailable()).toBe(free)
    const reservation = await backup.reserve(3 * pageSizeBytes).catch((error: { code: string }) => {
      expect(error.code).toBe(medium.code)
      return undefined
    })
    await reservation?.release()
    expect(await backup.bytesAvailable()).toBe(free)
    expect(backup.stats()).toMatchObject({ livePages: 0, reservedBytes: 0 })
  }
  await backup.close()
  expect(backup.stats()).toMatchObject({ leakedPages: 0, mediumBytes: 0 })
  return medium.calls
}

for (const backsOnWrite of [false, true]) {
  for (const warmBytes of [0, 2 ** 30]) {
    describe(`a medium that fails (backs on write: ${backsOnWrite}, warm: ${warmBytes})`, () => {
      it('T2, I3, I11: at any call with any code loses no page and no room', async () => {
        const calls = await history(new FailingMedium(backsOnWrite), warmBytes)
        expect(calls).toBeGreaterThan(20)
        for (let failAt = 0; failAt < calls; failAt++) {
          for (const code of failAt % 2 === 0 ? ['ENOSPC', 'EWEIRD'] : ['EIO']) {
            const medium = new FailingMedium(backsOnWrite)
            medium.failAt = failAt
            medium.code = code
            await history(medium, warmBytes)
          }
        }
      })
    })
  }
}

describe('a tmpfs that is full', () => {
  // Where mounting is forbidden the failing medium above stands for it.
  const probe = mkdtempSync('/dev/shm/spillway-test-')
  const media = canMountTmpfs(probe) ? (['auto', 'tmpfs'] as const) : []
  rmSync(probe, { recursive: true })

  for (const medium of media) {
    for (const isShared of [true, false]) {
      it(`is ENOSPC and never SIGBUS (${medium}, ${isShared ? 'shared' : 'unnamed'})`, async () => {
        const directory = mkdtempSync('/dev/shm/spillway-test-')
        await using owner = new TestProcess(inSmallTmpfs, mountEnvironment(directory))
        const shared = isShared ? { name: 'one' } : undefined
        const options = {
          capacityBytes: 64 * 2 ** 20,
          directory,
          medium: isShared ? medium : 'tmpfs',
          shared,
        } as const
        await owner.call('open', options)
        await expect(owner.call('store', 1, 4096)).rejects.toMatchObject({ code: 'ENOSPC' })
        const { code } = await owner.call('storeWhileOthersFill', join(directory, 'filler'), 1024)
        expect(code).toBe('ENOSPC')
        await owner.call('close')
        await owner.kill()
        rmSync(directory, { recursive: true })
      })
    }
  }

  for (const medium of media) {
    it(`takes the warm slots of dropped pages when the cold ones cannot be had (${medium})`, async () => {
      const directory = mkdtempSync('/dev/shm/spillway-test-')
      await using owner = new TestProcess(inSmallTmpfs, mountEnvironment(directory))
      await owner.call('open', { capacityBytes: 64 * 2 ** 20, directory, medium, shared: { name: 'one' } })
      // Runs of 5 pages: what is left of a region fits better than any of them.
      const stored = []
      for (;;) {
        const handles = await owner.call('store', 1, 5).catch(() => undefined)
        if (handles === undefined) break
        stored.push(handles)
      }
      const dropped = stored.filter((_, index) => index % 2 === 0)
      for (const handles of dropped) await owner.call('drop', [...handles])
      const again = await owner.call('store', 2, dropped.length * 5)
      const pages = again.reduce((sum, { count }) => sum + count, 0)
      expect(pages).toBe(dropped.length * 5)
      expect(await owner.call('reserve', 4096)).toBe('ENOSPC')
      await owner.call('drop', [...again])
      expect(await owner.call('reserve', pages * 4096)).toBe(pages * 4096)
      await owner.call('close')
      await owner.kill()
      rmSync(directory, { recursive: true })
    })
  }

  it('T8: is known before it is used', async () => {
    await using backup = await openShmemBackup({
      capacityBytes: 2 ** 45,
      shared: { name: 'spillway-test-large' },
      warmBytes: 0,
    })
    expect(await backup.bytesAvailable()).toBeLessThan(2 ** 45)
    await expect(backup.reserve(2 ** 44)).rejects.toMatchObject({ code: 'ENOSPC' })
    await using attached = await attachShmemBackup({ name: 'spillway-test-large' })
    expect(attached.capacityBytes).toBe(2 ** 45)
  })
})
