import { describe, expect, it } from 'vitest'
import { RunMap, seededRandom } from '../src/index.ts'

describe('RunMap', () => {
  it('knows what each number was last mapped to, through a random history', () => {
    const seed = Math.floor(Math.random() * 2 ** 32)
    const random = seededRandom(seed)
    const below = (end: number) => Math.floor(random() * end)
    const map = new RunMap()
    const expected = new Map<number, number>()
    const least = 2 ** 40 - 700
    for (let step = 0; step < 3000; step++) {
      const first = least + below(3000)
      const count = 1 + below(step % 10 === 0 ? 1500 : 40)
      const isDelete = below(3) === 0
      // Targets that meet those of neighbours, so that runs are joined and cut.
      const target = below(2) === 0 ? first + 5 : below(2 ** 50)
      if (isDelete) map.delete(first, count)
      else map.set(first, count, target)
      for (let at = 0; at < count; at++) {
        if (isDelete) expected.delete(first + at)
        else expected.set(first + at, target + at)
      }
      for (let look = 0; look < 20; look++) {
        const number = least + below(3000)
        expect(map.targetOf(number), `seed ${seed}, step ${step}`).toBe(expected.get(number))
      }
      const from = least + below(3000)
      let length = 0
      const start = expected.get(from)
      while (start !== undefined && length < 200 && expected.get(from + length) === start + length) length++
      expect(map.lengthFrom(from, 200), `seed ${seed}, step ${step}`).toBe(length)
      let gap = 0
      while (gap < 200 && !expected.has(from + gap)) gap++
      expect(map.gapFrom(from, 200), `seed ${seed}, step ${step}`).toBe(gap)
    }
    for (let number = least; number < least + 5000; number++) {
      expect(map.targetOf(number)).toBe(expected.get(number))
    }
  })

  it('costs by the run, and nothing once all is deleted', () => {
    const map = new RunMap()
    const pages = 2 ** 17
    for (let page = 0; page < pages; page += 256) map.set(1000 + page, 256, page + 2 ** 30)
    expect(map.metadataBytes / pages).toBeLessThan(1)
    expect(map.lengthFrom(1000, pages)).toBe(pages)
    for (let page = 0; page < pages; page += 2) map.delete(1000 + page, 1)
    expect(map.metadataBytes / pages).toBeLessThan(17)
    for (let page = 1; page < pages; page += 2) map.delete(1000 + page, 1)
    expect(map.metadataBytes).toBe(0)
  })
})
