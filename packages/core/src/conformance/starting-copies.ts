import assert from 'node:assert/strict'
import type { HandleRun } from '../contract.ts'
import { isSpillwayError } from '../errors.ts'
import { sliceBytes, yieldToEventLoop } from '../pace.ts'
import { CopyStarter, StartedCopy } from './started-copy.ts'
import { countOf, handlesOf, rejectsWith, type Subject, singles } from './subject.ts'
import type { Suite } from './suite.ts'
import { uncaughtDuring } from './uncaught.ts'

/** Copies without a promise: what `startCopy` begins ends once, with a prefix; what it does not begin it leaves alone. */
export function startingCopies({ options, test: register }: Suite): void {
  const test = (
    name: string,
    body: (subject: Subject, starter: CopyStarter) => Promise<void>,
    capacityPages?: number,
  ): void => {
    register(
      name,
      async (subject) => {
        if (subject.backup.startCopy === undefined) {
          assert.ok(!options.startsCopies, 'startsCopies is for backups that have startCopy')
          return
        }
        await body(subject, new CopyStarter(subject, options.startsCopies === true))
      },
      capacityPages,
    )
  }
  results(test)
  refusals(test)
  calls(test)
  competition(test)
}

type Register = (
  name: string,
  body: (subject: Subject, starter: CopyStarter) => Promise<void>,
  capacityPages?: number,
) => void

function results(test: Register): void {
  test('a started copy fills the span with the pages from its first handle on', async (subject, starter) => {
    const bytes = subject.pattern(8, 300)
    const page = (from: number, to: number) =>
      bytes.subarray(from * subject.pageSizeBytes, to * subject.pageSizeBytes)
    for (const run of await withPlaces(subject, bytes)) {
      await starter.assertHolds(run, page(run.place, run.place + run.count))
      for (let index = 0; index < run.count; index++) {
        const place = run.place + index
        await starter.assertHolds({ first: run.first + index, count: 1 }, page(place, place + 1))
      }
    }
  })

  test('a started copy keeps the stored page, and counts what arrived', async (subject, starter) => {
    const bytes = subject.pattern(1, 301)
    const [{ first }] = await subject.store(bytes)
    const before = subject.backup.stats()
    for (let time = 0; time < 3; time++) await starter.assertHolds({ first, count: 1 }, bytes)
    const after = subject.backup.stats()
    assert.equal(after.copiedPages, before.copiedPages + 3)
    assert.equal(after.livePages, before.livePages)
    await subject.assertHolds(singles([first]), bytes)
  })

  test('a started copy writes into its span alone, wherever that lies', async (subject) => {
    const bytes = subject.pattern(1, 302)
    const [{ first }] = await subject.store(bytes)
    const memory = [
      new Uint8Array(subject.pageSizeBytes + 2),
      new Uint8Array(
        new ArrayBuffer(subject.pageSizeBytes + 2, { maxByteLength: subject.pageSizeBytes * 4 }),
      ),
    ]
    for (const around of memory) {
      around.fill(0xee)
      const into = around.subarray(1, 1 + subject.pageSizeBytes)
      const copy = new StartedCopy(subject, first, into)
      if (!copy.began) continue
      assert.equal((await copy.result(1)).copied, 1)
      subject.assertBytes(into, bytes)
      assert.deepEqual([around[0], around.at(-1)], [0xee, 0xee], 'the bytes around the span are untouched')
    }
  })

  test('what is copied before startCopy returns is at most a slice', async (subject) => {
    const pages = subject.capacityPages
    const [{ first, count }] = await subject.store(subject.pattern(pages, 303))
    const slicePages = sliceBytes / subject.pageSizeBytes
    for (const wanted of [1, slicePages, slicePages + 1, count]) {
      if (wanted < 1 || wanted > count) continue
      const copy = new StartedCopy(subject, first, subject.landing(wanted))
      const isLong = wanted * subject.pageSizeBytes > sliceBytes
      assert.ok(!(isLong && copy.wasAtOnce), `${wanted} pages were copied at once`)
      if (copy.began) await copy.result(wanted)
    }
  }, 600)
}

