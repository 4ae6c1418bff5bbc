import { describe, expect, it } from 'vitest'
import { niceTicks, powerTicks } from '../src/report/scales.ts'

describe('scales', () => {
  it('have round ticks from 0 to the first that reaches the greatest value', () => {
    expect(niceTicks(11.2)).toEqual([0, 5, 10, 15])
    expect(niceTicks(5)).toEqual([0, 1, 2, 3, 4, 5])
    expect(niceTicks(0.061)).toEqual([0, 0.02, 0.04, 0.06, 0.08])
    expect(niceTicks(0)).toEqual([0, 1])
  })

  it('never end below the greatest value, whatever it is', () => {
    for (let exponent = -9; exponent <= 12; exponent++) {
      for (const digit of [1, 1.0001, 1.9999, 2, 3, 4.999, 5, 7.3, 9.99]) {
        const most = digit * 10 ** exponent
        const ticks = niceTicks(most)
        expect(ticks.at(-1)! * (1 + 1e-8), `${most}`).toBeGreaterThanOrEqual(most)
        expect(ticks.length, `${most}`).toBeGreaterThanOrEqual(3)
        expect(ticks.length, `${most}`).toBeLessThanOrEqual(8)
      }
    }
  })

  it('of powers enclose all values', () => {
    expect(powerTicks([0.003, 25])).toEqual([0.001, 0.01, 0.1, 1, 10, 100])
    expect(powerTicks([1])).toEqual([1, 10])
  })
})
