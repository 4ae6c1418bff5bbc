import assert from 'node:assert/strict'
import { maxHandle } from '../tagging.ts'
import { handlesOf, refuses, rejectsWith, singles } from './subject.ts'
import type { Suite } from './suite.ts'

/** Handles of others, handles that nobody made, and numbers that are no handles. */
export function handleChecks({ test, open }: Suite): void {
  test('T83: a handle of another backup is ESTALE', async (subject) => {
    const other = await open()
    try {
      const foreign = await other.store(other.pattern(2, 30))
      const bytes = subject.pattern(2, 31)
      const own = await subject.store(bytes)
      await rejectsWith('ESTALE', () => subject.backup.copyPages(foreign, [subject.dirty(2)]))
      await rejectsWith('ESTALE', () => subject.backup.drop(foreign))
      await subject.assertHolds(own, bytes)
      await other.assertHolds(foreign, other.pattern(2, 30))
    } finally {
      await other.backup.close()
    }
  })

  test('a handle that was never given out is ESTALE, alone or at the end of a good run', async (subject) => {
    const handles = handlesOf(await subject.store(subject.pattern(3, 32)))
    const highest = Math.max(...handles)
    for (const forged of [1, maxHandle, highest + 1, highest + 1_000_000]) {
      if (handles.includes(forged)) continue
      const mixed = singles([...handles, forged])
      await rejectsWith('ESTALE', () => subject.backup.copyPages(mixed, [subject.dirty(4)]))
      await rejectsWith('ESTALE', () => subject.backup.drop(mixed))
    }
    await rejectsWith('ESTALE', () => subject.backup.drop([{ first: highest, count: 2 }]))
    assert.equal(subject.backup.stats().livePages, 3)
  })

  test('an error about a handle names it and the backup', async (subject) => {
    const handles = await subject.store(subject.pattern(1, 33))
    await subject.backup.drop(handles)
    await assert.rejects(
      () => subject.backup.drop(handles),
      (error: { handle?: number; backup?: string }) =>
        error.handle === handles[0].first && error.backup === subject.backup.name,
    )
  })

  test('refuses what no handle can be, and no run of handles', async (subject) => {
    const numbers: [number, number][] = [
      [0, 1],
      [-1, 1],
      [1.5, 1],
      [Number.NaN, 1],
      [Number.POSITIVE_INFINITY, 1],
      [2 ** 52, 1],
      [maxHandle, 2],
      [1, 0],
      [1, -1],
      [1, 0.5],
      [1, Number.NaN],
    ]
    for (const [first, count] of numbers) {
      const run = [{ first, count }]
      const what = `{ first: ${first}, count: ${count} }`
      await refuses(RangeError, what, () => subject.backup.drop(run))
      await refuses(RangeError, what, () => subject.backup.copyPages(run, [subject.dirty(1)]))
    }
    for (const run of [null, undefined, 7]) {
      await refuses(TypeError, `${run}`, () => subject.backup.drop([run as never]))
      await refuses(TypeError, `${run}`, () => subject.backup.copyPages([run as never], [subject.dirty(1)]))
    }
  })
}
