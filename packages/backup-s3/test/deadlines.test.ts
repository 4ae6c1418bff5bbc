/** The one timer of all requests. */
import { describe, expect, it } from 'vitest'
import { type Deadline, nextBytesDueAt, notWatched, unwatch, watch } from '../src/http/deadlines.ts'

function deadlineIn(milliseconds: number, onDue: () => void): Deadline {
  return { dueAt: performance.now() + milliseconds, place: notWatched, onDue }
}
const sleep = (milliseconds: number) => new Promise((resolve) => setTimeout(resolve, milliseconds))

describe('deadlines', () => {
  it('are told in any order of watching, once, and not when they were put off or unwatched', async () => {
    const told: string[] = []
    const late = deadlineIn(60, () => told.push('late'))
    const early = deadlineIn(10, () => told.push('early'))
    const putOff = deadlineIn(10, () => told.push('put off'))
    const gone = deadlineIn(10, () => told.push('gone'))
    const never = deadlineIn(Number.POSITIVE_INFINITY, () => told.push('never'))
    for (const deadline of [late, early, putOff, gone, never]) watch(deadline)
    putOff.dueAt += 10_000
    unwatch(gone)
    unwatch(gone)
    while (told.length < 2) await sleep(5)
    await sleep(30)
    expect(told).toEqual(['early', 'late'])
    unwatch(putOff)
    unwatch(never)
  })

  it('are not told when another that was due with them ended them, and may begin again', async () => {
    const told: string[] = []
    const second = deadlineIn(5, () => told.push('second'))
    const first = deadlineIn(5, () => {
      told.push('first')
      unwatch(second)
      if (told.length > 1) return
      first.dueAt = performance.now() + 5
      watch(first)
    })
    watch(first)
    watch(second)
    while (told.length < 2) await sleep(5)
    await sleep(20)
    expect(told).toEqual(['first', 'first'])
  })

  it('beyond what a timer can count do not fire at once', async () => {
    let isTold = false
    const far = deadlineIn(2 ** 40, () => {
      isTold = true
    })
    watch(far)
    await sleep(30)
    expect(isTold).toBe(false)
    unwatch(far)
  })
})

describe('the pace of a body', () => {
  const limits = { silenceMs: 1_000, minBytesPerSecond: 1_000 }

  it('gives each byte its time at the least rate, and never more than has passed', () => {
    // Silent since 0; 100 bytes at 500 are worth 100 ms.
    expect(nextBytesDueAt(1_000, 100, 500, limits)).toBe(1_100)
    expect(nextBytesDueAt(1_000, 10_000, 500, limits)).toBe(1_500)
  })

  it('lets a body that trickles run out of time, and one at the least rate go on for ever', () => {
    for (const [bytesPerTick, goesOn] of [
      [1, false],
      [99, false],
      [100, true],
      [500, true],
    ] as const) {
      let dueAt = 1_000
      let now = 0
      while (now < 500_000 && now < dueAt) {
        now += 100
        if (now < dueAt) dueAt = nextBytesDueAt(dueAt, bytesPerTick, now, limits)
      }
      expect([bytesPerTick, now >= 500_000]).toEqual([bytesPerTick, goesOn])
    }
  })
})
