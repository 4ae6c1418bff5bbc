import { describe, expect, it } from 'vitest'
import { rangeBytes, unitBytesOf, type WorkloadShape, workloads } from '../src/case/workloads.ts'

const shape: WorkloadShape = { bufferCount: 200, bufferBytes: 1024 * 1024, pageSizeBytes: 4096, seed: 5 }

describe.each(workloads)('workload $name', (workload) => {
  const touches = (round: number) => [...workload.touches(shape, round)]

  it('is the same for the same seed and round, and another in the next round', () => {
    expect(touches(1)).toEqual(touches(1))
    expect(touches(1)).not.toEqual(touches(2))
  })

  it('stays inside its buffers and rewrites a tenth, or nothing of single pages', () => {
    const all = touches(1)
    const unitBytes = unitBytesOf(workload, shape)
    for (const touch of all) {
      expect(touch.buffer).toBeLessThan(shape.bufferCount)
      expect(touch.offsetBytes % unitBytes).toBe(0)
      expect(touch.lengthBytes).toBe(unitBytes)
      expect(touch.offsetBytes + touch.lengthBytes).toBeLessThanOrEqual(shape.bufferBytes)
    }
    const rewritten = all.filter((touch) => touch.write).length / all.length
    if (workload.chunkBytes === 'page') {
      expect(rewritten).toBe(0)
      return
    }
    expect(rewritten).toBeGreaterThan(0.04)
    expect(rewritten).toBeLessThan(0.2)
  })
})

describe('what the workloads touch', () => {
  const named = (name: string) => workloads.find((each) => each.name === name)!

  it('sweep: every buffer once, in order', () => {
    expect([...named('sweep').touches(shape, 1)].map((touch) => touch.buffer)).toEqual(
      Array.from({ length: shape.bufferCount }, (_, buffer) => buffer),
    )
  })

  it('zipf: few ranges get most of the touches, and the same ones in every round', () => {
    const popular = (round: number) => {
      const counts = new Map<number, number>()
      for (const { buffer, offsetBytes } of named('zipf').touches(shape, round)) {
        const range = (buffer * shape.bufferBytes + offsetBytes) / rangeBytes
        counts.set(range, (counts.get(range) ?? 0) + 1)
      }
      return [...counts].sort((left, right) => right[1] - left[1])
    }
    const [first, second] = [popular(1), popular(2)]
    expect(first[0][0]).toBe(second[0][0])
    const total = first.reduce((sum, [, count]) => sum + count, 0)
    const topTenth = first.slice(0, Math.ceil(first.length / 10)).reduce((sum, [, count]) => sum + count, 0)
    expect(topTenth / total).toBeGreaterThan(0.3)
  })
})
