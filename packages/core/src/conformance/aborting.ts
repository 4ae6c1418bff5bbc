import assert from 'node:assert/strict'
import { getEventListeners } from 'node:events'
import { isSpillwayError } from '../errors.ts'
import { yieldToEventLoop } from '../pace.ts'
import { countOf } from './subject.ts'
import type { Suite } from './suite.ts'

const batchPages = 1024

/** An abort stops a call before its next piece of work; what was done is told, and the rest can be done later (T6). */
export function aborting({ test }: Suite): void {
  test('T6: does nothing when the signal was aborted before, and says EINTR with the reason', async (subject) => {
    const bytes = subject.pattern(2, 60)
    const handles = await subject.store(bytes)
    const reason = new Error('enough')
    const signal = AbortSignal.abort(reason)
    const backedUp = await subject.backup.backupPages([bytes], { signal })
    assert.deepEqual(backedUp.handles, [])
    assertAborted(backedUp.error, reason)
    const into = subject.dirty(2)
    const copied = await subject.backup.copyPages(handles, [into], { signal })
    assert.equal(copied.copied, 0)
    assertAborted(copied.error, reason)
    assert.equal(subject.backup.stats().livePages, 2)
    await subject.assertHolds(handles, bytes)
  })

  test(
    'T6: a backup aborted on its way keeps a prefix, and goes on from there',
    async (subject) => {
      const bytes = subject.pattern(batchPages, 61)
      for (let turns = 0; turns < 4; turns++) {
        const controller = new AbortController()
        const reason = new Error(`after ${turns} turns`)
        const call = subject.backup.backupPages([bytes], { signal: controller.signal })
        await turnsOfEventLoop(turns)
        controller.abort(reason)
        const result = await call
        const stored = countOf(result.handles)
        if (result.error !== undefined) assertAborted(result.error, reason)
        assert.equal(
          result.error === undefined,
          stored === batchPages,
          'an error exactly when pages are missing',
        )
        await subject.assertHolds(result.handles, bytes.subarray(0, stored * subject.pageSizeBytes))
        const rest = bytes.subarray(stored * subject.pageSizeBytes)
        const restHandles = await subject.store(rest)
        await subject.assertHolds(restHandles, rest)
        assert.equal(subject.backup.stats().livePages, batchPages)
        await subject.backup.drop([...result.handles, ...restHandles])
      }
    },
    batchPages,
  )

  test(
    'T6: a copy aborted on its way says how far it came, and can be repeated',
    async (subject) => {
      const bytes = subject.pattern(batchPages, 62)
      const handles = await subject.store(bytes)
      for (let turns = 0; turns < 4; turns++) {
        const controller = new AbortController()
        const reason = { turns }
        const into = subject.dirty(batchPages)
        const call = subject.backup.copyPages(handles, [into], { signal: controller.signal })
        await turnsOfEventLoop(turns)
        controller.abort(reason)
        const { copied, error } = await call
        if (error !== undefined) assertAborted(error, reason)
        assert.equal(error === undefined, copied === batchPages, 'an error exactly when pages are missing')
        const end = copied * subject.pageSizeBytes
        subject.assertBytes(into.subarray(0, end), bytes.subarray(0, end))
      }
      await subject.assertHolds(handles, bytes)
    },
    batchPages,
  )

  test('leaves no listener on a signal that outlives the call', async (subject) => {
    const { signal } = new AbortController()
    const bytes = subject.pattern(4, 63)
    const { handles } = await subject.backup.backupPages([bytes], { signal })
    await subject.backup.copyPages(handles, [bytes], { signal })
    assert.equal(getEventListeners(signal, 'abort').length, 0) // Jest has a realm of its own for lists.
  })
}

async function turnsOfEventLoop(turns: number): Promise<void> {
  for (let turn = 0; turn < turns; turn++) await yieldToEventLoop()
}

function assertAborted(error: Error | undefined, reason: unknown): void {
  assert.ok(isSpillwayError(error), `expected EINTR, got ${String(error)}`)
  assert.equal(error.code, 'EINTR')
  assert.equal(error.cause, reason, 'the cause is the reason of the signal')
}
