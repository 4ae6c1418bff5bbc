import assert from 'node:assert/strict'
import type { Backup } from '../contract.ts'
import { countOf, rejectsWith, type Subject, singles } from './subject.ts'
import type { Suite } from './suite.ts'

/**
 * Every state of a backup, and what has to hold in it:
 *
 *   open ─▶ with live handles ─▶ after faults ─▶ closing ─▶ closed
 *   └───────────── usable traits ────────────┘  └─ refuses ──────┘
 */
export function lifecycle({ options, test }: Suite): void {
  for (const [state, enter] of Object.entries(usableStates)) {
    options.describe(`when ${state}`, () => {
      for (const [trait, check] of Object.entries(usableTraits)) {
        // As small as the traits allow: one of the states fills it page by page.
        test(trait, async (subject) => {
          await enter(subject)
          await check(subject)
        }, 16)
      }
    })
  }
  for (const [state, enter] of Object.entries(endStates)) {
    options.describe(`when ${state}`, () => {
      for (const [method, call] of Object.entries(methods)) {
        test(`${method} is EBADF`, async (subject) => {
          const leave = await enter(subject)
          await rejectsWith('EBADF', () => call(subject.backup, subject))
          await leave()
        })
      }
      test('close and its disposer do nothing more, and statistics are still told', async (subject) => {
        const leave = await enter(subject)
        await Promise.all([
          subject.backup.close(),
          subject.backup.close(),
          subject.backup[Symbol.asyncDispose](),
        ])
        assert.equal(typeof subject.backup.stats().livePages, 'number')
        assert.ok(Object.isFrozen(subject.backup.capabilities))
        await leave()
      })
    })
  }

  test('close waits for what is in flight, and a page that got its handle was stored', async (subject) => {
    const bytes = subject.pattern(512, 110)
    const settled: string[] = []
    const call = subject.backup.backupPages([bytes]).then((result) => {
      settled.push('backup')
      return result
    })
    await subject.backup.close().then(() => settled.push('close'))
    const result = await call
    assert.deepEqual(settled, ['backup', 'close'])
    assert.equal(countOf(result.handles) === 512, result.error === undefined)
  }, 512)

  test('close waits for copies and drops too', async (subject) => {
    const bytes = subject.pattern(60, 113)
    const handles = await subject.store(bytes)
    const spare = await subject.store(subject.pattern(4, 114))
    const into = subject.dirty(60)
    const copy = subject.backup.copyPages(handles, [into])
    const drop = subject.backup.drop(spare)
    await subject.backup.close()
    // Settled means that nobody writes into the caller's memory any more.
    const { copied, error } = await copy
    await drop
    assert.equal(error === undefined, copied === 60)
    const end = copied * subject.pageSizeBytes
    subject.assertBytes(into.subarray(0, end), bytes.subarray(0, end))
    assert.equal(subject.backup.stats().droppedPages, 4)
  })

  test('T10, B19: counts the handles that are still live at close as leaked', async (subject) => {
    const handles = await subject.store(subject.pattern(5, 111))
    await subject.backup.drop([{ first: handles[0].first, count: 1 }])
    assert.equal(subject.backup.stats().leakedPages, 0)
    await subject.backup.close()
    // Pages that are meant to outlive the process are not leaked.
    assert.equal(subject.backup.stats().leakedPages, subject.backup.capabilities.persistent ? 0 : 4)
    await subject.backup.close()
    assert.equal(subject.backup.stats().leakedPages, subject.backup.capabilities.persistent ? 0 : 4)
  })

  test('T10: a backup whose pages were all dropped leaks none', async (subject) => {
    await subject.backup.drop(await subject.store(subject.pattern(5, 112)))
    await subject.backup.close()
    assert.equal(subject.backup.stats().leakedPages, 0)
  })
}

