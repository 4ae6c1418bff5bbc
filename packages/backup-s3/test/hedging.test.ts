/** How many slow requests are asked for again, and when one is slow. */
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { HedgePolicy } from '../src/restore/hedging.ts'

const segment = 8 * 2 ** 20
const page = 4096
const share = 0.015

describe('HedgePolicy', () => {
  it('keeps a GiB of segments at 132 requests in any stretch of any history, however many are slow', () => {
    fc.assert(
      fc.property(
        fc.array(
          fc.record({ bytes: fc.constantFrom(segment, page), count: fc.nat(400), isSlow: fc.boolean() }),
          { minLength: 1, maxLength: 30 },
        ),
        (stretches) => {
          const policy = new HedgePolicy(share)
          /** For each request for a segment, whether it was asked for again. */
          const hedged: number[] = []
          for (const { bytes, count, isSlow } of stretches) {
            for (let request = 0; request < count; request++) {
              policy.requested(bytes)
              const again = isSlow && policy.tryHedge(bytes)
              if (bytes === segment) hedged.push(again ? 1 : 0)
            }
          }
          let within = 0
          for (const [index, again] of hedged.entries()) {
            within += again - (hedged[index - 128] ?? 0)
            expect(128 + within).toBeLessThanOrEqual(132)
          }
        },
      ),
      { numRuns: 50 },
    )
  })

  it('hedges one in a hundred from the first hundred on', () => {
    const policy = new HedgePolicy(share)
    for (let request = 1; request <= 1000; request++) {
      policy.requested(page)
      if (request % 100 === 50) expect(policy.tryHedge(page)).toBe(true)
    }
    expect(policy.hedges).toBe(10)
  })

  it('takes a request for slow when it is silent for longer than 98 of 100 of its own kind', () => {
    const policy = new HedgePolicy(share)
    expect(policy.thresholdMs(segment)).toBe(Number.POSITIVE_INFINITY)
    for (let answer = 1; answer <= 100; answer++) policy.answered(segment, answer)
    for (let answer = 0; answer < 16; answer++) policy.answered(page, 3)
    expect(policy.thresholdMs(page)).toBe(4)
    expect(policy.thresholdMs(segment)).toBeGreaterThan(90)
    expect(policy.thresholdMs(segment)).toBeLessThan(101)
    expect(new HedgePolicy(0).thresholdMs(page)).toBe(Number.POSITIVE_INFINITY)
  })
})
