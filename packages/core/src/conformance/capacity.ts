import assert from 'node:assert/strict'
import { asFullError, countOf, handlesOf, rejectsWith, singles } from './subject.ts'
import type { Suite } from './suite.ts'

/** A full backup stores a prefix, says so, and goes on when there is room; what it says of its room is true. */
export function capacity({ test }: Suite): void {
  test('T8: stores a prefix when it is full, says ENOSPC, and goes on after a drop', async (subject) => {
    const pages = subject.capacityPages + 5
    const bytes = subject.pattern(pages, 50)
    const result = await subject.backup.backupPages([bytes])
    assert.ok(result.error !== undefined, 'a call that did not store every page says why')
    asFullError(result.error)
    const stored = countOf(result.handles)
    assert.ok(
      stored > 0 && stored <= subject.capacityPages,
      `stored ${stored} of ${subject.capacityPages} pages`,
    )
    await subject.assertHolds(result.handles, bytes.subarray(0, stored * subject.pageSizeBytes))
    assert.equal(subject.backup.stats().livePages, stored)

    const again = await subject.backup.backupPages([subject.pattern(1, 51)])
    assert.deepEqual(again.handles, [])
    asFullError(again.error!)

    await subject.backup.drop(result.handles)
    const rest = bytes.subarray(stored * subject.pageSizeBytes)
    await subject.assertHolds(await subject.store(rest), rest)
  }, 16)

  test('T84: finds room wherever pages were dropped', async (subject) => {
    const { handles, bytes } = await subject.fill(52)
    const victims = handles.filter((_, index) => index % 2 === 0)
    await subject.backup.drop(singles(victims))
    const fresh = subject.pattern(victims.length, 53)
    await subject.assertHolds(await subject.store(fresh), fresh)
    for (const [index, handle] of handles.entries()) {
      if (index % 2 === 1) await subject.assertHolds(singles([handle]), bytes[index])
    }
  }, 16)

  test('T8: says honestly how much more it takes', async (subject) => {
    const { backup, pageSizeBytes, capacityPages } = subject
    const atFirst = await backup.bytesAvailable()
    assert.ok(Number.isSafeInteger(atFirst) && atFirst >= pageSizeBytes, `${atFirst} bytes`)
    assert.ok(atFirst <= capacityPages * pageSizeBytes, `${atFirst} bytes is more than it was opened for`)
    await subject.store(subject.pattern(5, 54))
    const after = await backup.bytesAvailable()
    assert.ok(after <= atFirst - 5 * pageSizeBytes, `${after} bytes left of ${atFirst} after 5 pages`)
    const { handles } = await subject.fill(55)
    assert.ok((await backup.bytesAvailable()) < pageSizeBytes, 'a full backup has no page left')
    await backup.drop(singles(handles))
    assert.ok((await backup.bytesAvailable()) >= pageSizeBytes, 'there is room again after a drop')
  }, 16)

  test('keeps the promise of a reservation, or says ENOSYS', async (subject) => {
    const { backup, pageSizeBytes } = subject
    if (!backup.capabilities.reserves) {
      await rejectsWith('ENOSYS', () => backup.reserve(pageSizeBytes))
      return
    }
    const before = await backup.bytesAvailable()
    const reservation = await backup.reserve(6 * pageSizeBytes)
    assert.equal(reservation.bytes, 6 * pageSizeBytes)
    assert.ok((await backup.bytesAvailable()) <= before - 6 * pageSizeBytes)
    await rejectsWith('ENOSPC', () => backup.reserve(before))
    await subject.fill(56)
    const bytes = subject.pattern(6, 57)
    const first = bytes.subarray(0, 4 * pageSizeBytes)
    const result = await backup.backupPages([first], { reservation })
    subject.assertComplete(result, [first])
    assert.equal(reservation.bytes, 2 * pageSizeBytes)
    const rest = bytes.subarray(4 * pageSizeBytes)
    subject.assertComplete(await backup.backupPages([rest], { reservation }), [rest])
    assert.equal(reservation.bytes, 0)
    await subject.assertHolds(result.handles, first)
  }, 16)

  test('a released reservation is free for all, and releasing twice does nothing', async (subject) => {
    const { backup, pageSizeBytes } = subject
    if (!backup.capabilities.reserves) {
      await rejectsWith('ENOSYS', () => backup.reserve(0))
      return
    }
    const before = await backup.bytesAvailable()
    const reservation = await backup.reserve(3 * pageSizeBytes)
    await reservation.release()
    await reservation.release()
    await reservation[Symbol.asyncDispose]()
    assert.equal(reservation.bytes, 0)
    assert.equal(await backup.bytesAvailable(), before)
    assert.equal((await backup.reserve(0)).bytes, 0)
    assert.equal(handlesOf(await subject.store(subject.pattern(1, 58))).length, 1)
  }, 16)
}
