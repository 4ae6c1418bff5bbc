import { expect, it } from 'vitest'
import { WritePins } from '../src/residency/write-pins.ts'

it('a pin that comes in the moment in which the last one ends is waited for, and not in a loop without an end', async () => {
  let looks = 0
  class CountedWritePins extends WritePins {
    override get count(): number {
      if (++looks > 1000) throw new Error('it looks again and again without waiting')
      return super.count
    }
  }
  const pins = new CountedWritePins('buffer')
  const [first, second] = [
    { offsetBytes: 0, length: 1 },
    { offsetBytes: 1, length: 1 },
  ]
  pins.begin(first)
  const moment = pins.whenNone(undefined, () => pins.count)
  pins.end(first)
  // It has waited for its memory since before anybody waited for the moment.
  pins.begin(second)
  await new Promise(setImmediate)
  expect(pins.isShut).toBe(true)
  pins.end(second)
  expect(await moment).toBe(0)
})
