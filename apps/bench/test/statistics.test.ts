import { describe, expect, it } from 'vitest'
import { Random, shuffledIndexes, ZipfRanks } from '../src/random.ts'
import { LatencyHistogram, relativeSpread, spreadOf } from '../src/statistics.ts'

describe('statistics', () => {
  it('gives median, least and greatest', () => {
    expect(spreadOf([5, 1, 4, 2, 3])).toEqual({ min: 1, median: 3, max: 5 })
    expect(spreadOf([4, 1])).toEqual({ min: 1, median: 2.5, max: 4 })
    expect(spreadOf([])).toBeUndefined()
    expect(relativeSpread({ min: 9, median: 10, max: 11 })).toBeCloseTo(0.2)
  })

  it('finds quantiles within the width of a bucket, and the exact greatest', () => {
    const histogram = new LatencyHistogram()
    const values = Array.from({ length: 10_000 }, (_, index) => 0.01 * (index + 1))
    for (const value of values) histogram.record(value)
    const summary = histogram.summary()!
    expect(summary.count).toBe(10_000)
    expect(summary.p50Ms / 50).toBeCloseTo(1, 1)
    expect(Math.abs(summary.p50Ms / 50 - 1)).toBeLessThan(0.02)
    expect(Math.abs(summary.p99Ms / 99 - 1)).toBeLessThan(0.02)
    expect(Math.abs(summary.p999Ms / 99.9 - 1)).toBeLessThan(0.02)
    expect(summary.maxMs).toBe(100)
  })

  it('has nothing to say about no latencies', () => {
    const histogram = new LatencyHistogram()
    expect(histogram.summary()).toBeUndefined()
    expect(histogram.curve()).toEqual([])
  })

  it('draws the same numbers from the same seed', () => {
    const draw = (seed: number) => {
      const random = new Random(seed)
      return Array.from({ length: 20 }, () => random.nextInteger())
    }
    expect(draw(7)).toEqual(draw(7))
    expect(draw(7)).not.toEqual(draw(8))
  })

  it('shuffles every index once', () => {
    const shuffled = shuffledIndexes(1000, new Random(3))
    expect([...shuffled].sort((left, right) => left - right)).toEqual(
      Array.from({ length: 1000 }, (_, index) => index),
    )
    expect([...shuffled]).not.toEqual([...shuffled].sort((left, right) => left - right))
  })

  it('draws ranks with the skew it was given', () => {
    const random = new Random(1)
    const ranks = new ZipfRanks(100, 0.99)
    const counts = new Array<number>(100).fill(0)
    for (let draw = 0; draw < 50_000; draw++) counts[ranks.draw(random)]++
    expect(counts.every((count) => count > 0)).toBe(true)
    // Rank 0 is 10^0.99 times as likely as rank 9.
    expect(counts[0] / counts[9]).toBeGreaterThan(8)
    expect(counts[0] / counts[9]).toBeLessThan(12)
  })
})
