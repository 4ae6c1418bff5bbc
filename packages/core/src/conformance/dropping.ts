import assert from 'node:assert/strict'
import { handlesOf, rejectsWith, singles } from './subject.ts'
import type { Suite } from './suite.ts'

/** A drop releases exactly the pages that were named, once. */
export function dropping({ test }: Suite): void {
  test('T4, B1: dropping a page leaves its neighbours, the first and the last included', async (subject) => {
    const pages = 9
    const bytes = subject.pattern(pages, 20)
    const handles = handlesOf(await subject.store(bytes))
    const live = new Set(handles.keys())
    for (const victim of [0, pages - 1, 4, 3]) {
      await subject.backup.drop(singles([handles[victim]]))
      live.delete(victim)
      for (const page of live) {
        const expected = bytes.subarray(page * subject.pageSizeBytes, (page + 1) * subject.pageSizeBytes)
        await subject.assertHolds(
          singles([handles[page]]),
          expected,
          `after the drop of ${victim}: page ${page}, `,
        )
      }
    }
    assert.equal(subject.backup.stats().livePages, pages - 4)
  })

  test('T5: reading what was dropped is ESTALE, never zeros', async (subject) => {
    const handles = await subject.store(subject.pattern(2, 21))
    await subject.backup.drop(handles)
    const into = subject.dirty(2)
    await rejectsWith('ESTALE', () => subject.backup.copyPages(handles, [into]))
    subject.assertBytes(into, subject.dirty(2))
  })

  test('dropping twice is ESTALE', async (subject) => {
    const handles = await subject.store(subject.pattern(2, 22))
    await subject.backup.drop(handles)
    await rejectsWith('ESTALE', () => subject.backup.drop(handles))
    assert.equal(subject.backup.stats().droppedPages, 2)
  })

  test('drops all of a list or none: a handle that is not live, or one named twice', async (subject) => {
    const bytes = subject.pattern(4, 23)
    const handles = handlesOf(await subject.store(bytes))
    await subject.backup.drop(singles([handles[3]]))
    await rejectsWith('ESTALE', () => subject.backup.drop(singles(handles)))
    await rejectsWith('ESTALE', () => subject.backup.drop(singles([handles[0], handles[1], handles[0]])))
    await rejectsWith('ESTALE', () =>
      subject.backup.drop([{ first: handles[2], count: 1 }, ...singles([handles[2]])]),
    )
    assert.equal(subject.backup.stats().livePages, 3)
    await subject.assertHolds(singles(handles.slice(0, 3)), bytes.subarray(0, 3 * subject.pageSizeBytes))
  })

  test('T84: a handle whose place was used again is stale, and its page is nobody else’s', async (subject) => {
    const old: number[] = []
    for (let round = 0; round < 4; round++) {
      const bytes = subject.pattern(subject.capacityPages, 24 + round)
      const handles = await subject.store(bytes)
      for (const handle of old) {
        const stale = singles([handle])
        await rejectsWith('ESTALE', () => subject.backup.copyPages(stale, [subject.dirty(1)]))
        await rejectsWith('ESTALE', () => subject.backup.drop(stale))
      }
      await subject.assertHolds(handles, bytes)
      old.push(...handlesOf(handles))
      await subject.backup.drop(handles)
    }
    assert.equal(subject.backup.stats().livePages, 0)
  }, 4)
}
