import { type Backup, memoryBackup } from '@spillway/core'
import { expect, it } from 'vitest'
import { BackingStore } from '../src/residency/backing-store.ts'
import { ImageState } from '../src/residency/image-state.ts'

/** More than a call takes as arguments. */
const many = 150_000

it('runs that a backup refuses to drop are kept to be tried again, however many they are', async () => {
  await using inner = memoryBackup()
  let isRefusing = true
  const backup: Backup = Object.assign(Object.create(inner), {
    drop: async () => {
      if (isRefusing) throw new Error('not now')
    },
  })
  const store = new BackingStore(backup)
  for (let run = 0; run < many; run++) store.drop(2 * run + 1, 1)
  await store.settled()
  expect(store.dropFailures).toBe(many)
  isRefusing = false
  await store.settled()
  expect(store.dropFailures).toBe(0)
})

it('runs that wait for the end of a save are handed to the save before it, however many they are', () => {
  const nothing: never = undefined as never
  const state = new ImageState(nothing, nothing)
  const [first, second] = [state.begin(), state.begin()]
  for (let run = 0; run < many; run++) state.defersDrop(2 * run + 1, 1)
  expect(state.end(second, undefined)).toEqual([])
  expect(state.end(first, undefined)).toHaveLength(many)
})
