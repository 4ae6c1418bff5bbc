import assert from 'node:assert/strict'
import type { HandleRun } from '../contract.ts'
import { isSpillwayError } from '../errors.ts'
import { handlesOf, singles } from './subject.ts'
import type { Suite } from './suite.ts'

/** Any calls may overlap: nobody gets another's page, and each page is released once. */
export function concurrency({ test }: Suite): void {
  test('T83: many callers back up, copy and drop at once, each its own pages', async (subject) => {
    const caller = async (number: number): Promise<void> => {
      for (let round = 0; round < 4; round++) {
        const seed = 70 + number * 10 + round
        const bytes = subject.pattern(1 + ((number + round) % 5), seed)
        const handles = await subject.store(bytes)
        await subject.assertHolds(handles, bytes, `caller ${number}, page`)
        await subject.backup.drop(handles)
      }
    }
    await Promise.all(Array.from({ length: 12 }, (_, number) => caller(number)))
    assert.equal(subject.backup.stats().livePages, 0)
  })

  test('concurrent batches share no handle', async (subject) => {
    const batches = Array.from({ length: 8 }, (_, number) => subject.pattern(8, 80 + number))
    const stored = await Promise.all(batches.map((bytes) => subject.store(bytes)))
    assert.equal(new Set(stored.flatMap(handlesOf)).size, 64)
    await Promise.all(stored.map((handles, number) => subject.assertHolds(handles, batches[number])))
  })

  test('of two drops of the same pages at once exactly one succeeds', async (subject) => {
    const handles = await subject.store(subject.pattern(4, 90))
    const outcomes = await Promise.allSettled([subject.backup.drop(handles), subject.backup.drop(handles)])
    assert.deepEqual(outcomes.map(({ status }) => status).sort(), ['fulfilled', 'rejected'])
    const failure = outcomes.find(({ status }) => status === 'rejected') as PromiseRejectedResult
    assert.equal(failure.reason.code, 'ESTALE')
    assert.equal(subject.backup.stats().droppedPages, 4)
  })

  test('T84: a copy that races with a drop and a reuse gives the page or ESTALE, never another', async (subject) => {
    const pages = subject.capacityPages
    for (let round = 0; round < 3; round++) {
      const bytes = subject.pattern(pages, 91 + round)
      const handles = await subject.store(bytes)
      const into = subject.dirty(pages)
      const copy = subject.backup.copyPages(handles, [into]).catch(asStale)
      const reuse = subject.backup
        .drop(handles)
        .then(() => subject.backup.backupPages([subject.pattern(pages, 95)]))
      const [{ copied, error }, reused] = await Promise.all([copy, reuse])
      if (error !== undefined) asStale(error)
      else assert.equal(copied, pages)
      const end = copied * subject.pageSizeBytes
      subject.assertBytes(into.subarray(0, end), bytes.subarray(0, end), 'raced page')
      await subject.backup.drop(reused.handles)
    }
  }, 600)

  test('drops and backups in turn lose no room', async (subject) => {
    let held: readonly HandleRun[] = []
    for (let round = 0; round < 20; round++) {
      const bytes = subject.pattern(6, 100 + round)
      const [handles] = await Promise.all([
        subject.store(bytes),
        subject.backup.drop(singles(handlesOf(held).reverse())),
      ])
      await subject.assertHolds(handles, bytes)
      held = handles
    }
    assert.equal(subject.backup.stats().livePages, 6)
  }, 16)
}

function asStale(error: unknown): { copied: number; error?: Error } {
  if (isSpillwayError(error) && error.code === 'ESTALE') return { copied: 0, error }
  throw error
}
