import { createHash, randomFillSync } from 'node:crypto'
import { mkdtemp, readdir, readlink, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type S3Target, s3Target } from '@spillway/test-s3-server'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { composePool, digestInThread } from '../src/composed-pool.ts'
import { SharedArena } from '../src/shared-arena.ts'

const mebibyte = 2 ** 20

/** Files in a directory that this process holds open; the file of the backup has no name. */
async function openFiles(directory: string): Promise<string[]> {
  const descriptors = await readdir('/proc/self/fd')
  const paths = await Promise.all(
    descriptors.map((name) => readlink(`/proc/self/fd/${name}`).catch(() => '')),
  )
  return paths.filter((path) => path.startsWith(directory))
}

describe('composed-pool', () => {
  let target: S3Target
  let directory: string
  beforeAll(async () => {
    target = await s3Target({ embedded: true })
    directory = await mkdtemp(join(tmpdir(), 'composed-pool-'))
  })
  afterAll(async () => {
    await target.close()
    await rm(directory, { recursive: true })
  })

  const compose = () =>
    composePool({ limitBytes: 4 * mebibyte, directory, client: target.client(), bucket: target.bucket })

  it('keeps two buffers of three times the limit: one in the file, one in the bucket', async () => {
    const contents = [0, 1].map(() => randomFillSync(new Uint8Array(12 * mebibyte + 5)))
    const composed = await compose()
    {
      await using all = composed
      const { pool, scratch, archive, provider } = all
      const frames = await pool.allocate(contents[0].byteLength, { label: 'frames' })
      const old = await pool.allocate(contents[1].byteLength, { label: 'archive', backup: archive })
      await Promise.all([frames.write(0, contents[0]), old.write(0, contents[1])])
      expect((await frames.backup()).error).toBeUndefined()
      expect((await old.backup()).error).toBeUndefined()
      expect([scratch.stats().livePages, archive.stats().livePages]).toEqual([3073, 3073])
      expect((await target.list()).length).toBeGreaterThan(0)
      expect((await openFiles(directory)).length).toBeGreaterThan(0)

      const digests = await Promise.all([frames, old].map(digestInThread))
      expect(digests).toEqual(contents.map((bytes) => createHash('sha256').update(bytes).digest('hex')))
      expect(pool.stats().residentBytes).toBeLessThanOrEqual(provider.memory.byteLength)
      expect(pool.verify()).toEqual([])
    }
    const { scratch, archive } = composed
    expect([scratch.stats().leakedPages, archive.stats().leakedPages]).toEqual([0, 0])
    expect(await openFiles(directory)).toEqual([])
    expect(await target.list()).toEqual([])
  })

  it('hands out the pool memory itself: a pinned view lies in the arena', async () => {
    await using composed = await compose()
    const buffer = await composed.pool.allocate(mebibyte)
    using pin = await buffer.pin({ write: true })
    expect(pin.spans.every(({ buffer: memory }) => memory === composed.provider.memory)).toBe(true)
  })

  it('closes what was opened when a part cannot be', async () => {
    const options = { limitBytes: 4 * mebibyte, directory, client: target.client(), bucket: 'no-such-bucket' }
    await expect(composePool(options)).rejects.toMatchObject({ code: 'ENOENT' })
    expect(await openFiles(directory)).toEqual([])
  })

  it('gives a block that was put back as zeros, and no more than it has', () => {
    const arena = new SharedArena(8192)
    const request = { lengthBytes: 8192, whole: true, retryMayFail: false }
    const block = arena.get(1, request)!
    block.bytes.fill(7)
    expect(arena.get(1, request)).toBeUndefined()
    arena.put(block)
    expect(arena.get(1, request)!.bytes.every((byte) => byte === 0)).toBe(true)
  })
})
