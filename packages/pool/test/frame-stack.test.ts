import { describe, expect, it } from 'vitest'
import { FrameStack } from '../src/memory/frame-stack.ts'
import { Random } from './support/random.ts'

describe('a free list', () => {
  it('T16: gives what it got last first, across its segments', () => {
    const stack = new FrameStack()
    const model: number[] = []
    const random = new Random(3)
    // Long runs of one kind, so that it crosses the ends of segments in both directions, and back and forth at them.
    for (let run = 0; run < 400; run++) {
      const grows = random.below(2) === 0
      for (let left = random.below(3) === 0 ? random.below(3000) : random.below(4); left > 0; left--) {
        if (grows) {
          const value = random.below(2 ** 31)
          stack.push(value)
          model.push(value)
        } else if (stack.pop() !== (model.pop() ?? -1)) {
          expect.fail(`run ${run}: it gave another one`)
        }
      }
      expect(stack.length).toBe(model.length)
    }
    while (model.length > 0) if (stack.pop() !== model.pop()) expect.fail('it gave another one at the end')
    expect([stack.pop(), stack.length]).toEqual([-1, 0])
  })

  it('gives what was put to the bottom after all others, the first put there first', () => {
    const stack = new FrameStack()
    stack.push(1)
    stack.putLast(2)
    stack.putLast(3)
    stack.push(4)
    expect(stack.length).toBe(4)
    expect([0, 1, 2, 3, 4].map(() => stack.pop())).toEqual([4, 1, 2, 3, -1])
  })
})
