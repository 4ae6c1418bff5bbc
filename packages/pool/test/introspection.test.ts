import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import {
  type Backup,
  type BackupPagesOptions,
  faultyBackup,
  type HandleRun,
  memoryBackup,
} from '@spillway/core'
import { describe, expect, it, vi } from 'vitest'
import { type Pin, Pool, type TraceEvent } from '../src/index.ts'
import { VirtualTime } from './model/virtual-time.ts'
import { page, pattern } from './support/bytes.ts'
import { setup } from './support/setup.ts'

async function warnings(
  during: () => Promise<void>,
): Promise<{ code: string | undefined; message: string; detail: string }[]> {
  const seen: { code: string | undefined; message: string; detail: string }[] = []
  const listen = (warning: Error) => {
    const { code, detail } = warning as Error & { code?: string; detail?: string }
    seen.push({ code, message: warning.message, detail: detail ?? '' })
  }
  process.on('warning', listen)
  await during()
  await new Promise((resolve) => setTimeout(resolve, 0))
  process.off('warning', listen)
  return seen
}

describe('dump and stats', () => {
  it('T80: agree with each other after every step: totals in pages, free lists in chunks', async () => {
    await using subject = await setup({ idleBytes: 64 * page, name: 'inspected' })
    const { pool, buffer } = subject
    const check = () => {
      const { stats, freeLists, lists, buffers } = pool.dump()
      expect(stats).toEqual(pool.stats())
      const idle = freeLists.reduce((sum, list) => sum + list.pages, 0)
      expect(idle * page).toBe(stats.idleBytes + stats.retainedBytes)
      const listed = lists.clean + lists.dirty + lists.purgeable + lists.unevictable
      expect(listed * page).toBe(stats.inUseBytes)
      expect(buffers.reduce((sum, { residentPages }) => sum + residentPages, 0) * page).toBe(stats.inUseBytes)
      expect(pool.verify()).toEqual([])
    }
    check()
    const other = await pool.allocate(13 * page, { label: 'other' })
    await other.write(0, pattern(13 * page))
    check()
    await other.free()
    expect(pool.dump().freeLists[0]?.chunksByOrder).toEqual([1, 0, 1, 1])
    check()
    await buffer.backup()
    check()
    await buffer.read(0, new Uint8Array(1))
    check()
    const text = String(pool.dump())
    expect(text).toContain('pool inspected: provider resizable')
    expect(text).toContain('subject')
    expect(text).toContain('idle chunks by order:')
  })

  it('a pool without a name is just the pool, in dumps and errors', async () => {
    const pool = new Pool({ limitBytes: 2 ** 21, provider: 'resizable' })
    expect(String(pool.dump())).toMatch(/^pool: provider/)
    await pool.close()
    await expect(pool.allocate(1)).rejects.toThrow('EBADF: pool is closed')
  })

  it('a buffer says how large its chunks are at most', async () => {
    await using subject = await setup({ maxOrder: 3 })
    expect(subject.buffer.chunkBytes).toBe(8 * page)
    const small = await subject.pool.allocate(page, { maxOrder: 1 })
    expect(small.chunkBytes).toBe(2 * page)
    await small.free()
  })

  it('metadata is far below 8 bytes per page', async () => {
    await using subject = await setup({ pages: 4096, limitBytes: 4096 * page, maxOrder: 9 })
    expect(subject.pool.stats().metadataBytes / 4096).toBeLessThan(8)
    await subject.buffer.backup()
    expect(subject.pool.stats().metadataBytes / 4096).toBeLessThan(8)
  })
})

describe('tracing', () => {
  it('tells listeners what moves, and makes no event for nobody', async () => {
    const seen: [string, TraceEvent][] = []
    const listeners = ['backup', 'restore', 'reclaim', 'wait'].map((name) => {
      const listener = (event: unknown) => seen.push([name, event as TraceEvent])
      subscribe(`spillway:pool:${name}`, listener)
      return () => unsubscribe(`spillway:pool:${name}`, listener)
    })
    await using subject = await setup({ name: 'traced', pages: 80, background: false })
    await subject.buffer.read(0, new Uint8Array(page))
    for (const stop of listeners) stop()
    const names = new Set(seen.map(([name]) => name))
    expect([...names].sort()).toEqual(['backup', 'reclaim', 'restore', 'wait'])
    expect(seen.find(([name]) => name === 'restore')?.[1]).toMatchObject({
      pool: 'traced',
      buffer: 'subject',
      backup: 'memory',
      pages: 8,
    })
    const count = seen.length
    await subject.buffer.backup()
    expect(seen).toHaveLength(count)
  })
})

