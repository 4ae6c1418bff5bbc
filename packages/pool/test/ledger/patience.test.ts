import { describe, expect, it } from 'vitest'
import type { PagedBuffer } from '../../src/index.ts'
import { page, pattern } from '../support/bytes.ts'
import { Random } from '../support/random.ts'
import { code, expectFilled, subjectPool } from './support/pools.ts'

/**
 * With a backup that works and pins that end, every claim is served in the end, whatever else goes on. A failure names its
 * seed; put it into `seeds` to replay.
 */
const seeds = [1, 2, 3, 4, 5, 6]

describe('claims that wait', () => {
  for (const seed of seeds) {
    it(`T57, T60, I9: seed ${seed}: none is refused, and none waits for ever`, async () => {
      await using subject = subjectPool({
        limitBytes: 32 * page,
        idleBytes: 8 * page,
        background: seed % 2 === 0,
      })
      const { pool, backup } = subject
      backup.inject(
        { method: 'backupPages', delayMs: 1, every: 2 },
        { method: 'copyPages', delayMs: 1, every: 3 },
        { method: 'drop', delayMs: 1, every: 2 },
      )
      const worker = async (number: number): Promise<void> => {
        const random = new Random(seed * 100 + number)
        let buffer: PagedBuffer | undefined
        let content = 0
        for (let step = 0; step < 40; step++) {
          if (buffer === undefined) {
            buffer = await pool.allocate((1 + random.below(32)) * page, { label: `${number}-${step}` })
            content = seed * 1000 + step
            await buffer.write(0, pattern(buffer.sizeBytes, content))
          }
          const offset = random.below(buffer.sizeBytes / page) * page
          switch (random.below(8)) {
            case 0:
            case 1: {
              const pin = await buffer.pin({ offset, write: random.below(2) === 0 })
              await new Promise((resolve) => setTimeout(resolve, random.below(2)))
              pin.release()
              break
            }
            case 2:
              await buffer.backup({ atomic: random.below(2) === 0 })
              break
            case 3:
              expect(code((await buffer.restore()).error)).toBeUndefined()
              break
            case 4:
              await pool.shrink(random.below(16) * page)
              break
            case 5:
              await buffer.free()
              buffer = undefined
              break
            default:
              await expectFilled(buffer, content)
          }
        }
        if (buffer !== undefined) await expectFilled(buffer, content)
        await buffer?.free()
      }
      await Promise.all([0, 1, 2, 3, 4].map(worker))
      expect(pool.stats()).toMatchObject({ refusals: 0, waiters: 0, pins: 0 })
    })
  }
})
