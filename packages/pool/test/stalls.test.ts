import { delay, memoryBackup, nowMs } from '@spillway/core'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { machineOf } from '../src/api/pool.ts'
import { Pool } from '../src/index.ts'
import { VirtualTime } from './model/virtual-time.ts'
import { page } from './support/bytes.ts'

type Warning = Error & { code?: string; detail?: string }

describe("a claim that waits for pins (whenFull: 'wait')", () => {
  const warnings: Warning[] = []
  const listener = (warning: Warning) => {
    if (warning.code === 'SPILLWAY_WAITING_FOR_PINS') warnings.push(warning)
  }
  beforeEach(() => {
    warnings.length = 0
    process.on('warning', listener)
  })
  afterEach(() => {
    process.off('warning', listener)
  })

  const nextWarning = () => new Promise<void>((resolve) => process.once('warning', () => resolve()))

  async function full(delayMs: number) {
    const pool = new Pool({
      limitBytes: 16 * page,
      maxOrder: 2,
      provider: 'resizable',
      backup: memoryBackup(),
    })
    machineOf(pool).budget.reclaim.stallWarning.delayMs = delayMs
    const mine = await pool.allocate(16 * page, { label: 'mine' })
    const other = await pool.allocate(16 * page, { label: 'other' })
    return { pool, mine, other, pin: await mine.pin({ write: true }) }
  }

  it('is told of after a while, with who pins what, once as long as nothing changes', async () => {
    const { pool, mine, other, pin } = await full(1)
    const warned = nextWarning()
    const controller = new AbortController()
    const waiting = other.pin({ length: page, signal: controller.signal })
    const second = other.write(8 * page, new Uint8Array(page))
    await warned
    expect(warnings).toHaveLength(1)
    expect(warnings[0]!.message).toMatch(/buffer other waits .* buffer mine \(1 pins\)/)
    expect(warnings[0]!.detail).toMatch(/whenFull/)
    // What makes reclaim look again does not tell again.
    const again = mine.tryPin({ length: page })!
    again.release()
    await new Promise((resolve) => setTimeout(resolve, 20))
    expect(warnings).toHaveLength(1)
    // Another claim is the first now, and waits long too.
    const warnedAgain = nextWarning()
    controller.abort()
    await expect(waiting).rejects.toMatchObject({ code: 'EINTR' })
    await warnedAgain
    expect(warnings).toHaveLength(2)
    pin.release()
    await second
    await pool.close()
  })

  it('is told of when 5 s have passed, though other claims come and go meanwhile', async () => {
    using time = new VirtualTime()
    time.install()
    const { pool, other, pin } = await full(5000)
    const warned = nextWarning()
    const beganMs = nowMs()
    const waiting = other.write(0, new Uint8Array(page))
    for (let second = 1; second < 5; second++) {
      await delay(1000)
      const controller = new AbortController()
      const leaving = other.pin({ offset: 8 * page, length: page, signal: controller.signal })
      controller.abort()
      await expect(leaving).rejects.toMatchObject({ code: 'EINTR' })
    }
    expect(warnings).toHaveLength(0)
    await warned
    expect(nowMs() - beganMs).toBeGreaterThanOrEqual(5000)
    expect(nowMs() - beganMs).toBeLessThan(5600)
    pin.release()
    await waiting
    await pool.close()
  })

  it('is not told of when the pins are released in time', async () => {
    const { pool, other, pin } = await full(60_000)
    const writing = other.write(0, new Uint8Array(page))
    await new Promise((resolve) => setTimeout(resolve, 5))
    pin.release()
    await writing
    expect(warnings).toHaveLength(0)
    await pool.close()
  })
})
