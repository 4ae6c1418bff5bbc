import { memoryBackup } from '@spillway/core'
import { describe, expect, it } from 'vitest'
import { Pool } from '../src/index.ts'
import { page } from './support/bytes.ts'

/** A loop of calls that settle at once must not keep timers, sockets and other callers from their turns. */
describe('a loop of small calls', () => {
  type Call = (index: number) => Promise<unknown>

  async function turnsDuring(calls: number, call: Call): Promise<number> {
    let turns = 0
    let isOver = false
    const count = () => {
      if (isOver) return
      turns++
      setImmediate(count)
    }
    setImmediate(count)
    for (let index = 0; index < calls; index++) await call(index)
    isOver = true
    return turns
  }

  async function scene() {
    const pool = new Pool({ limitBytes: 256 * page, maxOrder: 0, backup: memoryBackup(), background: false })
    const buffer = await pool.allocate(128 * page)
    await buffer.fill(1)
    return { pool, buffer, piece: new Uint8Array(64) }
  }

  const loops: Record<string, (made: Awaited<ReturnType<typeof scene>>) => Call> = {
    read:
      ({ buffer, piece }) =>
      (index) =>
        buffer.read((index * 64) % (64 * page), piece),
    'read that is refused':
      ({ buffer, piece }) =>
      () =>
        buffer.read(-1, piece).catch(() => {}),
    write:
      ({ buffer, piece }) =>
      (index) =>
        buffer.write((index * 64) % (64 * page), piece),
    fill:
      ({ buffer }) =>
      () =>
        buffer.fill(3, { offset: 0, length: 64 }),
    copyTo:
      ({ buffer }) =>
      () =>
        buffer.copyTo(buffer, { offset: 0, length: 64, targetOffset: 512 }),
    pin:
      ({ buffer }) =>
      async () =>
        (await buffer.pin({ offset: 0, length: 64 })).release(),
    'pin that is refused':
      ({ buffer }) =>
      () =>
        buffer.pin({ offset: -1 }).catch(() => {}),
    'allocate and free':
      ({ pool }) =>
      async () =>
        (await pool.allocate(100)).free(),
    purge:
      ({ buffer }) =>
      () =>
        buffer.purge({ offset: 100 * page, length: page }),
    'restore of what is resident':
      ({ buffer }) =>
      () =>
        buffer.restore(),
    'backup and restore of a page': ({ pool }) => {
      const one = pool.allocate(page)
      return async () => {
        const buffer = await one
        await buffer.write(0, new Uint8Array(page))
        await buffer.backup()
        await buffer.restore()
      }
    },
    'misses of a backup that answers at once':
      ({ buffer, piece }) =>
      async (index) => {
        if (index % 128 === 0) await buffer.backup()
        await buffer.read((index % 128) * page, piece)
      },
    setBackup: ({ pool }) => {
      const one = pool.allocate(page)
      const backup = memoryBackup()
      return async () => (await one).setBackup(backup)
    },
    setLimit:
      ({ pool }) =>
      (index) =>
        pool.setLimit((256 + (index & 1)) * page),
    shrink:
      ({ pool }) =>
      () =>
        pool.shrink(0),
    settled:
      ({ pool }) =>
      () =>
        pool.settled(),
  }

  for (const [name, loop] of Object.entries(loops)) {
    it(`gives the event loop its turns: ${name}`, async () => {
      const made = await scene()
      // However fast the machine is, so many calls take several milliseconds.
      expect(await turnsDuring(name.includes('backup') ? 500 : 20_000, loop(made))).toBeGreaterThan(5)
      await made.pool.close()
    })
  }
})

describe('free() of a buffer that was never touched', () => {
  it('does not go through its pages', async () => {
    const pool = new Pool({ limitBytes: 256 * page, maxOrder: 0 })
    const buffer = await pool.allocate(2 ** 40)
    const { machineOf } = await import('../src/api/pool.ts')
    const { table } = [...machineOf(pool).residents.buffers.values()][0]!
    let looks = 0
    const look = table.look.bind(table)
    table.look = (page_: number, end: number) => {
      looks++
      look(page_, end)
    }
    await buffer.free()
    expect(looks).toBeLessThan(100)
    await pool.close()
  })
})
