import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { openFileBackup } from '@spillway/backup-file'
import { type Backup, memoryBackup } from '@spillway/core'
import { Pool } from '@spillway/pool'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { tileServer } from '../src/server.ts'
import { type Place, TileCache } from '../src/tile-cache.ts'

const mebibyte = 2 ** 20
const tileBytes = 15 * 1024 // 4 pages
const place = (x: number): Place => ({ z: 12, x, y: 7 })
const contentOf = ({ x }: Place) => new Uint8Array(tileBytes).fill(x % 251)

let directory: string
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'tile-cache-'))
})
afterAll(() => rm(directory, { recursive: true }))

/** A cache with 1 MiB of memory that counts what it renders. */
async function start(
  capacityBytes: number,
  open: () => Promise<Backup> = () => openFileBackup({ directory }),
) {
  const stack = new AsyncDisposableStack()
  const backup = stack.use(await open())
  const pool = stack.use(new Pool({ limitBytes: mebibyte, backup, maxOrder: 4 }))
  const rendered: number[] = []
  const render = async (place: Place) => {
    rendered.push(place.x)
    await new Promise(setImmediate)
    return contentOf(place)
  }
  const cache = new TileCache({ pool, capacityBytes, render })
  const check = async (x: number) =>
    expect(Buffer.compare(await cache.get(place(x)), contentOf(place(x))), `tile ${x}`).toBe(0)
  return { cache, pool, rendered, check, [Symbol.asyncDispose]: () => stack.disposeAsync() }
}

describe('tile-cache', () => {
  it('renders a tile once for all who ask for it at once, and not again', async () => {
    await using tiles = await start(4 * mebibyte)
    await Promise.all(Array.from({ length: 10 }, () => tiles.check(5)))
    await tiles.check(5)
    expect(tiles.rendered).toEqual([5])
  })

  it('has tiles of four times its memory back from the file without rendering them again', async () => {
    await using tiles = await start(8 * mebibyte)
    for (let x = 0; x < 256; x++) await tiles.check(x)
    for (let x = 0; x < 256; x++) await tiles.check(x)
    expect(tiles.rendered.length).toBe(256)
    const { restoredPages, residentBytes } = tiles.pool.stats()
    expect(restoredPages).toBeGreaterThan(0)
    expect(residentBytes).toBeLessThanOrEqual(mebibyte)
  })

  it('forgets the tiles that were asked for least recently when its capacity is used up', async () => {
    await using tiles = await start(10 * 16 * 1024)
    for (let x = 0; x < 10; x++) await tiles.check(x)
    await tiles.check(0)
    await tiles.check(10)
    expect(tiles.cache.usedBytes).toBe(10 * 16 * 1024)
    tiles.rendered.length = 0
    for (const x of [0, 10, 9, 8, 7, 6, 5, 4, 3, 2]) await tiles.check(x)
    expect(tiles.rendered).toEqual([])
    await tiles.check(1)
    expect(tiles.rendered).toEqual([1])
  })

  it('forgets tiles when the backup is full before its capacity is used up', async () => {
    const open = async () => memoryBackup({ capacityBytes: mebibyte })
    await using tiles = await start(64 * mebibyte, open)
    for (let x = 0; x < 200; x++) await tiles.check(x)
    expect(tiles.cache.count).toBeLessThan(129)
    tiles.rendered.length = 0
    await tiles.check(199)
    expect(tiles.rendered).toEqual([])
  })

  it('tells all who wait when rendering fails, and renders again for the next', async () => {
    await using tiles = await start(mebibyte)
    let failures = 1
    const render = async (place: Place) => {
      await new Promise(setImmediate)
      if (failures-- > 0) throw new Error('no such data')
      return contentOf(place)
    }
    const cache = new TileCache({ pool: tiles.pool, capacityBytes: mebibyte, render })
    const results = await Promise.allSettled([cache.get(place(1)), cache.get(place(1))])
    expect(results.map(({ status }) => status)).toEqual(['rejected', 'rejected'])
    expect([cache.count, cache.usedBytes]).toEqual([0, 0])
    expect((await cache.get(place(1))).byteLength).toBe(tileBytes)
  })

  it('gives each caller the whole tile while others push it out, and keeps no buffer of a forgotten one', async () => {
    await using tiles = await start(4 * 16 * 1024)
    for (let round = 0; round < 20; round++) {
      await Promise.all(Array.from({ length: 30 }, (_, index) => tiles.check((index * 7 + round * 3) % 23)))
    }
    expect(tiles.cache.usedBytes).toBeLessThanOrEqual(4 * 16 * 1024)
    while (tiles.pool.stats().buffers > tiles.cache.count) await new Promise(setImmediate)
  })

  it('serves tiles over HTTP, and knows which there cannot be', async () => {
    await using tiles = await start(mebibyte)
    await using server = tileServer(tiles.cache)
    await once(server.listen(0, '127.0.0.1'), 'listening')
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
    const tile = new Uint8Array(await (await fetch(`${url}/12/5/7`)).arrayBuffer())
    expect(Buffer.compare(tile, contentOf(place(5)))).toBe(0)
    for (const path of ['/', '/1/2/0', '/1/0', '/1/0/x'])
      expect((await fetch(url + path)).status, path).toBe(404)
  })
})
