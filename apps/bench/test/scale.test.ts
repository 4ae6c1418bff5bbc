import { describe, expect, it } from 'vitest'
import { growthSizes, measureGrowth } from '../src/scale/growth.ts'
import { measureMetadata } from '../src/scale/metadata.ts'
import { judgeScale, renderScale } from '../src/scale/outcome.ts'
import { measureAllocator, measurePins } from '../src/scale/quick-paths.ts'

const gibibyte = 1024 ** 3
const mebibyte = 1024 ** 2

describe('scale', () => {
  it('measures at every fourfold size up to the largest', () => {
    expect(growthSizes(gibibyte)).toEqual([gibibyte / 4, gibibyte])
    expect(growthSizes(1024 * gibibyte)).toEqual([1, 4, 16, 64, 256, 1024].map((size) => size * gibibyte))
    expect(growthSizes(20 * gibibyte).at(-1)).toBe(20 * gibibyte)
  })

  it('measures growth, metadata, pins and the allocator, and holds them against the goals', async () => {
    const signal = new AbortController().signal
    const growth = await measureGrowth(gibibyte / 8, 16 * mebibyte, signal, () => {}, 4)
    expect(growth.points.map(({ backedUpBytes }) => backedUpBytes)).toEqual([gibibyte / 32, gibibyte / 8])
    for (const point of growth.points) {
      for (const cost of Object.values(point.costs)) {
        for (const figure of Object.values(cost)) expect(figure).toBeGreaterThan(0)
      }
    }
    expect(growth.backedUpPages * 4096).toBeGreaterThan(gibibyte / 8)
    const metadata = await measureMetadata('2 MiB', 16 * mebibyte)
    expect(metadata.perResidentPage).toBeGreaterThan(0)
    const figures = {
      limitBytes: 16 * mebibyte,
      maxBytes: gibibyte / 8,
      growth,
      metadata: [metadata],
      pins: await measurePins({ rounds: 1, count: 100 }),
      allocator: await measureAllocator({ rounds: 1, roundMs: 1 }),
    }
    expect(figures.allocator?.singlePagesPerSecond.median).toBeGreaterThan(0)
    const goals = judgeScale(figures)
    expect(goals).toHaveLength(9)
    const [{ backedUpBytes, costs }] = growth.points
    const steep = {
      ...costs,
      fresh: { ...costs.fresh, ratio: 1.2 },
      restore: { ...costs.restore, ratio: 1.1 },
    }
    const judged = judgeScale({
      ...figures,
      growth: { ...growth, points: [{ backedUpBytes, costs: steep }] },
    })
    expect(judged.slice(0, 2).map(({ met, decides }) => [met, decides])).toEqual([
      [false, true],
      [true, true],
    ])
    expect(renderScale(figures, goals)).toContain('128 MiB')
  })
})
