import { createHash, randomFillSync } from 'node:crypto'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import type { Server } from 'node:http'
import { type AddressInfo, connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { openFileBackup } from '@spillway/backup-file'
import { type Backup, memoryBackup } from '@spillway/core'
import { Pool } from '@spillway/pool'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { BlobCache } from '../src/blob-cache.ts'
import { blobServer } from '../src/server.ts'
import { ServerProcess } from './server-process.ts'

const mebibyte = 2 ** 20
const blobOf = (bytes: number) => randomFillSync(new Uint8Array(bytes))
const digest = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex')

let directory: string
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'blob-cache-'))
})
afterAll(() => rm(directory, { recursive: true }))

/** A server in this process: 4 MiB of memory for 16 MiB of blobs. */
async function start(open: () => Promise<Backup> = () => openFileBackup({ directory })) {
  const stack = new AsyncDisposableStack()
  const backup = stack.use(await open())
  const pool = stack.use(new Pool({ limitBytes: 4 * mebibyte, backup }))
  const cache = new BlobCache(pool, 16 * mebibyte)
  const server: Server = stack.use(blobServer(cache))
  await once(server.listen(0, '127.0.0.1'), 'listening')
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  const put = (name: string, body: Uint8Array<ArrayBuffer>) =>
    fetch(`${url}/${name}`, { method: 'PUT', body })
  const get = async (name: string) => new Uint8Array(await (await fetch(`${url}/${name}`)).arrayBuffer())
  return { cache, pool, url, put, get, [Symbol.asyncDispose]: () => stack.disposeAsync() }
}

