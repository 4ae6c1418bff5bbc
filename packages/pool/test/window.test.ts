import { tracingChannel } from 'node:diagnostics_channel'
import { inspect } from 'node:util'
import { faultyBackup, memoryBackup } from '@spillway/core'
import { expect, it } from 'vitest'
import { livePools, mapStates, Pool, type TracedCall } from '../src/index.ts'

const page = 4096
const block = 4 * page

function makePool(limitPages = 64, backup = memoryBackup({ capacityBytes: 2 ** 22 })): Pool {
  return new Pool({
    ...{ name: 'seen', limitBytes: limitPages * page, maxOrder: 2, provider: 'resizable', background: false },
    backup,
  })
}

const words = (map: Uint8Array) => [...map].map((state) => mapStates[state])

it('a map tells for each largest block whether it is empty, clean, dirty, pinned, stored or mixed', async () => {
  await using pool = makePool()
  const buffer = await pool.allocate(7 * block)
  const full = new Uint8Array(block).fill(1)
  for (const index of [1, 2, 3, 4]) await buffer.write(index * block, full)
  await buffer.backup()
  await buffer.read(2 * block, new Uint8Array(block))
  await buffer.write(3 * block, full)
  using pin = await buffer.pin({ offset: 4 * block, length: page })
  await buffer.write(5 * block, full.subarray(0, page))
  expect(words(buffer.map())).toEqual(['empty', 'stored', 'clean', 'dirty', 'pinned', 'dirty', 'empty'])
  pin.release()
  const small = await pool.allocate(2 * block, { maxOrder: 0 })
  expect(small.map()).toHaveLength(8)
})

it('a block of which a full backup took some pages is mixed', async () => {
  await using pool = makePool(64, memoryBackup({ capacityBytes: 2 * page }))
  const buffer = await pool.allocate(block)
  await buffer.write(0, new Uint8Array(block).fill(1))
  expect((await buffer.backup()).error).toMatchObject({ code: 'ENOSPC' })
  expect(words(buffer.map())).toEqual(['mixed'])
  expect(pool.maps()).toMatchObject([{ sizeBytes: block, cellBytes: block, cells: buffer.map() }])
})

it('maps of a pool look at no more cells than they are told to', async () => {
  await using pool = makePool()
  await pool.allocate(1000 * block, { label: 'large' })
  await pool.allocate(2 * block, { label: 'small' })
  const maps = pool.maps({ cellsPerBuffer: 100 })
  expect(maps.map(({ label, cells, cellBytes }) => [label, cells.length, cellBytes / block])).toEqual([
    ['large', 100, 10],
    ['small', 2, 1],
  ])
  expect(pool.maps({ cells: 101, cellsPerBuffer: 100 })).toHaveLength(1)
  expect(() => pool.maps({ cellsPerBuffer: 0 })).toThrow(RangeError)
})

it('pools that are open are listed until they are closed', async () => {
  const before = livePools().length
  const pool = makePool()
  expect(livePools()).toHaveLength(before + 1)
  expect(livePools()).toContain(pool)
  expect(await pool.close()).toBeUndefined()
  expect(livePools()).not.toContain(pool)
})

it('inspecting a pool or a buffer says what it holds', async () => {
  const pool = makePool()
  const buffer = await pool.allocate(block, { label: 'frames' })
  expect(inspect(pool)).toMatch(/^Pool 'seen' \(limit 262144 bytes, .* 1 buffers\)$/)
  expect(inspect({ buffer })).toContain("PagedBuffer 'frames' (16384 bytes: 0 in memory")
  await pool.close()
  expect(inspect(pool)).toContain('closed')
  expect(inspect(buffer)).toContain('freed')
  expect(() => buffer.map()).toThrow('EBADF')
})

it('tracing tells of calls that move pages, with bytes, durations and errors, and stops when nobody listens', async () => {
  const seen: string[] = []
  const ended: TracedCall[] = []
  const names = ['pool:page-out', 'pool:page-in', 'backup:backup-pages', 'backup:copy-pages']
  const stops = names.map((name) => {
    const channel = tracingChannel(`spillway:${name}`)
    const subscribers = {
      start: () => seen.push(`${name} start`),
      asyncEnd: (call: unknown) => {
        seen.push(`${name} end`)
        ended.push(call as TracedCall)
      },
      error: () => seen.push(`${name} error`),
    } as unknown as Parameters<typeof channel.subscribe>[0]
    channel.subscribe(subscribers)
    return () => channel.unsubscribe(subscribers)
  })
  const faulty = faultyBackup(memoryBackup({ capacityBytes: 2 ** 22 }))
  await using pool = makePool(64, faulty as never)
  const buffer = await pool.allocate(block, { label: 'frames' })
  await buffer.write(0, new Uint8Array(block).fill(1))
  await buffer.backup()
  await buffer.read(0, new Uint8Array(page))
  for (const stop of stops) stop()
  await buffer.write(0, new Uint8Array(block).fill(2))
  await buffer.backup()
  expect(seen).toEqual([
    'pool:page-out start',
    'backup:backup-pages start',
    'backup:backup-pages end',
    'pool:page-out end',
    'pool:page-in start',
    'backup:copy-pages start',
    'backup:copy-pages end',
    'pool:page-in end',
  ])
  expect(ended[1]).toMatchObject({ pool: 'seen', backup: faulty.name, pages: 4, bytes: block, movedPages: 4 })
  expect(ended[3]).toMatchObject({ pool: 'seen', buffer: 'frames', movedBytes: block })
  for (const { durationMs } of ended) expect(durationMs).toBeGreaterThanOrEqual(0)
})
