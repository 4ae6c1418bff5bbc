import { setImmediate as nextTurn } from 'node:timers/promises'
import { expect, it } from 'vitest'
import { HolePuncher } from '../src/hole-puncher.ts'
import { pageBytes } from './pages.ts'

type Settled = [first: number, count: number, punched: boolean]

function puncher(punch: (offsetBytes: number, lengthBytes: number) => Promise<void>) {
  const settled: Settled[] = []
  const puncher = new HolePuncher({
    pageSizeBytes: pageBytes,
    units: { slots: 1, partsAddUp: false },
    punch,
    settle: (...run) => settled.push(run),
    claim: () => false,
    isBare: () => true,
    gaveBack: () => {},
  })
  const idle = async () => {
    while (puncher.queuedSlots > 0) await nextTurn()
  }
  return { puncher, settled, idle }
}

it('joins what was dropped in any order, punches long runs in slices and keeps short ones warm', async () => {
  const punched: [number, number][] = []
  const {
    puncher: subject,
    settled,
    idle,
  } = puncher(async (offset, length) => {
    punched.push([offset / pageBytes, length / pageBytes])
  })
  for (let slot = 99; slot >= 0; slot -= 2) subject.add(slot, 1)
  for (let slot = 0; slot < 100; slot += 2) subject.add(slot, 1)
  subject.add(300_000, 9000)
  subject.add(1000, 3)
  await idle()
  expect(punched).toEqual([
    [0, 100],
    [300_000, 8192],
    [308_192, 808],
  ])
  expect(settled).toContainEqual([1000, 3, false])
  expect(subject.punchedBytes).toBe((100 + 9000) * pageBytes)
  await subject.stop()
})

it('lets the event loop turn among any number of runs that are too short to punch', async () => {
  const {
    puncher: subject,
    settled,
    idle,
  } = puncher(() => Promise.reject(new Error('nothing is long enough')))
  for (let slot = 0; slot < 40_000; slot += 2) subject.add(slot, 1)
  let most = 0
  let before = 0
  while (subject.queuedSlots > 0) {
    most = Math.max(most, settled.length - before)
    before = settled.length
    await nextTurn()
  }
  await idle()
  expect(settled).toHaveLength(20_000)
  expect(most).toBeLessThanOrEqual(2 * 1024)
  await subject.stop()
})

it('gives up only what is needed, and waits for a slice when all is under way', async () => {
  let finish = () => {}
  const { puncher: subject, settled } = puncher(
    () =>
      new Promise((resolve) => {
        finish = resolve
      }),
  )
  subject.add(0, 8192)
  subject.add(10_000, 64)
  await nextTurn()
  await nextTurn()
  // The first slice is being punched; the other run is still to be had.
  await subject.release(16)
  expect(settled).toEqual([[10_000, 16, false]])
  await subject.release(100)
  expect(settled.at(-1)).toEqual([10_016, 48, false])
  const released = subject.release(1)
  await nextTurn()
  expect(settled).toHaveLength(2)
  finish()
  await released
  expect(settled.at(-1)).toEqual([0, 8192, true])
  await subject.stop()
  expect(subject.queuedSlots).toBe(0)
})
