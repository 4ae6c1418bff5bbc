import assert from 'node:assert/strict'
import { handlesOf, refuses, singles } from './subject.ts'
import type { Suite } from './suite.ts'

/** Mistakes of the caller are refused before anything is done, and leave no trace. */
export function misuse({ test, open }: Suite): void {
  test('refuses spans that are not whole pages', async (subject) => {
    const before = subject.backup.stats()
    for (const bytes of [0, 1, subject.pageSizeBytes - 1, subject.pageSizeBytes + 1]) {
      const spans = [subject.pattern(1, 40), new Uint8Array(bytes)]
      await refuses(RangeError, `${bytes} bytes`, () => subject.backup.backupPages(spans))
      await refuses(RangeError, `${bytes} bytes`, () => subject.backup.copyPages(singles([1, 2]), spans))
    }
    assert.deepEqual(subject.backup.stats(), before)
  })

  test('refuses spans that are no Uint8Array', async (subject) => {
    const wrong = [null, undefined, 'page', new ArrayBuffer(subject.pageSizeBytes), [1, 2], {}]
    const views = [
      new DataView(new ArrayBuffer(subject.pageSizeBytes)),
      new Uint32Array(subject.pageSizeBytes / 4),
    ]
    for (const span of [...wrong, ...views]) {
      await refuses(TypeError, String(span), () => subject.backup.backupPages([span as never]))
      await refuses(TypeError, String(span), () => subject.backup.copyPages(singles([1]), [span as never]))
    }
  })

  test('refuses as many handles as there are not pages', async (subject) => {
    const handles = handlesOf(await subject.store(subject.pattern(3, 41)))
    const into = [subject.dirty(3)]
    await refuses(RangeError, 'too few', () => subject.backup.copyPages(singles(handles.slice(1)), into))
    await refuses(RangeError, 'too many', () =>
      subject.backup.copyPages(singles([...handles, handles[0]]), into),
    )
    await refuses(RangeError, 'none', () => subject.backup.copyPages([], into))
  })

  test('refuses options that it does not know, and values that are none', async (subject) => {
    const { backup } = subject
    const span = subject.pattern(1, 42)
    for (const options of [{ writeBack: true }, { signal: {} }, { writeback: 'yes' }, { retryMayFail: 1 }]) {
      const what = JSON.stringify(options)
      await refuses(TypeError, what, () => backup.backupPages([span], options as never))
    }
    const handles = await subject.store(span)
    for (const options of [{ writeback: true }, { abort: true }, { signal: 'now' }, { retryMayFail: 'no' }]) {
      const what = JSON.stringify(options)
      await refuses(TypeError, what, () => backup.copyPages(handles, [span], options as never))
    }
    assert.equal(backup.stats().backedUpPages, 1)
  })

  test('refuses to reserve what is no number of bytes, and reservations of others', async (subject) => {
    for (const bytes of [-1, 0.5, Number.NaN, Number.POSITIVE_INFINITY, 2 ** 53]) {
      await refuses(RangeError, `${bytes}`, () => subject.backup.reserve(bytes))
    }
    const foreign = { bytes: 1, release: async () => {}, [Symbol.asyncDispose]: async () => {} }
    const span = subject.pattern(1, 43)
    await refuses(TypeError, 'forged', () => subject.backup.backupPages([span], { reservation: foreign }))
    if (!subject.backup.capabilities.reserves) return
    const other = await open()
    try {
      const reservation = await other.backup.reserve(subject.pageSizeBytes)
      await refuses(TypeError, 'foreign', () => subject.backup.backupPages([span], { reservation }))
    } finally {
      await other.backup.close()
    }
  })
}
