import { mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync, statSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { openShmemBackup, type ShmemBackup } from '../src/index.ts'
import { media } from './media.ts'
import { TestProcess } from './processes/process.ts'

const MiB = 2 ** 20

/** Shared memory that is mapped into this process. */
function processSharedBytes(): number {
  return Number(/RssShmem:\s+(\d+)/.exec(readFileSync('/proc/self/status', 'latin1'))![1]) * 1024
}

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setTimeout(resolve, 2))
}

/** Pages that differ from each other, cheaply: the conformance suite looks at every byte. */
function patterned(lengthBytes: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(lengthBytes)
  const words = new Uint32Array(bytes.buffer)
  for (let page = 0; page < lengthBytes / 4096; page++)
    words.fill(page * 0x01000193 + 1, page * 1024, (page + 1) * 1024)
  return bytes
}

for (const [medium, options] of Object.entries(media)) {
  const open = (more: object = {}) => openShmemBackup({ capacityBytes: 256 * MiB, ...options(), ...more })
  const store = async (backup: ShmemBackup, bytes: Uint8Array) => {
    const { handles, error } = await backup.backupPages([bytes])
    expect(error).toBeUndefined()
    return handles
  }

  describe(`memory (${medium})`, () => {
    it('T10: is taken as pages are stored, and given back at close', async () => {
      const before = processSharedBytes()
      const backup = await open()
      // A shared file begins with its header.
      expect(backup.stats().mediumBytes).toBeLessThanOrEqual(4096)
      await store(backup, patterned(32 * MiB))
      expect(backup.stats().mediumBytes).toBeGreaterThanOrEqual(32 * MiB)
      expect(backup.stats().mediumBytes).toBeLessThan(33 * MiB)
      await backup.close()
      expect(backup.stats()).toMatchObject({ mediumBytes: 0, livePages: 0, leakedPages: 8192 })
      expect(processSharedBytes() - before).toBeLessThan(4 * MiB)
    })

    it('of dropped pages stays warm up to warmBytes; the rest goes back', async () => {
      const unit = medium === 'tmpfs' ? 16 * MiB : medium === 'shared, by calls' ? 256 * MiB : 4096
      await using backup = await open({ warmBytes: 8 * MiB })
      const handles = await store(backup, patterned(32 * MiB))
      await backup.drop(handles)
      await until(() => backup.stats().warmBytes <= 8 * MiB)
      const { mediumBytes, warmBytes, givenBackBytes } = backup.stats()
      expect(warmBytes).toBeGreaterThanOrEqual(unit > 8 * MiB ? 0 : 8 * MiB)
      expect(warmBytes + givenBackBytes).toBe(32 * MiB)
      expect(mediumBytes).toBeLessThan(9 * MiB)
      const bytes = patterned(32 * MiB)
      const again = await store(backup, bytes)
      const into = new Uint8Array(32 * MiB)
      expect(await backup.copyPages(again, [into])).toEqual({ copied: 8192 })
      expect(Buffer.compare(into, bytes)).toBe(0)
    })

    it('T4: goes back around pages that are live, and leaves them alone', async () => {
      await using backup = await open({ warmBytes: 0 })
      const bytes = patterned(40 * MiB)
      const [run] = await store(backup, bytes)
      // Of every 64 pages keep one; and keep none of the second half.
      const kept = Array.from({ length: 80 }, (_, index) => index * 64)
      await backup.drop([
        ...kept.map((page) => ({ first: run.first + page + 1, count: 63 })),
        { first: run.first + 5120, count: 5120 },
      ])
      if (medium === 'memfd' || medium === 'shared, mapped') {
        await until(() => backup.stats().warmBytes === 0)
        expect(backup.stats().mediumBytes).toBeLessThan(MiB)
      } else if (medium === 'tmpfs') {
        // Files of 16 MiB: the third holds no live page any more.
        await until(() => backup.stats().givenBackBytes === 8 * MiB)
        expect(backup.stats().mediumBytes).toBeLessThanOrEqual(33 * MiB)
      }
      for (const page of kept) {
        const into = new Uint8Array(4096)
        const result = await backup.copyPages([{ first: run.first + page, count: 1 }], [into])
        expect(result).toEqual({ copied: 1 })
        expect(Buffer.compare(into, bytes.subarray(page * 4096, (page + 1) * 4096))).toBe(0)
      }
      expect(backup.stats().giveBackErrors).toBe(0)
    })

    it('is given back by close while some is still going back', async () => {
      const backup = await open({ warmBytes: 0 })
      const handles = await store(backup, patterned(32 * MiB))
      await backup.drop(handles)
      await backup.close()
      expect(backup.stats()).toMatchObject({ mediumBytes: 0, leakedPages: 0 })
    })

    it('T8, T84: of a reservation is really there, and nobody reads it', async () => {
      await using backup = await open()
      const secret = await store(backup, patterned(MiB))
      await backup.drop(secret)
      const reservation = await backup.reserve(32 * MiB)
      expect(backup.stats().mediumBytes).toBeGreaterThanOrEqual(32 * MiB)
      expect(backup.stats()).toMatchObject({ reservedBytes: 32 * MiB, livePages: 0 })
      const { handles } = await backup.backupPages([patterned(4096)], { reservation })
      expect(reservation.bytes).toBe(32 * MiB - 4096)
      const neighbour = { first: handles[0].first + 1, count: 1 }
      const copy = backup.copyPages([neighbour], [new Uint8Array(4096)])
      await expect(copy).rejects.toMatchObject({ code: 'ESTALE', handle: neighbour.first })
      await expect(backup.drop([neighbour])).rejects.toMatchObject({ code: 'ESTALE' })
      await reservation.release()
      expect(backup.stats()).toMatchObject({ reservedBytes: 0, livePages: 1 })
    })

    it('of a reservation that was released during a call goes back with what the call leaves', async () => {
      await using backup = await open()
      const free = await backup.bytesAvailable()
      const reservation = await backup.reserve(32 * MiB)
      const controller = new AbortController()
      const call = backup.backupPages([patterned(32 * MiB)], { reservation, signal: controller.signal })
      await reservation.release()
      controller.abort()
      const { handles } = await call
      await backup.drop(handles)
      expect(backup.stats().reservedBytes).toBe(0)
      expect(reservation.bytes).toBe(0)
      expect(await backup.bytesAvailable()).toBe(free)
    })

    it('costs at most 5 bytes of bookkeeping for each live page', async () => {
      await using backup = await open()
      const before = backup.stats().metadataBytes
      await store(backup, new Uint8Array(64 * MiB))
      const perPage = (backup.stats().metadataBytes - before) / 16384
      expect(perPage).toBeLessThan(5)
    })

    it('lets the event loop turn while a long call runs', async () => {
      await using backup = await open()
      const bytes = patterned(64 * MiB)
      let turns = 0
      let running = true
      const count = () => {
        turns++
        if (running) setImmediate(count)
      }
      setImmediate(count)
      const handles = await store(backup, bytes)
      // A turn copies half a millisecond and a slice: no memory copies 64 MiB in three of them.
      expect(turns).toBeGreaterThan(3)
      turns = 0
      await backup.copyPages(handles, [bytes])
      expect(turns).toBeGreaterThan(3)
      running = false
    })

    it('refuses memory that was detached during the call', async () => {
      await using backup = await open()
      const bytes = patterned(32 * MiB)
      const call = backup.backupPages([bytes])
      structuredClone(bytes.buffer, { transfer: [bytes.buffer] })
      const { handles, error } = await call
      expect(error).toMatchObject({ code: 'EFAULT' })
      await backup.drop(handles)
      expect(backup.stats().livePages).toBe(0)
    })
  })
}

describe('kill -9', () => {
  it.each(['memfd', 'tmpfs'] as const)(
    'of a process with pages in a %s leaves nothing, because they never had a name',
    async (medium) => {
      const directory = mkdtempSync('/dev/shm/spillway-test-')
      await using owner = new TestProcess()
      await owner.call('open', { capacityBytes: 64 * MiB, medium, directory })
      await owner.call('store', 5, 4096)
      const files = readdirSync(`/proc/${owner.pid}/fd`)
        .map((fd) => {
          const path = `/proc/${owner.pid}/fd/${fd}`
          // Sockets and the directory that is just being read have no size, or are gone by now.
          const found = statSync(path, { throwIfNoEntry: false })
          return found?.isFile() && found.blocks * 512 >= 16 * MiB ? readlinkSync(path) : ''
        })
        .filter((path) => path !== '')
      expect(files).toHaveLength(1)
      expect(files[0]).toMatch(
        medium === 'memfd' ? /^\/memfd:.* \(deleted\)$/ : /^\/dev\/shm\/.* \(deleted\)$/,
      )
      expect(readdirSync(directory)).toEqual([])
      await owner.kill()
      expect(readdirSync(directory)).toEqual([])
      rmSync(directory, { recursive: true })
    },
  )
})
