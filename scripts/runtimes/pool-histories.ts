import assert from 'node:assert/strict'
import { type Backup, isSpillwayError, seededRandom } from '@spillway/core'
import { type PagedBuffer, Pool } from '@spillway/pool'

const pageBytes = 4096
const bufferPages = 200
const limitBytes = 64 * pageBytes

export interface PoolHistoriesOptions {
  readonly describe: (name: string, body: () => void) => void
  readonly it: (name: string, body: () => unknown) => void
  readonly name: string
  readonly provider: 'mmap' | 'resizable'
  readonly open: () => Promise<Backup>
}

/** A buffer, and an array with the bytes that must be in it. */
interface Subject {
  readonly buffer: PagedBuffer
  readonly bytes: Uint8Array<ArrayBuffer>
}

/** What a pool promises, over a backup and a provider of this runtime: random histories against plain arrays. */
export function poolHistories({ describe, it, name, provider, open }: PoolHistoriesOptions): void {
  const withPool = async (work: (pool: Pool, subjects: Subject[]) => Promise<void>) => {
    const backup = await open()
    const pool = new Pool({ limitBytes, backup, provider, maxOrder: 3 })
    try {
      const subjects: Subject[] = []
      for (let index = 0; index < 3; index++) {
        const buffer = await pool.allocate(bufferPages * pageBytes)
        subjects.push({ buffer, bytes: new Uint8Array(bufferPages * pageBytes) })
      }
      await work(pool, subjects)
    } finally {
      await pool.close()
      assert.equal(backup.stats().livePages, 0)
      await backup.close()
    }
  }

  describe(`pool over ${name} with ${provider} memory`, () => {
    for (const seed of [1, 2]) {
      it(`gives back every byte of a random history, seed ${seed}`, () =>
        withPool(async (pool, subjects) => {
          const random = seededRandom(seed)
          const below = (end: number) => Math.floor(random() * end)
          for (let step = 0; step < 150; step++) {
            await randomStep(subjects[below(subjects.length)], below)
            assert.ok(pool.stats().residentBytes <= limitBytes)
          }
          for (const subject of subjects) await assertBytes(subject, 0, bufferPages * pageBytes)
        }))
    }

    it('serves many callers at once', () =>
      withPool(async (_pool, subjects) => {
        await Promise.all(
          subjects.map(async ({ buffer, bytes }, index) => {
            bytes.fill(index + 1)
            await buffer.write(0, bytes)
            await Promise.all([buffer.backup(), readSome(buffer), readSome(buffer)])
          }),
        )
        for (const subject of subjects) await assertBytes(subject, 0, bufferPages * pageBytes)
      }))

    it('streams out and in', () =>
      withPool(async (_pool, [from, to]) => {
        from.bytes.forEach((_, index) => {
          from.bytes[index] = index * 7 + (index >> 12)
        })
        await from.buffer.write(0, from.bytes)
        await from.buffer.readable().pipeTo(to.buffer.writable())
        await assertBytes({ buffer: to.buffer, bytes: from.bytes }, 0, from.bytes.byteLength)
      }))
  })
}

async function readSome(buffer: PagedBuffer): Promise<void> {
  for (let page = 0; page < bufferPages; page += 17) await buffer.read(page * pageBytes, new Uint8Array(100))
}

async function randomStep(subject: Subject, below: (end: number) => number): Promise<void> {
  const { buffer, bytes } = subject
  const offset = below(bytes.byteLength)
  const length = 1 + below(Math.min(20 * pageBytes, bytes.byteLength - offset))
  switch (below(6)) {
    case 0:
    case 1: {
      bytes.fill(below(256), offset, offset + length)
      await buffer.write(offset, bytes.subarray(offset, offset + length))
      return
    }
    case 2:
      return assertBytes(subject, offset, length)
    case 3: {
      using pin = await buffer.pin({ offset, length, write: true })
      const value = below(256)
      for (const span of pin.spans) span.fill(value)
      bytes.fill(value, offset, offset + length)
      return
    }
    case 4:
      return assertBackedUp(buffer)
    default:
      buffer.advise('willneed', { offset, length })
  }
}

/** What is being read ahead is held for a moment: that is no failure. */
async function assertBackedUp(buffer: PagedBuffer): Promise<void> {
  const { error } = await buffer.backup()
  assert.ok(error === undefined || (isSpillwayError(error) && error.code === 'EBUSY'), error)
}

async function assertBytes({ buffer, bytes }: Subject, offset: number, length: number): Promise<void> {
  const step = 16 * pageBytes
  const into = new Uint8Array(step)
  for (let done = 0; done < length; done += step) {
    const part = into.subarray(0, Math.min(step, length - done))
    await buffer.read(offset + done, part)
    assert.equal(Buffer.compare(part, bytes.subarray(offset + done, offset + done + part.byteLength)), 0)
  }
}