function refusals(test: Register): void {
  test('startCopy refuses mistakes of the caller, and leaves no trace', async (subject) => {
    const [{ first }] = await subject.store(subject.pattern(2, 310))
    const before = subject.backup.stats()
    let told = 0
    const start = (handle: unknown, span: unknown, done: unknown = () => told++) =>
      subject.backup.startCopy?.(handle as number, span as Uint8Array, done as () => void)
    const page = subject.dirty(1)
    for (const handle of [0, -1, 0.5, Number.NaN, 2 ** 53, '1', undefined]) {
      assert.throws(() => start(handle, page), RangeError, `handle ${handle}`)
    }
    for (const bytes of [0, 1, subject.pageSizeBytes - 1, subject.pageSizeBytes + 1]) {
      assert.throws(() => start(first, new Uint8Array(bytes)), RangeError, `${bytes} bytes`)
    }
    for (const span of [undefined, null, [page], page.buffer, new Uint32Array(page.buffer)]) {
      assert.throws(() => start(first, span), TypeError, String(span))
    }
    for (const done of [null, 1, {}]) assert.throws(() => start(first, page, done), TypeError, String(done))
    await yieldToEventLoop()
    assert.equal(told, 0, 'done is not called for a mistake')
    assert.deepEqual(subject.backup.stats(), before)
    subject.assertBytes(page, subject.dirty(1))
    await subject.backup.close()
    assert.throws(() => start(0, page), RangeError, 'a mistake stays one when the backup is closed')
  })

  test('startCopy does not begin when a handle is not live, and copyPages says ESTALE', async (subject) => {
    const [run] = await withPlaces(subject, subject.pattern(6, 311))
    const handles = handlesOf([run])
    const last = handles[handles.length - 1]
    await subject.backup.drop(singles([last]))
    const before = subject.backup.stats()
    for (const first of handles) {
      const into = subject.landing(last - first + 1)
      const copy = new StartedCopy(subject, first, into)
      assert.equal(copy.began, false, 'a run with a handle that is not live')
      subject.assertBytes(into, subject.dirty(last - first + 1))
    }
    await yieldToEventLoop()
    assert.deepEqual(subject.backup.stats(), before)
    await rejectsWith('ESTALE', () => subject.backup.copyPages(singles([last]), [subject.dirty(1)]))
  })

  test('startCopy does not begin when the backup is closing or closed', async (subject) => {
    const [{ first }] = await subject.store(subject.pattern(1, 312))
    const closing = subject.backup.close()
    const copies = [new StartedCopy(subject, first, subject.landing(1))]
    await closing
    copies.push(new StartedCopy(subject, first, subject.landing(1)))
    assert.deepEqual([copies[0].began, copies[1].began], [false, false])
    for (const { into } of copies) subject.assertBytes(into, subject.dirty(1))
    await rejectsWith('EBADF', () => subject.backup.copyPages(singles([first]), [subject.dirty(1)]))
  })
}

function calls(test: Register): void {
  test('done finds the backup consistent, and may call any of its methods', async (subject, starter) => {
    const { backup } = subject
    const bytes = subject.pattern(3, 320)
    const handles = handlesOf(await subject.store(bytes))
    const before = backup.stats().copiedPages
    const settled: Promise<unknown>[] = []
    let counted = before
    const outer = starter.start(handles[0], 1, () => {
      counted = backup.stats().copiedPages
      settled.push(backup.drop(singles([handles[1]])), subject.store(subject.pattern(2, 321)))
      settled.push(subject.assertHolds(singles([handles[2]]), bytes.subarray(2 * subject.pageSizeBytes)))
      settled.push(backup.bytesAvailable())
      const inner = starter.start(handles[0], 1)
      if (inner.began) settled.push(inner.result(1))
    })
    if (!outer.began) return
    assert.equal((await outer.result(1)).copied, 1)
    assert.equal(counted, before + 1, 'a copy is counted when it is told')
    assert.equal(settled.length >= 4, true, 'done ran to its end')
    await Promise.all(settled)
    assert.equal(backup.stats().livePages, 4)
    await subject.assertHolds(singles([handles[0]]), bytes.subarray(0, subject.pageSizeBytes))
  })

  test('done may start the next copy, again and again', async (subject, starter) => {
    const bytes = subject.pattern(4, 322)
    const handles = handlesOf(await subject.store(bytes))
    const before = subject.backup.stats().copiedPages
    const copies: StartedCopy[] = []
    let started = 0
    const next = (): void => {
      if (started < 50) copies.push(starter.start(handles[started++ % 4], 1, next))
    }
    next()
    // The list grows while it is walked where `done` comes later.
    for (const copy of copies) if (copy.began) assert.equal((await copy.result(1)).copied, 1)
    const begun = copies.filter((copy) => copy.began).length
    assert.equal(subject.backup.stats().copiedPages, before + begun)
  })

  test('close waits for the copies that were started', async (subject, starter) => {
    const bytes = subject.pattern(60, 323)
    const handles = handlesOf(await subject.store(bytes))
    const copies = handles.map((handle) => starter.start(handle, 1))
    await subject.backup.close()
    for (const [page, copy] of copies.entries()) {
      if (!copy.began) continue
      assert.equal(copy.calls, 1, 'done was called before close was over')
      const { copied } = await copy.result(1)
      const bytesOfPage = bytes.subarray(page * subject.pageSizeBytes, (page + 1) * subject.pageSizeBytes)
      if (copied === 1) subject.assertBytes(copy.into, bytesOfPage, `copy of ${page}, page`)
    }
  })

  test('done may close the backup', async (subject, starter) => {
    const [{ first }] = await subject.store(subject.pattern(1, 324))
    let closed: Promise<void> | undefined
    const copy = starter.start(first, 1, () => {
      closed = subject.backup.close()
    })
    if (copy.began) await copy.result(1)
    await closed
    if (copy.began) await rejectsWith('EBADF', () => subject.backup.bytesAvailable())
  })

  test('an error that done throws is uncaught, and stops nothing else', async (subject, starter) => {
    const bytes = subject.pattern(4, 325)
    const handles = handlesOf(await subject.store(bytes))
    const before = subject.backup.stats().copiedPages
    const failure = new Error('thrown by done')
    const copies: StartedCopy[] = []
    const uncaught = await uncaughtDuring(async () => {
      for (const handle of handles) {
        const throws = () => {
          throw failure
        }
        copies.push(starter.start(handle, 1, handle === handles[1] ? throws : undefined))
      }
      for (const copy of copies) if (copy.began) assert.equal((await copy.result(1)).copied, 1)
      await yieldToEventLoop()
    })
    const begun = copies.filter((copy) => copy.began).length
    assert.equal(subject.backup.stats().copiedPages, before + begun)
    if (uncaught !== undefined) assert.deepEqual(uncaught, copies[1].began ? [failure] : [])
    await subject.assertHolds(singles(handles), bytes)
  })
}

