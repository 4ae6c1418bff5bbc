import assert from 'node:assert/strict'
import { asFullError, handlesOf, singles } from './subject.ts'
import type { Suite } from './suite.ts'

/** Pages that could be stored in less space than others are stored, told of and released like them. */
export function compressibleData({ test }: Suite): void {
  test('T8: takes as many pages that could take less space as any others, and their room is free again after a drop', async (subject) => {
    const { backup, capacityPages, pageSizeBytes } = subject
    for (let round = 0; round < 2; round++) {
      const before = await backup.bytesAvailable()
      const bytes = subject.compressible(capacityPages, 400 + round, true)
      const handles = await subject.store(bytes)
      await subject.assertHolds(handles, bytes)
      await subject.assertHolds(singles(handlesOf(handles).reverse()), reversedPages(bytes, pageSizeBytes))
      const room = Math.floor((await backup.bytesAvailable()) / pageSizeBytes)
      const more = subject.pattern(Math.min(room, 4), 410)
      const others = room > 0 ? await subject.store(more) : []
      if (room > 0) await subject.assertHolds(others, more)
      await backup.drop([...singles(handlesOf(handles).filter((_, index) => index % 3 === 0)), ...others])
      await backup.drop(singles(handlesOf(handles).filter((_, index) => index % 3 !== 0)))
      assert.ok((await backup.bytesAvailable()) >= before, 'as much room as before')
      const any = subject.pattern(capacityPages, 420)
      const anyHandles = await subject.store(any)
      await subject.assertHolds(anyHandles, any)
      await backup.drop(anyHandles)
    }
  }, 48)

  test('keeps the promise of a reservation for pages that could take less space', async (subject) => {
    const { backup, pageSizeBytes } = subject
    if (!backup.capabilities.reserves) return
    const reservation = await backup.reserve(8 * pageSizeBytes)
    await subject.fill(450)
    const bytes = subject.compressible(8, 460, true)
    const result = await backup.backupPages([bytes], { reservation })
    subject.assertComplete(result, [bytes])
    assert.ok(reservation.bytes <= 8 * pageSizeBytes)
    await reservation.release()
    assert.equal(reservation.bytes, 0)
    await subject.assertHolds(result.handles, bytes)
  }, 16)
}

/** Where space is saved, it is not lost again with what is dropped here and there. */
export function droppedHereAndThere({ test }: Suite): void {
  test('T84: finds room where pages that take less space were dropped here and there', async (subject) => {
    const { backup, capacityPages, pageSizeBytes } = subject
    const held: { handle: number; bytes: Uint8Array }[] = []
    for (let batch = 0; batch < 40; batch++) {
      const bytes = subject.compressible(capacityPages, 430 + batch, false)
      const { handles, error } = await backup.backupPages([bytes])
      for (const [page, handle] of handlesOf(handles).entries()) {
        held.push({ handle, bytes: bytes.subarray(page * pageSizeBytes, (page + 1) * pageSizeBytes) })
      }
      if (error === undefined) continue
      asFullError(error)
      break
    }
    assert.ok(held.length >= capacityPages, `stored ${held.length} pages`)
    const [dropped, kept] = [0, 1].map((parity) => held.filter((_, index) => index % 2 === parity))
    await backup.drop(singles(dropped.map(({ handle }) => handle)))
    const fresh = subject.pattern(Math.floor(capacityPages / 4), 440)
    await subject.assertHolds(await subject.store(fresh), fresh)
    for (const { handle, bytes } of kept) await subject.assertHolds(singles([handle]), bytes)
  }, 48)
}

function reversedPages(bytes: Uint8Array, pageSizeBytes: number): Uint8Array {
  const reversed = new Uint8Array(bytes.byteLength)
  for (let start = 0; start < bytes.byteLength; start += pageSizeBytes) {
    reversed.set(bytes.subarray(start, start + pageSizeBytes), bytes.byteLength - pageSizeBytes - start)
  }
  return reversed
}
