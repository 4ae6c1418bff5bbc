import assert from 'node:assert/strict'
import { isSpillwayError } from '../errors.ts'
import { StartedCopy } from './started-copy.ts'
import { handlesOf, singles } from './subject.ts'
import type { Suite } from './suite.ts'

/** Stored bytes that changed behind the backup's back are told, never given back as data. */
export function corruption({ options, test }: Suite): void {
  const { corrupt } = options
  if (corrupt === undefined) return

  test('a damaged page is EBADMSG, stays so, and leaves its neighbours readable', async (subject) => {
    assert.ok(
      subject.backup.capabilities.detectsCorruption,
      'corrupt() is for backups that detect corruption',
    )
    const bytes = subject.pattern(3, 140)
    const handles = handlesOf(await subject.store(bytes))
    await corrupt(subject.backup, handles[1])
    for (let time = 0; time < 2; time++) {
      const into = subject.dirty(3)
      const { copied, error } = await subject.backup.copyPages(singles(handles), [into])
      assert.equal(copied, 1, 'the page before the damaged one was copied')
      assert.ok(isSpillwayError(error) && error.code === 'EBADMSG', `expected EBADMSG, got ${String(error)}`)
      assert.equal(error.handle, handles[1])
      subject.assertBytes(into.subarray(0, subject.pageSizeBytes), bytes.subarray(0, subject.pageSizeBytes))
    }
    await subject.assertHolds(singles([handles[2]]), bytes.subarray(2 * subject.pageSizeBytes))
  })

  test('a started copy of a damaged page is EBADMSG after the pages before it', async (subject) => {
    if (subject.backup.startCopy === undefined) return
    const bytes = subject.pattern(3, 142)
    const [run] = await subject.store(bytes)
    if (run.count < 3) return
    await corrupt(subject.backup, run.first + 1)
    for (let time = 0; time < 2; time++) {
      const copy = new StartedCopy(subject, run.first, subject.landing(3))
      if (!copy.began) return
      const { copied, error } = await copy.result(3)
      assert.equal(copied, 1, 'the page before the damaged one was copied')
      assert.ok(isSpillwayError(error) && error.code === 'EBADMSG', `expected EBADMSG, got ${String(error)}`)
      assert.equal(error.handle, run.first + 1)
      const end = subject.pageSizeBytes
      subject.assertBytes(copy.into.subarray(0, end), bytes.subarray(0, end))
    }
    await subject.assertHolds(singles([run.first + 2]), bytes.subarray(2 * subject.pageSizeBytes))
  })

  test('a damaged page can be dropped', async (subject) => {
    const handles = handlesOf(await subject.store(subject.pattern(2, 141)))
    await corrupt(subject.backup, handles[0])
    await subject.backup.copyPages(singles([handles[0]]), [subject.dirty(1)])
    await subject.backup.drop(singles(handles))
    assert.equal(subject.backup.stats().livePages, 0)
  })
}