function competition(test: Register): void {
  test('T84: a started copy that is dropped on its way gives a prefix and ESTALE, never another page', async (subject) => {
    const pages = subject.capacityPages
    for (let round = 0; round < 3; round++) {
      const bytes = subject.pattern(pages, 330 + round)
      const handles = await subject.store(bytes)
      const copies = handlesOf(handles).map((handle) => new StartedCopy(subject, handle, subject.landing(1)))
      await subject.backup.drop(handles)
      const reused = await subject.backup.backupPages([subject.pattern(pages, 340)])
      for (const [page, copy] of copies.entries()) {
        if (!copy.began) continue
        const { copied, error } = await copy.result(1)
        if (error !== undefined) assertStale(error)
        const expected = bytes.subarray(page * subject.pageSizeBytes, (page + 1) * subject.pageSizeBytes)
        if (copied === 1) subject.assertBytes(copy.into, expected, `copy of ${page}, page`)
      }
      await subject.backup.drop(reused.handles)
    }
  })

  test('T84: a started copy of many pages that loses the last gives the ones before it, or all', async (subject) => {
    const bytes = subject.pattern(32, 350)
    const [run] = await withPlaces(subject, bytes)
    const copy = new StartedCopy(subject, run.first, subject.landing(run.count))
    await subject.backup.drop(singles([run.first + run.count - 1]))
    await subject.store(subject.pattern(1, 351))
    if (!copy.began) return
    const { copied, error } = await copy.result(run.count)
    if (error !== undefined) assertStale(error)
    const end = copied * subject.pageSizeBytes
    subject.assertBytes(copy.into.subarray(0, end), bytes.subarray(0, end))
  })

  test('T83: started copies, calls and drops go side by side, each its own pages', async (subject, starter) => {
    const caller = async (number: number): Promise<void> => {
      for (let round = 0; round < 6; round++) {
        const bytes = subject.pattern(1 + ((number + round) % 4), 360 + number * 10 + round)
        const handles = await subject.store(bytes)
        let page = 0
        for (const run of handles) {
          const end = (page + run.count) * subject.pageSizeBytes
          const expected = bytes.subarray(page * subject.pageSizeBytes, end)
          await Promise.all([starter.assertHolds(run, expected), subject.assertHolds([run], expected)])
          page += run.count
        }
        await subject.backup.drop(handles)
      }
    }
    await Promise.all(Array.from({ length: 12 }, (_, number) => caller(number)))
    assert.equal(subject.backup.stats().livePages, 0)
  })
}

/** Stores pages; the runs of their handles, each with the place of its first page. */
async function withPlaces(
  subject: Subject,
  bytes: Uint8Array,
): Promise<(HandleRun & { readonly place: number })[]> {
  const handles = await subject.store(bytes)
  return handles.map((run, index) => ({ ...run, place: countOf(handles.slice(0, index)) }))
}

function assertStale(error: Error): void {
  assert.ok(isSpillwayError(error) && error.code === 'ESTALE', `expected ESTALE, got ${String(error)}`)
}