describe('blob-cache-server', () => {
  it('gives back what was put, of a size that is no whole number of pages, with a tag that saves a transfer', async () => {
    await using server = await start()
    const blob = blobOf(3 * mebibyte + 17)
    const stored = await server.put('video', blob)
    expect(stored.status).toBe(201)
    const etag = stored.headers.get('etag')!
    expect(digest(await server.get('video'))).toBe(digest(blob))
    const head = await fetch(`${server.url}/video`, { method: 'HEAD' })
    expect([head.status, head.headers.get('etag'), head.headers.get('content-length')]).toEqual([
      200,
      etag,
      String(blob.byteLength),
    ])
    const again = await fetch(`${server.url}/video`, { headers: { 'If-None-Match': etag } })
    expect([again.status, (await again.arrayBuffer()).byteLength]).toEqual([304, 0])
  })

  it('sends ranges: from a byte on, to a byte, the last bytes, and none where there are none', async () => {
    await using server = await start()
    const blob = blobOf(mebibyte + 17)
    const etag = (await server.put('video', blob)).headers.get('etag')!
    const { byteLength } = blob
    const ranges: [range: string, first: number, end: number][] = [
      ['bytes=5000-9999', 5000, 10_000],
      ['bytes=1048576-', mebibyte, byteLength],
      ['bytes=-20', byteLength - 20, byteLength],
      ['bytes=0-0', 0, 1],
      [`bytes=7-${10 * mebibyte}`, 7, byteLength],
      [`bytes=-${10 * mebibyte}`, 0, byteLength],
    ]
    for (const [Range, first, end] of ranges) {
      const part = await fetch(`${server.url}/video`, { headers: { Range, 'If-Range': etag } })
      expect([part.status, part.headers.get('content-range')], Range).toEqual([
        206,
        `bytes ${first}-${end - 1}/${byteLength}`,
      ])
      expect(digest(new Uint8Array(await part.arrayBuffer())), Range).toBe(digest(blob.subarray(first, end)))
    }
    for (const Range of [`bytes=${byteLength}-`, 'bytes=-0']) {
      const none = await fetch(`${server.url}/video`, { headers: { Range } })
      expect([none.status, none.headers.get('content-range')], Range).toEqual([416, `bytes */${byteLength}`])
    }
  })

  it('sends all for ranges that it need not know, and for a range of a blob that was replaced', async () => {
    await using server = await start()
    const blob = blobOf(10_000)
    await server.put('video', blob)
    const requests: Record<string, string>[] = [
      { Range: 'bytes=1-2,5-6' },
      { Range: 'bytes=9-3' },
      { Range: 'bytes=-' },
      { Range: 'lines=1-2' },
      { Range: 'bytes=1-2', 'If-Range': '"of another"' },
    ]
    for (const headers of requests) {
      const all = await fetch(`${server.url}/video`, { headers })
      expect(all.status, JSON.stringify(headers)).toBe(200)
      expect(digest(new Uint8Array(await all.arrayBuffer()))).toBe(digest(blob))
    }
    const head = await fetch(`${server.url}/video`, { method: 'HEAD', headers: { Range: 'bytes=1-2' } })
    expect([head.status, head.headers.get('content-length')]).toEqual([200, '10000'])
  })

  it('tells Prometheus what its pool holds, under a name that no blob has', async () => {
    await using server = await start()
    await server.put('video', blobOf(mebibyte))
    expect((await server.put('metrics', blobOf(1))).status).toBe(405)
    const answer = await fetch(`${server.url}/metrics`)
    expect(answer.headers.get('content-type')).toContain('text/plain')
    expect(await answer.text()).toMatch(/^spillway_pool_in_use_bytes\{pool=".*"\} \d{6,}$/m)
  })

  it('keeps what was asked for last when the capacity is used up', async () => {
    await using server = await start()
    const blobs = Array.from({ length: 4 }, () => blobOf(4 * mebibyte))
    for (const [index, blob] of blobs.entries()) await server.put(`blob-${index}`, blob)
    expect(digest(await server.get('blob-0'))).toBe(digest(blobs[0]!))
    await server.put('blob-4', blobOf(4 * mebibyte))
    expect([...server.cache.blobs.keys()]).toEqual(['blob-2', 'blob-3', 'blob-0', 'blob-4'])
    expect((await fetch(`${server.url}/blob-1`)).status).toBe(404)
    expect(server.cache.usedBytes).toBe(16 * mebibyte)
    expect(server.pool.stats().residentBytes).toBeLessThanOrEqual(4 * mebibyte)
  })

  it('goes on sending a blob that is replaced meanwhile', async () => {
    await using server = await start()
    const [first, second] = [blobOf(8 * mebibyte), blobOf(mebibyte)]
    await server.put('blob', first)
    const response = await fetch(`${server.url}/blob`)
    await server.put('blob', second)
    expect(digest(new Uint8Array(await response.arrayBuffer()))).toBe(digest(first))
    expect(digest(await server.get('blob'))).toBe(digest(second))
    expect(server.pool.stats().buffers).toBe(1)
  })

  it('gives a blob back when the client breaks off', async () => {
    await using server = await start()
    await server.put('blob', blobOf(8 * mebibyte))
    const socket = connect(Number(new URL(server.url).port), '127.0.0.1')
    socket.write('GET /blob HTTP/1.1\r\nHost: x\r\n\r\n')
    await once(socket, 'readable') // the rest fills the buffers of the connection, and then waits
    expect(server.cache.blobs.get('blob')!.users).toBe(2)
    socket.destroy()
    while (server.cache.blobs.get('blob')!.users > 1) await new Promise(setImmediate)
    await server.cache.delete('blob')
    expect(server.pool.stats().buffers).toBe(0)
  })

  it('refuses what is too large or has no length, and forgets an upload that breaks off', async () => {
    await using server = await start()
    expect((await server.put('blob', blobOf(17 * mebibyte))).status).toBe(413)
    const body = new Blob([blobOf(1000)]).stream()
    const chunked = await fetch(`${server.url}/blob`, { method: 'PUT', body, duplex: 'half' } as RequestInit)
    expect(chunked.status).toBe(411)
    const socket = connect(Number(new URL(server.url).port), '127.0.0.1')
    socket.write('PUT /blob HTTP/1.1\r\nHost: x\r\nContent-Length: 5000000\r\n\r\n0123456789')
    while (server.pool.stats().buffers === 0) await new Promise(setImmediate)
    socket.destroy()
    while (server.pool.stats().buffers > 0) await new Promise(setImmediate)
    expect(server.cache.usedBytes).toBe(0)
    expect((await fetch(`${server.url}/blob`)).status).toBe(404)
  })

  it('says 503 when there is no room for the pages, and serves again when there is', async () => {
    await using server = await start(async () => memoryBackup({ capacityBytes: 4 * mebibyte }))
    const small = blobOf(3 * mebibyte)
    expect((await server.put('small', small)).status).toBe(201)
    expect((await server.put('large', blobOf(12 * mebibyte))).status).toBe(503)
    expect(server.cache.usedBytes).toBe(small.byteLength)
    expect(digest(await server.get('small'))).toBe(digest(small))
    expect((await server.put('other', small)).status).toBe(201)
  })

  it('keeps its memory flat while it serves many times of it, and ends when the last answer is through', async () => {
    await using server = await ServerProcess.start(8, 1, directory)
    const blobs = Array.from({ length: 24 }, () => blobOf(mebibyte))
    const round = async (visit: (index: number) => Promise<void>) => {
      for (let index = 0; index < blobs.length; index += 8) {
        await Promise.all(Array.from({ length: 8 }, (_, offset) => visit(index + offset)))
      }
      const figures = await server.figures()
      expect(figures.residentBytes).toBeLessThanOrEqual(figures.limitBytes)
      return figures
    }
    await round(async (index) => {
      const { status } = await fetch(`${server.url}/blob-${index}`, { method: 'PUT', body: blobs[index]! })
      expect(status).toBe(201)
    })
    const check = async (index: number) => {
      const bytes = new Uint8Array(await (await fetch(`${server.url}/blob-${index}`)).arrayBuffer())
      expect(Buffer.compare(bytes, blobs[index]!)).toBe(0)
    }
    const before = await round(check)
    for (let times = 0; times < 3; times++) {
      const after = await round(check)
      expect(after.blobs).toBe(24)
      expect(after.rss - before.rss).toBeLessThan(40 * mebibyte)
    }

    const response = await fetch(`${server.url}/blob-0`)
    const ended = server.end()
    expect(Buffer.compare(new Uint8Array(await response.arrayBuffer()), blobs[0]!)).toBe(0)
    expect(await ended).toBe(0)
    await expect(fetch(`${server.url}/blob-0`)).rejects.toThrow()
  })
})
