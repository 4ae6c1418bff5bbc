import { afterEach, describe, expect, it, vi } from 'vitest'
import { delay, mayWork, nextTurn, onTurn, pace, sliceBytes, smallCallBytes } from '../src/index.ts'

const realImmediate = setImmediate
const realNow = performance.now.bind(performance)
const immediately = () => new Promise((resolve) => realImmediate(resolve))

/** Holds the loop as work does. */
function hold(milliseconds: number): void {
  const until = realNow() + milliseconds
  while (realNow() < until);
}

/** Works a slice at a time, as calls do; resolves when it did that many. */
async function work(slices: number, log: () => void): Promise<void> {
  for (let slice = 0; slice < slices; slice++) {
    const turn = pace(sliceBytes)
    if (turn !== undefined) await turn
    hold(0.2)
    log()
  }
}

/** The most slices that were worked in one turn of the loop while `calls` ran. */
async function mostInATurn(calls: (log: () => void) => Promise<unknown>): Promise<number> {
  let inThisTurn = 0
  let most = 0
  let isRunning = true
  const count = () => {
    most = Math.max(most, inThisTurn)
    inThisTurn = 0
    if (isRunning) realImmediate(count)
  }
  realImmediate(count)
  await calls(() => inThisTurn++)
  isRunning = false
  return most
}

describe('the pace of work', () => {
  afterEach(() => {
    vi.useRealTimers()
  })

  it('lets a hundred calls together work no longer in a turn than one alone', async () => {
    const hundred = (log: () => void) => Promise.all(Array.from({ length: 100 }, () => work(3, log)))
    // 0.2 ms each: three fit into half a millisecond, and the turn in which the test began may hold a turn's work more.
    expect(await mostInATurn(hundred)).toBeLessThanOrEqual(6)
  })

  it('does not let a small call wait for the end of a large one', async () => {
    const done: string[] = []
    const large = work(60, () => {}).then(() => done.push('large'))
    const small = Array.from({ length: 5 }, () => work(2, () => {}).then(() => done.push('small')))
    await Promise.all([large, ...small])
    expect(done.at(-1)).toBe('large')
  })

  it('always gets on, however long the loop was held by others', async () => {
    let slices = 0
    const holding = setInterval(() => hold(2), 1)
    await work(20, () => slices++)
    clearInterval(holding)
    expect(slices).toBe(20)
  })

  it('gives the event loop its turns in a loop of small calls that are answered at once', async () => {
    let turns = 0
    const ticking = setInterval(() => turns++, 1)
    const until = performance.now() + 500
    while (turns < 3 && performance.now() < until) {
      const turn = pace(smallCallBytes)
      if (turn !== undefined) await turn
      await undefined
    }
    clearInterval(ticking)
    expect(turns).toBe(3)
  })

  it('asks nobody to wait who works a little in each turn', async () => {
    for (let turn = 0; turn < 300; turn++) {
      expect(mayWork(64 * 1024)).toBe(true)
      await immediately()
    }
  })

  it('starts what waits in the order in which it came, a few at a time', async () => {
    const started: number[] = []
    for (let number = 0; number < 2500; number++) onTurn(smallCallBytes, () => started.push(number))
    expect(started).toEqual([])
    await immediately()
    expect(started.length).toBeGreaterThan(0)
    expect(started.length).toBeLessThanOrEqual((2 * sliceBytes) / smallCallBytes)
    while (started.length < 2500) await immediately()
    expect(started).toEqual(Array.from({ length: 2500 }, (_, number) => number))
  })

  it('starts what is larger than a turn by itself', async () => {
    const started: string[] = []
    onTurn(100 * sliceBytes, () => started.push('large'))
    onTurn(1, () => started.push('small'))
    await immediately()
    expect(started).toEqual(['large'])
    await immediately()
    expect(started).toEqual(['large', 'small'])
  })

  it('goes on with the others when one throws as it is started', async () => {
    const failure = new Error('thrown by one')
    const told = new Promise((resolve) => {
      const listeners = process.rawListeners('uncaughtException')
      process.removeAllListeners('uncaughtException')
      process.once('uncaughtException', (error) => {
        for (const listener of listeners) process.on('uncaughtException', listener as () => void)
        resolve(error)
      })
    })
    onTurn(1, () => {
      throw failure
    })
    const other = nextTurn(1)
    expect(await told).toBe(failure)
    await other
  })

  it('goes on while the timers of a test stand still', async () => {
    vi.useFakeTimers({
      toFake: ['setTimeout', 'setInterval', 'setImmediate', 'performance', 'queueMicrotask', 'Date'],
    })
    await nextTurn(1)
    await work(5, () => {})
    await delay(1)
    expect(vi.getTimerCount()).toBe(0)
  })
})
