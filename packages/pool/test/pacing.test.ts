import { MemoryMedium, memoryBackup, replaceHost } from '@spillway/core'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { MemoryBudget, Pool } from '../src/index.ts'
import { page } from './support/bytes.ts'
import { FakeProvider } from './support/fake-provider.ts'

/** A loop of calls that settle at once must not keep timers, sockets and other callers from their turns. */
describe('a loop of small calls', () => {
  type Call = (index: number) => Promise<unknown>

  // The clock says at each look that a slice is used up, so that the number of turns does not depend on the machine.
  let clockMs = 0
  beforeAll(() => replaceHost({ nowMs: () => ++clockMs }))
  afterAll(() => replaceHost())

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
    setProvider: ({ pool }) => {
      const provider = new FakeProvider()
      return () => pool.setProvider(provider)
    },
    setIdleBytes:
      ({ pool }) =>
      (index) =>
        pool.setIdleBytes((index & 1) * page),
    'setLimit of a budget': () => {
      const budget = new MemoryBudget({ limitBytes: 2 ** 20 })
      return (index) => budget.setLimit(2 ** 20 + (index & 1) * page)
    },
    'a pool opened and closed (backup)': () => () => new Pool({ limitBytes: 64 * page, maxOrder: 0 }).close(),
    'save and load (backup)': ({ pool }) => {
      const backup = memoryBackup({ medium: new MemoryMedium() })
      const one = pool.allocate(page, { backup })
      return async () => {
        await (await one).save('image')
        await (await pool.load('image', { backup })).free()
      }
    },
    pieces: ({ buffer }) => {
      let pieces = buffer.pieces({ pieceBytes: 64 })
      return async () => {
        if ((await pieces.next()).done) pieces = buffer.pieces({ pieceBytes: 64 })
      }
    },
    'pieces of nothing':
      ({ buffer }) =>
      async () => {
        for await (const _ of buffer.pieces({ length: 0 })) throw new Error('there are bytes in nothing')
      },
    'a stream of nothing that is read':
      ({ buffer }) =>
      () =>
        buffer.readable({ length: 0 }).getReader().read(),
    'a stream that is cancelled':
      ({ buffer }) =>
      () =>
        buffer.readable().cancel(),
    'a stream that is closed':
      ({ buffer }) =>
      () =>
        buffer.writable().close(),
    'a stream that is aborted':
      ({ buffer }) =>
      () =>
        buffer.writable().abort(),
    'write of an iterable':
      ({ buffer }) =>
      () =>
        buffer.write(0, ['a', 'b']),
    'write of a stream': ({ buffer, piece }) => {
      let writer = buffer.writable().getWriter()
      return async (index) => {
        if (index % 4096 === 0) writer = buffer.writable().getWriter()
        await writer.write(piece)
      }
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
      expect(await turnsDuring(name.includes('backup') ? 500 : 1500, loop(made))).toBeGreaterThan(5)
      await made.pool.close()
    })
  }

  for (const call of ['write', 'fill'] as const) {
    it(`gives the event loop its turns: one ${call} of bytes that come one by one`, async () => {
      const made = await scene()
      function* bytes() {
        for (let index = 0; index < 20_000; index++) yield index & 255
      }
      const work = () => (call === 'write' ? made.buffer.write(0, bytes()) : made.buffer.fill(bytes()))
      expect(await turnsDuring(1, work)).toBeGreaterThan(5)
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
