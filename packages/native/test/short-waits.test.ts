import { expect, it } from 'vitest'
import { ShortWaits } from '../src/short-waits.ts'

/** Hands over a small request, looks every 10 µs while that is thought worth it, and says how often. */
function looks(waits: ShortWaits, startMs: number, comesBackAfterMs = Number.POSITIVE_INFINITY): number {
  waits.requested(4096)
  let count = 0
  while (waits.isWorthLooking(startMs + count * 0.01)) {
    if (count * 0.01 >= comesBackAfterMs) {
      waits.succeeded()
      return count
    }
    count++
  }
  return count
}

it('is worth looking after small requests, for a while', () => {
  const waits = new ShortWaits()
  expect(waits.isWorthLooking(100)).toBe(false)
  waits.requested(1024 * 1024)
  expect(waits.isWorthLooking(100)).toBe(false)
  expect(looks(waits, 100)).toBe(15)
  expect(waits.isWorthLooking(101)).toBe(false)
})

it('is worth less and less where nothing comes back soon, and as much as ever once something does', () => {
  const waits = new ShortWaits()
  const looked: number[] = []
  for (let wait = 0; wait < 400; wait++) if (looks(waits, wait) > 0) looked.push(wait)
  expect(looked).toEqual([0, 2, 5, 10, 19, 36, 69, 134, 199, 264, 329, 394])
  for (let wait = 400; looks(waits, wait, 0.05) === 0; wait++);
  for (let wait = 500; wait < 510; wait++) expect(looks(waits, wait, 0.05)).toBe(5)
})