describe('warnings', () => {
  it('a backup that fails reclaim is told once', async () => {
    const backup = faultyBackup(memoryBackup({ name: 'brittle' }), {
      faults: [{ method: 'backupPages', code: 'EIO' }],
    })
    const pool = new Pool({
      limitBytes: 8 * page,
      maxOrder: 3,
      provider: 'resizable',
      backup,
      background: false,
    })
    const seen = await warnings(async () => {
      const buffers = [await pool.allocate(8 * page), await pool.allocate(8 * page)]
      await buffers[0]!.write(0, pattern(page))
      for (let index = 0; index < 3; index++) await buffers[1]!.write(0, pattern(page)).catch(() => {})
    })
    expect(seen.filter(({ code }) => code === 'SPILLWAY_BACKUP_FAILING')).toHaveLength(1)
    expect(seen[0]?.message).toContain('backup brittle fails')
    backup.heal()
    await pool.close()
  })

  it('a backup that fails now and then is told once, and again when it had been well for a minute', async () => {
    using time = new VirtualTime()
    time.install()
    const backup = faultyBackup(memoryBackup({ name: 'shaky' }))
    const limits = { limitBytes: 8 * page, maxOrder: 3, background: false, whenFull: 'fail' } as const
    const pool = new Pool({ ...limits, provider: 'resizable', backup })
    const inTurn = [await pool.allocate(8 * page), await pool.allocate(8 * page)]
    let written = 0
    const write = () => inTurn[written++ % 2]!.write(0, pattern(page))
    await write()
    const failOnce = async () => {
      backup.inject({ method: 'backupPages', code: 'EIO' })
      await expect(write()).rejects.toMatchObject({ code: 'ENOMEM', cause: { code: 'EIO' } })
      written--
      backup.heal()
      time.pass(2000)
      await write()
    }
    const told = async (work: () => Promise<void>) =>
      (await warnings(work)).filter(({ code }) => code === 'SPILLWAY_BACKUP_FAILING').length
    expect(await told(failOnce)).toBe(1)
    expect(
      await told(async () => {
        for (let times = 0; times < 10; times++) await failOnce()
      }),
    ).toBe(0)
    time.pass(60_000)
    expect(await told(failOnce)).toBe(1)
    expect(pool.verify()).toEqual([])
    await pool.close()
    await backup.close()
  })

  it('pages that a backup does not drop are counted and told, and tried again later', async () => {
    const backup = faultyBackup(memoryBackup(), { faults: [{ method: 'drop', code: 'EIO' }] })
    const pool = new Pool({ limitBytes: 64 * page, maxOrder: 3, provider: 'resizable', backup })
    const buffer = await pool.allocate(8 * page)
    await buffer.write(0, pattern(8 * page))
    await buffer.backup()
    const seen = await warnings(async () => {
      await buffer.purge()
    })
    expect(seen.map(({ code }) => code)).toEqual(['SPILLWAY_DROP_FAILED'])
    expect(pool.stats().dropFailures).toBe(8)
    expect(backup.stats().livePages).toBe(8)
    backup.heal()
    await pool.settled()
    expect(pool.stats().dropFailures).toBe(0)
    expect(backup.stats().livePages).toBe(0)
    await pool.close()
  })
})

describe('a backup that is closed before its pool', () => {
  it('is told with what to close first', async () => {
    const backup = memoryBackup()
    const pool = new Pool({ limitBytes: 64 * page, maxOrder: 3, provider: 'resizable', backup })
    const buffer = await pool.allocate(8 * page)
    await buffer.write(0, pattern(8 * page))
    await buffer.backup()
    await backup.close()
    const seen = await warnings(() => pool.close())
    expect(seen).toMatchObject([
      {
        code: 'SPILLWAY_DROP_FAILED',
        message: expect.stringMatching(/is closed: close its pools before it/),
      },
    ])
  })
})

