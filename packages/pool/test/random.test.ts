import { type Backup, faultyBackup, memoryBackup } from '@spillway/core'
import { describe, expect, it } from 'vitest'
import { type PagedBuffer, type Pin, Pool } from '../src/index.ts'
import { firstDifference, page, pattern } from './support/bytes.ts'
import { Random } from './support/random.ts'

/**
 * Random histories against plain arrays of bytes: three buffers, two backups, a small limit, faults and aborts, several
 * calls at a time. Every gauge is recomputed after each round. A failure names its seed; put it into `seeds` to replay.
 */
const seeds = Array.from({ length: 3 }, (_, index) => index + 1)
const rounds = 60

interface Subject {
  readonly buffer: PagedBuffer
  readonly oracle: Uint8Array
  pin: Pin | undefined
}

for (const provider of ['mmap', 'resizable'] as const) {
  describe(`random histories on ${provider} memory`, () => {
    for (const seed of seeds) {
      it(`I1, I2, I3, I10, I11: seed ${seed} keeps every byte and every gauge`, () => history(seed, provider))
    }
  })
}

async function history(seed: number, provider: 'mmap' | 'resizable'): Promise<void> {
  const random = new Random(seed)
  const faults = { seed, random: { rate: 0.15, codes: ['EIO', 'ENOSPC', 'ENOMEM', 'EINTR'] as const } }
  const backups = [
    faultyBackup(memoryBackup({ capacityBytes: 64 * page }), {
      ...faults,
      random: { ...faults.random, methods: ['backupPages', 'copyPages'] },
    }),
    faultyBackup(memoryBackup({ capacityBytes: 40 * page, name: 'small' }), {
      ...faults,
      random: { ...faults.random, methods: ['backupPages', 'copyPages'] },
    }),
  ] as const
  const pool = new Pool({
    limitBytes: 40 * page,
    maxOrder: 3,
    provider,
    whenFull: 'fail',
    idleBytes: random.below(3) * 8 * page,
    split: random.below(3) === 0 ? 'always' : 'native',
  })
  const subjects: Subject[] = []
  for (const sizePages of [21, 33, 8]) {
    const sizeBytes = sizePages * page - random.below(page)
    const backup: Backup = backups[random.below(2)]!
    const buffer = await pool.allocate(sizeBytes, { backup, maxOrder: random.below(4) })
    subjects.push({ buffer, oracle: new Uint8Array(sizeBytes), pin: undefined })
  }
  for (let round = 0; round < rounds; round++) {
    const calls = subjects.flatMap((subject) =>
      Array.from({ length: 1 + random.below(2) }, (_, index) =>
        // One writer at a time: what overlapping writes leave is not defined.
        step(random, subjects, subject, index === 0 ? 0 : 2, seed * 1000 + round),
      ),
    )
    await Promise.all(calls)
    expect(pool.verify(), `seed ${seed} round ${round}`).toEqual([])
    await pool.settled()
    const { backedUpBytes, keptBytes } = pool.stats()
    const live = backups.reduce((pages, backup) => pages + backup.stats().livePages, 0)
    expect(live * page, `seed ${seed} round ${round}: handles`).toBe(backedUpBytes + keptBytes)
  }
  for (const backup of backups) backup.heal()
  for (const subject of subjects) {
    subject.pin?.release()
    subject.pin = undefined
    const found = await readBack(subjects, subject, 0, subject.oracle.length)
    expect(firstDifference(found, subject.oracle), `seed ${seed}`).toBe(-1)
    await subject.buffer.free()
  }
  expect(pool.verify()).toEqual([])
  expect(pool.stats()).toMatchObject({ inUseBytes: 0, pinnedBytes: 0, backedUpBytes: 0, waiters: 0 })
  for (const backup of backups) expect(backup.stats().livePages, `seed ${seed}: ${backup.name}`).toBe(0)
  await pool.close()
  expect(pool.stats().residentBytes).toBe(0)
}

async function step(
  random: Random,
  subjects: readonly Subject[],
  subject: Subject,
  least: number,
  contentSeed: number,
): Promise<void> {
  const { buffer, oracle } = subject
  const offset = random.below(oracle.length)
  const length = random.below(
    Math.min(oracle.length - offset, random.below(2) === 0 ? 3 * page : 20 * page) + 1,
  )
  const signal = random.below(10) === 0 ? abortSoon(random.below(3)) : undefined
  switch (least + random.below(9 - least)) {
    case 0:
    case 1: {
      if (subject.pin?.write) return
      const bytes = pattern(length, contentSeed)
      const before = oracle.slice(offset, offset + length)
      oracle.set(bytes, offset)
      try {
        await buffer.write(offset, bytes, { signal })
      } catch {
        const found = await readBack(subjects, subject, offset, length)
        // A write that failed wrote a part of it; each byte is the old or the new one.
        for (let index = 0; index < length; index++) {
          if (found[index] !== bytes[index]) expect(found[index]).toBe(before[index])
        }
        oracle.set(found, offset)
      }
      return
    }
    case 2:
    case 3: {
      const found = new Uint8Array(length).fill(0xee)
      await buffer.read(offset, found, { signal }).catch(() => {})
      return
    }
    case 4: {
      if (subject.pin !== undefined) {
        subject.pin.release()
        subject.pin = undefined
        return
      }
      const pin = await buffer.pin({ offset, length, signal }).catch(() => undefined)
      if (subject.pin === undefined) subject.pin = pin
      else pin?.release()
      return
    }
    case 5:
      await buffer.backup({ signal, atomic: random.below(3) === 0 }).catch(() => {})
      return
    case 6:
      await buffer.restore({ signal }).catch(() => {})
      return
    default: {
      await Promise.resolve()
      return
    }
  }
}

async function readBack(
  subjects: readonly Subject[],
  { buffer }: Subject,
  offset: number,
  length: number,
): Promise<Uint8Array> {
  const found = new Uint8Array(length)
  for (let attempt = 0; ; attempt++) {
    try {
      await buffer.read(offset, found)
      return found
    } catch (failure) {
      if (attempt > 200) throw failure
      for (const subject of subjects) {
        subject.pin?.release()
        subject.pin = undefined
      }
      await new Promise((resolve) => setTimeout(resolve, 2))
    }
  }
}

function abortSoon(turns: number): AbortSignal {
  const controller = new AbortController()
  const abort = (left: number) => {
    if (left === 0) controller.abort(new Error('enough'))
    else queueMicrotask(() => abort(left - 1))
  }
  abort(turns)
  return controller.signal
}
