import { describe, expect, it } from 'vitest'
import { mayWork, nextTurn } from '../src/turn.ts'

/** Works for some microseconds at a time, as calls do; resolves when it did `slices` of them. */
async function work(slices: number, log: () => void): Promise<void> {
  for (let slice = 0; slice < slices; slice++) {
    for (let again = false; !mayWork(); again = true) await nextTurn(again)
    const until = performance.now() + 0.2
    while (performance.now() < until);
    log()
  }
}

describe('turns of the event loop', () => {
  it('a hundred calls together work no more slices in a turn than one alone', async () => {
    let inThisTurn = 0
    let most = 0
    let running = true
    const count = () => {
      most = Math.max(most, inThisTurn)
      inThisTurn = 0
      if (running) setImmediate(count)
    }
    setImmediate(count)
    await Promise.all(Array.from({ length: 100 }, () => work(3, () => inThisTurn++)))
    running = false
    // 0.2 ms each: three fit into half a millisecond, and the turn in which the test began may hold a turn's work more.
    expect(most).toBeLessThanOrEqual(6)
  })

  it('a small call does not wait for the end of a large one', async () => {
    const done: string[] = []
    const large = work(60, () => {}).then(() => done.push('large'))
    const small = Array.from({ length: 5 }, () => work(2, () => {}).then(() => done.push('small')))
    await Promise.all([large, ...small])
    expect(done.at(-1)).toBe('large')
  })

  it('always gets on, however long the loop was held by others', async () => {
    let slices = 0
    const hold = setInterval(() => {
      const until = performance.now() + 2
      while (performance.now() < until);
    }, 1)
    await work(20, () => slices++)
    clearInterval(hold)
    expect(slices).toBe(20)
  })
})
