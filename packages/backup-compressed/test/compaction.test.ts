import { type Backup, delay, memoryBackup } from '@spillway/core'
import { expect, it } from 'vitest'
import { tamperedBackup } from '../../core/test/support/tampered-backup.ts'
import { compressedBackup } from '../src/index.ts'
import { Places } from '../src/places.ts'
import { contentOf, pageBytes } from './content.ts'

/** A backup whose next calls of a method can be held. */
function held(inner: Backup, method: 'backupPages' | 'copyPages') {
  const backup = tamperedBackup(inner)
  const call = backup[method].bind(backup) as (...parameters: unknown[]) => Promise<never>
  let gate: Promise<void> | undefined
  let open = () => {}
  let waiting = 0
  Object.assign(backup, {
    [method]: async (...parameters: unknown[]) => {
      waiting++
      await gate
      return call(...parameters)
    },
  })
  return {
    backup,
    hold: () => {
      waiting = 0
      gate = new Promise((resolve) => {
        open = resolve
      })
    },
    /** Holds no more calls; those that wait go on waiting. */
    holdNoMore: () => {
      gate = undefined
    },
    release: () => {
      gate = undefined
      open()
    },
    untilWaiting: async () => {
      while (waiting === 0) await delay(1)
    },
  }
}

const everySecond = (handle: number, count: number) =>
  Array.from({ length: count / 2 }, (_, index) => ({ first: handle + 2 * index, count: 1 }))

it('a page that is dropped while its pack is stored anew stays dropped, and its space comes back', async () => {
  const { backup: inner, hold, release, untilWaiting } = held(memoryBackup(), 'backupPages')
  await using backup = compressedBackup(inner, { compactionBytesPerSecond: 2 ** 40 })
  const bytes = contentOf('half', 1, 128)
  const [{ first: handle }] = (await backup.backupPages([bytes])).handles
  hold()
  await backup.drop(everySecond(handle, 128))
  await untilWaiting()
  // A whole unit of the pack that is on its way, and a page of another.
  const dropped = [1, 3, 5, 7, 9, 11, 13, 15, 21].map((page) => ({ first: handle + page, count: 1 }))
  await backup.drop(dropped)
  release()
  for (let waits = 0; backup.stats().compactedBytes === 0 && waits < 500; waits++) await delay(2)
  await delay(5)
  for (let page = 17; page < 128; page += 2) {
    const into = new Uint8Array(pageBytes)
    const result = backup.copyPages([{ first: handle + page, count: 1 }], [into])
    if (page === 21) await expect(result).rejects.toMatchObject({ code: 'ESTALE' })
    else expect(await result).toEqual({ copied: 1 })
    if (page !== 21) expect(into).toEqual(bytes.subarray(page * pageBytes, (page + 1) * pageBytes))
  }
  const rest = Array.from({ length: 64 }, (_, index) => 2 * index + 1).filter(
    (page) => page > 15 && page !== 21,
  )
  await backup.drop(rest.map((page) => ({ first: handle + page, count: 1 })))
  for (let waits = 0; inner.stats().livePages > 0 && waits < 500; waits++) await delay(2)
  expect(inner.stats().livePages).toBe(0)
})

it('a copy under way reads a pack where it was, though another takes its place meanwhile', async () => {
  const { backup: inner, hold, holdNoMore, release, untilWaiting } = held(memoryBackup(), 'copyPages')
  await using backup = compressedBackup(inner, { compactionBytesPerSecond: 2 ** 40 })
  const bytes = contentOf('half', 2, 128)
  const [{ first: handle }] = (await backup.backupPages([bytes])).handles
  hold()
  const into = new Uint8Array(pageBytes)
  const copy = backup.copyPages([{ first: handle + 1, count: 1 }], [into])
  await untilWaiting()
  // Only the copy that waits is held: the compaction that the drop begins goes on.
  holdNoMore()
  await backup.drop(everySecond(handle, 128))
  for (let waits = 0; backup.stats().packedBytes > 40 * pageBytes && waits < 500; waits++) await delay(2)
  expect(backup.stats().packedBytes).toBeLessThanOrEqual(40 * pageBytes)
  // The old pack's pages wait for their reader.
  expect(inner.stats().livePages).toBeGreaterThan(60)
  release()
  expect(await copy).toEqual({ copied: 1 })
  expect(into).toEqual(bytes.subarray(pageBytes, 2 * pageBytes))
  for (let waits = 0; inner.stats().livePages > 40 && waits < 500; waits++) await delay(2)
  expect(inner.stats().livePages).toBeLessThanOrEqual(40)
})

it('an inner backup that will not drop what was replaced is asked again', async () => {
  const inner = tamperedBackup(memoryBackup())
  await using backup = compressedBackup(inner, { compactionBytesPerSecond: 2 ** 40 })
  const [{ first: handle }] = (await backup.backupPages([contentOf('half', 3, 128)])).handles
  const drop = inner.drop.bind(inner)
  let refusals = 0
  await backup.drop(everySecond(handle, 126))
  inner.drop = async (handles) => {
    if (refusals++ < 1) throw new Error('not now')
    return drop(handles)
  }
  for (let waits = 0; inner.stats().livePages > 40 && waits < 2000; waits++) await delay(2)
  expect(inner.stats().livePages).toBeLessThanOrEqual(40)
})

it('what the inner backup refuses to drop is tried again, in however many runs it is', async () => {
  await using inner = memoryBackup({ capacityBytes: 2 ** 30 })
  let isRefusing = true
  const refusing: Backup = Object.assign(Object.create(inner), {
    drop: async () => {
      if (isRefusing) throw new Error('not now')
    },
  })
  const places = new Places({ backup: 'compressed', inner: refusing, packPages: 64 })
  // More than a call takes as arguments.
  const runs = Array.from({ length: 150_000 }, (_, run) => ({ first: 2 * run, count: 1 }))
  for (const { first } of runs) places.packPages.adopt({ first, count: 1, handle: first + 1 })
  await places.discard(runs)
  expect(places.refusedHandles).toBe(150_000)
  isRefusing = false
  await places.retryRefused()
  expect(places.refusedHandles).toBe(0)
})