const usableStates: Record<string, (subject: Subject) => Promise<void>> = {
  open: async () => {},
  'holding live handles': async (subject) => {
    await subject.store(subject.pattern(7, 120))
  },
  'recovering from faults': async (subject) => {
    const handles = await subject.store(subject.pattern(2, 121))
    await subject.backup.drop(handles)
    await rejectsWith('ESTALE', () => subject.backup.drop(handles))
    await rejectsWith('ESTALE', () => subject.backup.copyPages(handles, [subject.dirty(2)]))
    const aborted = await subject.backup.backupPages([subject.dirty(3)], { signal: AbortSignal.abort() })
    assert.deepEqual(aborted.handles, [])
    const full = await subject.fill(122)
    const refused = await subject.backup.backupPages([subject.pattern(2, 123)])
    assert.deepEqual(refused.handles, [])
    await subject.backup.drop(singles(full.handles.slice(0, subject.capacityPages / 2)))
  },
}

const usableTraits: Record<string, (subject: Subject) => Promise<void>> = {
  'stores, gives back and releases as much as it says it has room for': async (subject) => {
    const room = Math.floor((await subject.backup.bytesAvailable()) / subject.pageSizeBytes)
    assert.ok(room > 0, 'there is room')
    const pages = Math.min(room, 8)
    const bytes = subject.pattern(pages, 130)
    const handles = await subject.store(bytes)
    await subject.assertHolds(handles, bytes)
    const before = subject.backup.stats().livePages
    await subject.backup.drop(handles)
    assert.equal(subject.backup.stats().livePages, before - pages)
  },
  'counts what it does': async (subject) => {
    const before = subject.backup.stats()
    for (const [counter, value] of Object.entries(before)) {
      if (typeof value === 'number') assert.ok(value >= 0, `${counter} is ${value}`)
    }
    const pages = 4
    const handles = await subject.store(subject.pattern(pages, 131))
    await subject.backup.copyPages(handles, [subject.dirty(pages)])
    await subject.backup.drop(handles)
    const after = subject.backup.stats()
    assert.equal(after.backedUpPages, before.backedUpPages + pages)
    assert.equal(after.copiedPages, before.copiedPages + pages)
    assert.equal(after.droppedPages, before.droppedPages + pages)
    assert.equal(after.livePages, after.backedUpPages - after.droppedPages)
  },
  'says what it can in frozen data that does not change': async (subject) => {
    const { capabilities, name } = subject.backup
    assert.ok(Object.isFrozen(capabilities))
    assert.equal(typeof name, 'string')
    const { pageSizeBytes, preferredBatchPages, preferredCallsInFlight, medium, ...flags } = capabilities
    assert.equal(2 ** Math.round(Math.log2(pageSizeBytes)), pageSizeBytes, 'the page size is a power of two')
    for (const count of [preferredBatchPages, preferredCallsInFlight])
      assert.ok(Number.isInteger(count) && count > 0)
    assert.ok(typeof medium === 'string' && medium !== '')
    const names = ['persistent', 'shareable', 'reserves', 'detectsCorruption', 'stores'] as const
    for (const flag of names) assert.equal(typeof flags[flag], 'boolean', flag)
    const before = { ...capabilities }
    await subject.backup.backupPages([subject.dirty(1)])
    assert.deepEqual({ ...subject.backup.capabilities }, before)
  },
  'does nothing with empty batches': async (subject) => {
    assert.deepEqual((await subject.backup.backupPages([])).handles, [])
    assert.equal((await subject.backup.copyPages([], [])).copied, 0)
    await subject.backup.drop([])
  },
}

/** Ends of a backup's life; what they return is to be awaited at the end of the test. */
const endStates: Record<string, (subject: Subject) => Promise<() => Promise<unknown>>> = {
  closing: async (subject) => {
    const inFlight = subject.backup.backupPages([subject.dirty(48)])
    const closing = subject.backup.close()
    return () => Promise.all([inFlight, closing])
  },
  closed: async (subject) => {
    await subject.backup.close()
    return async () => {}
  },
}

const methods: Record<string, (backup: Backup, subject: Subject) => Promise<unknown>> = {
  backupPages: (backup, subject) => backup.backupPages([subject.dirty(1)]),
  copyPages: (backup, subject) => backup.copyPages([{ first: 1, count: 1 }], [subject.dirty(1)]),
  drop: (backup) => backup.drop([{ first: 1, count: 1 }]),
  bytesAvailable: (backup) => backup.bytesAvailable(),
  reserve: (backup, subject) => backup.reserve(subject.pageSizeBytes),
}
