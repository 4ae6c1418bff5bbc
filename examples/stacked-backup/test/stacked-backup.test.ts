import { randomFillSync } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { GetObjectCommand } from '@aws-sdk/client-s3'
import { type Backup, faultyBackup } from '@spillway/core'
import { type PagedBuffer, Pool } from '@spillway/pool'
import { type S3Target, s3Target } from '@spillway/test-s3-server'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type Media, openMedia, stackOf } from '../src/stacked-backup.ts'

const mebibyte = 2 ** 20
const pieceBytes = 256 * 1024
const sizeBytes = 10 * mebibyte

/** The same backup, of which one method fails while the test wants it to. */
class Switchable {
  failing: 'backupPages' | 'copyPages' | undefined
  readonly backup: Backup

  constructor(inner: Backup) {
    const { name, capabilities } = inner
    const of = (method: 'backupPages' | 'copyPages') => {
      const broken = faultyBackup(inner, { faults: [{ method, code: 'EIO' }] })
      return () => (this.failing === method ? broken : inner)
    }
    const [storing, reading] = [of('backupPages'), of('copyPages')]
    this.backup = {
      name,
      capabilities,
      backupPages: (spans, options) => storing().backupPages(spans, options),
      copyPages: (handles, spans, options) => reading().copyPages(handles, spans, options),
      drop: (handles) => inner.drop(handles),
      bytesAvailable: () => inner.bytesAvailable(),
      reserve: (bytes) => inner.reserve(bytes),
      stats: () => inner.stats(),
      close: () => inner.close(),
      [Symbol.asyncDispose]: () => inner.close(),
    }
  }
}

describe('compressed(tiered(shmem, encrypted(file), encrypted(s3)))', () => {
  let target: S3Target
  let directory: string
  beforeAll(async () => {
    target = await s3Target({ embedded: true })
    directory = await mkdtemp(join(tmpdir(), 'stacked-backup-'))
  })
  afterAll(async () => {
    await target.close()
    await rm(directory, { recursive: true })
  })

  async function open() {
    const media = await openMedia({
      shmemBytes: 3 * mebibyte,
      fileBytes: 3 * mebibyte,
      directory,
      client: target.client(),
      bucket: target.bucket,
    })
    const switches = Object.fromEntries(
      Object.entries(media).map(([name, backup]) => [name, new Switchable(backup)]),
    ) as Record<keyof Media, Switchable>
    const { shmem, file, s3 } = switches
    const stack = stackOf({ shmem: shmem.backup, file: file.backup, s3: s3.backup })
    const pool = new Pool({ limitBytes: 2 * mebibyte, backup: stack.backup })
    return {
      ...stack,
      pool,
      switches,
      media,
      async [Symbol.asyncDispose]() {
        await pool.close()
        await stack.backup.close()
      },
    }
  }

  /** Reads all of a buffer: the pieces that are right, and the errors of the others. A wrong byte is an error of the test. */
  async function readAll(buffer: PagedBuffer, content: Uint8Array) {
    const errors: unknown[] = []
    let right = 0
    for (let offset = 0; offset < sizeBytes; offset += pieceBytes) {
      const piece = new Uint8Array(pieceBytes)
      try {
        await buffer.read(offset, piece)
      } catch (error) {
        errors.push(error)
        continue
      }
      expect(Buffer.compare(piece, content.subarray(offset, offset + pieceBytes)), `at ${offset}`).toBe(0)
      right++
    }
    return { right, errors }
  }

  it('loses nothing, and stores on, while each tier refuses to store in turn', async () => {
    await using stack = await open()
    const { pool, switches, tiers } = stack
    const buffer = await pool.allocate(sizeBytes)
    for (const name of ['shmem', 'file', 's3'] as const) {
      const medium = switches[name]
      const content = randomFillSync(new Uint8Array(sizeBytes))
      medium.failing = 'backupPages'
      const before = tiers.stats().tiers.map(({ livePages }) => livePages)
      await buffer.purge()
      // S3 is the last: without it there is room for six mebibytes, and for two in memory.
      const storableBytes = name === 's3' ? 6 * mebibyte : sizeBytes
      await buffer.write(0, content.subarray(0, storableBytes))
      medium.failing = undefined
      await buffer.write(storableBytes, content.subarray(storableBytes))
      expect(await readAll(buffer, content), `${name} refused; ${before}`).toEqual({
        right: sizeBytes / pieceBytes,
        errors: [],
      })
    }
    expect(pool.verify()).toEqual([])
  })

  it('says EIO for pages in a tier that cannot be read, serves all others, and has them when it can', async () => {
    await using stack = await open()
    const { pool, switches } = stack
    const buffer = await pool.allocate(sizeBytes)
    const content = randomFillSync(new Uint8Array(sizeBytes))
    await buffer.write(0, content)
    for (const name of ['shmem', 'file', 's3'] as const) {
      expect((await buffer.backup()).error).toBeUndefined()
      switches[name].failing = 'copyPages'
      const { right, errors } = await readAll(buffer, content)
      switches[name].failing = undefined
      expect(right, `${name} is unreadable: ${errors[0]}`).toBeGreaterThan(0)
      expect(errors.length, name).toBeGreaterThan(0)
      for (const error of errors) expect(error).toMatchObject({ code: 'EIO' })
      expect(await readAll(buffer, content)).toEqual({ right: sizeBytes / pieceBytes, errors: [] })
    }
    expect(pool.verify()).toEqual([])
  })

  it('shows nothing of the pages in the bucket, and leaves nothing there', async () => {
    const canary = Buffer.from('the canary that nobody may hear ')
    {
      await using stack = await open()
      const buffer = await stack.pool.allocate(sizeBytes)
      const content = randomFillSync(new Uint8Array(sizeBytes))
      for (let offset = 0; offset < sizeBytes; offset += 512) content.set(canary, offset)
      await buffer.write(0, content)
      expect((await buffer.backup()).error).toBeUndefined()
      const keys = await target.list()
      expect(keys.length).toBeGreaterThan(0)
      const client = target.client()
      for (const { key } of keys) {
        const { Body } = await client.send(new GetObjectCommand({ Bucket: target.bucket, Key: key }))
        expect(Buffer.from(await Body!.transformToByteArray()).includes(canary), key).toBe(false)
      }
      client.destroy()
      expect(stack.tiers.stats().tiers.every(({ livePages }) => livePages > 0)).toBe(true)
      expect(await readAll(buffer, content)).toEqual({ right: sizeBytes / pieceBytes, errors: [] })
    }
    expect(await target.list()).toEqual([])
  })
})