describe('debug mode', () => {
  const debug = { debug: true } as const

  it('views are detached at the release, and what was written is there', async () => {
    await using subject = await setup(debug)
    const { buffer } = subject
    const pin = await buffer.pin({ offset: page, length: 10, write: true })
    const view = pin.bytes
    view.fill(7)
    subject.bytes.fill(7, page, page + 10)
    pin.release()
    expect(view.byteLength).toBe(0)
    expect(() => new Uint8Array(view.buffer)).toThrow(TypeError)
    await subject.check()
  })

  it('pins of one range that write different bytes do not undo each other', async () => {
    await using subject = await setup(debug)
    const one = await subject.buffer.pin({ length: 100, write: true })
    const two = await subject.buffer.pin({ length: 100, write: true })
    one.bytes[3] = 33
    two.bytes[5] = 55
    one.release()
    two.release()
    subject.bytes[3] = 33
    subject.bytes[5] = 55
    await subject.check()
  })

  it('writing through a read-only pin is found at the release', async () => {
    await using subject = await setup(debug)
    const pin = await subject.buffer.pin({ length: 10 })
    pin.bytes[0] = pin.bytes[0]! ^ 1
    expect(() => pin.release()).toThrow(/EINVAL: a read-only pin of buffer subject was written through/)
    expect(subject.pool.stats().pins).toBe(0)
    await subject.check()
  })

  it('the stack that is told of a leak begins with the call of the application, however that is served', async () => {
    await using subject = await setup(debug)
    const { pool, buffer } = subject
    const register = vi.spyOn(FinalizationRegistry.prototype, 'register')
    try {
      const made: Pin[] = []
      const asked = async () => {
        made.push(await buffer.pin({ length: 10 }), buffer.tryPin({ length: 10 })!)
      }
      await asked()
      for (const pin of made.splice(0)) pin.release()
      await buffer.backup()
      await asked()
      for (const pin of made) pin.release()
      const another = async () => pool.allocate(page)
      await (await another()).free()
      const stacks = register.mock.calls.flatMap(
        ([, watched]) => (watched as { madeAt?: string }).madeAt ?? [],
      )
      expect(stacks).toHaveLength(5)
      for (const stack of stacks)
        expect(stack).toMatch(/^Error: made here\n +at (asked|another) .*introspection.test.ts/)
    } finally {
      register.mockRestore()
    }
  })

  it('leaked pins and buffers are reported with the stack that made them', async () => {
    await using subject = await setup(debug)
    const { pool, buffer } = subject
    const seen = await warnings(async () => {
      await leak()
      for (let tries = 0; tries < 20; tries++) {
        globalThis.gc?.()
        await new Promise((resolve) => setTimeout(resolve, 5))
      }
    })
    const byCode = (code: string) => seen.find((warning) => warning.code === code)
    expect(byCode('SPILLWAY_LEAKED_PIN')?.message).toContain('a pin of buffer subject was never released')
    expect(byCode('SPILLWAY_LEAKED_PIN')?.detail).toMatch(
      /^Error: made here\n +at leak .*introspection.test.ts/,
    )
    expect(byCode('SPILLWAY_LEAKED_BUFFER')?.message).toContain('buffer lost was never freed')
    expect(byCode('SPILLWAY_LEAKED_BUFFER')?.detail).toMatch(
      /^Error: made here\n +at leak .*introspection.test.ts/,
    )
    // The pin is gone for good, so the buffer counts as pinned; the test ends that by hand.
    const machine = (await import('../src/api/pool.ts')).machineOf(pool)
    for (const state of machine.residents.buffers.values())
      machine.residents.applicationPins -= state.userPins
    for (const state of machine.residents.buffers.values()) state.userPins = 0
    const { chunks } = machine.residents
    for (let page = 0; page < 21; page += 8) {
      const chunk = [...machine.residents.buffers.values()][0]!.table.chunkAt(page)
      const [state] = machine.residents.buffers.values()
      while (chunks.isPinned(chunk)) machine.residents.unpin(chunk, state!)
    }

    async function leak(): Promise<void> {
      await buffer.pin({ length: 10 })
      await pool.allocate(page, { label: 'lost' })
    }
  })
})

describe('debug mode', () => {
  it('finds a backup that returns a handle again while it is live, and loses no page to it', async () => {
    const inner = memoryBackup()
    let repeated: HandleRun | undefined
    const backup: Backup = Object.assign(Object.create(inner) as Backup, {
      capabilities: inner.capabilities,
      name: 'repeats',
      backupPages: async (spans: readonly Uint8Array[], options?: BackupPagesOptions) => {
        const result = await inner.backupPages(spans, options)
        const [run] = result.handles
        if (repeated === undefined) repeated = run
        else if (run !== undefined) return { handles: [{ first: repeated.first, count: run.count }] }
        return result
      },
      copyPages: inner.copyPages.bind(inner),
      drop: inner.drop.bind(inner),
      bytesAvailable: inner.bytesAvailable.bind(inner),
    })
    const pool = new Pool({ limitBytes: 64 * page, maxOrder: 0, backup, debug: true, background: false })
    const [first, second] = [await pool.allocate(page), await pool.allocate(page)]
    await first.write(0, pattern(page, 1))
    await second.write(0, pattern(page, 2))
    expect(await first.backup()).toEqual({ pages: 1 })
    expect((await second.backup()).error).toMatchObject({ code: 'EIO', message: /live/ })
    const found = new Uint8Array(page)
    await second.read(0, found)
    expect(found).toEqual(pattern(page, 2))
    await first.read(0, found)
    expect(found).toEqual(pattern(page, 1))
    await pool.close()
  })
})

describe('a pin that is never released', () => {
  it('can be collected in debug mode, so that it is told of, also when it writes or its buffer grows', async () => {
    const pool = new Pool({ limitBytes: 64 * page, maxOrder: 3, provider: 'resizable', debug: true })
    const buffer = await pool.allocate(8 * page)
    const log = await pool.allocate(page, { growable: true, maxBytes: 8 * page })
    const leak = async () => [
      new WeakRef(await buffer.pin()),
      new WeakRef(await buffer.pin({ write: true })),
      new WeakRef(await log.pin()),
    ]
    const pins = await leak()
    // What was looked at stays until the next turn: so nothing is, before the end.
    for (let tries = 0; tries < 5; tries++) {
      await new Promise((resolve) => setTimeout(resolve, 5))
      globalThis.gc?.()
    }
    expect(pins.map((pin) => pin.deref() !== undefined)).toEqual([false, false, false])
    expect(pool.stats().pins).toBe(3)
  })
})
