import assert from 'node:assert/strict'
import { countOf, handlesOf, singles } from './subject.ts'
import type { Suite } from './suite.ts'

/** What goes in comes out: batches, order, odd memory, copies that keep the stored copy. */
export function roundTrip({ test }: Suite): void {
  test('gives back one page as it was', async (subject) => {
    const bytes = subject.pattern(1, 1)
    const handles = await subject.store(bytes)
    await subject.assertHolds(handles, bytes)
  })

  test('gives back a page of zeros over memory that held something', async (subject) => {
    const handles = await subject.store(new Uint8Array(subject.pageSizeBytes))
    await subject.assertHolds(handles, new Uint8Array(subject.pageSizeBytes))
  })

  test('T11: takes many spans of unequal size in one call and keeps their order', async (subject) => {
    const whole = subject.pattern(22, 2)
    const sizes = [1, 3, 1, 8, 2, 7]
    const spans: Uint8Array[] = []
    let page = 0
    for (const pages of sizes) {
      spans.push(whole.slice(page * subject.pageSizeBytes, (page + pages) * subject.pageSizeBytes))
      page += pages
    }
    const handles = await subject.store(...spans)
    await subject.assertHolds(handles, whole)
  })

  test('T11: says in runs which handles are adjacent, each handle once', async (subject) => {
    const handles = await subject.store(subject.pattern(16, 3))
    for (const run of handles) {
      assert.ok(
        Number.isSafeInteger(run.first) && run.first >= 1,
        `handle ${run.first} is a positive integer`,
      )
      assert.ok(Number.isSafeInteger(run.count) && run.count >= 1, `a run has handles, not ${run.count}`)
    }
    assert.equal(new Set(handlesOf(handles)).size, 16)
  })

  test('T1, T2: never makes 0 a handle', async (subject) => {
    for (let page = 0; page < 8; page++) {
      const handles = await subject.store(subject.pattern(1, page))
      assert.ok(handles[0].first > 0)
    }
  })

  test('T1, B4: handles are plain numbers that can be written down and read again', async (subject) => {
    const bytes = subject.pattern(3, 11)
    const written = JSON.stringify(await subject.store(bytes))
    await subject.assertHolds(JSON.parse(written), bytes)
  })

  test('T3: a copy keeps the stored copy', async (subject) => {
    const bytes = subject.pattern(4, 4)
    const handles = await subject.store(bytes)
    for (let time = 0; time < 3; time++) await subject.assertHolds(handles, bytes)
    assert.equal(subject.backup.stats().livePages, 4)
  })

  test('keeps its own copy: the memory may be used again once the call is over', async (subject) => {
    const bytes = subject.pattern(3, 5)
    const expected = bytes.slice()
    const handles = await subject.store(bytes)
    bytes.fill(0)
    await subject.assertHolds(handles, expected)
  })

  test('copies any of the pages, in any order, into spans of any size, one of them twice', async (subject) => {
    const bytes = subject.pattern(6, 6)
    const handles = handlesOf(await subject.store(bytes))
    const order = [5, 0, 3, 3, 1]
    const into = [subject.dirty(2), subject.dirty(1), subject.dirty(2)]
    const result = await subject.backup.copyPages(singles(order.map((page) => handles[page])), into)
    assert.equal(result.error, undefined)
    assert.equal(result.copied, 5)
    const targets = into.flatMap((span) =>
      Array.from({ length: span.byteLength / subject.pageSizeBytes }, (_, page) =>
        span.subarray(page * subject.pageSizeBytes, (page + 1) * subject.pageSizeBytes),
      ),
    )
    for (const [index, page] of order.entries()) {
      const expected = bytes.subarray(page * subject.pageSizeBytes, (page + 1) * subject.pageSizeBytes)
      subject.assertBytes(targets[index], expected, `page ${page} at place`)
    }
  })

  test('T11: runs joined from the results of different calls, where their handles are adjacent, name just these pages', async (subject) => {
    // Full, so that the last place is used as well, and then places are used again: handles of different ages meet.
    const live: { handle: number; seed: number }[] = []
    const storePairs = async (count: number, firstSeed: number) => {
      for (let seed = firstSeed; seed < firstSeed + count; seed += 2) {
        const handles = await subject.store(subject.pattern(1, seed), subject.pattern(1, seed + 1))
        for (const [index, handle] of handlesOf(handles).entries()) live.push({ handle, seed: seed + index })
      }
    }
    await storePairs(subject.capacityPages, 0)
    for (let round = 1; round <= 2; round++) {
      const dropped = live.splice(0, 2)
      await subject.backup.drop(singles(dropped.map(({ handle }) => handle)))
      await storePairs(dropped.length, round * 100)
    }
    live.sort((one, other) => one.handle - other.handle)
    const joined: { first: number; count: number }[] = []
    for (const { handle } of live) {
      const last = joined.at(-1)
      if (last !== undefined && last.first + last.count === handle) last.count++
      else joined.push({ first: handle, count: 1 })
    }
    const expected = new Uint8Array(live.length * subject.pageSizeBytes)
    for (const [index, { seed }] of live.entries())
      expected.set(subject.pattern(1, seed), index * subject.pageSizeBytes)
    await subject.assertHolds(joined, expected)
    await subject.backup.drop(joined)
    assert.equal(subject.backup.stats().livePages, 0)
  }, 16)

  test('takes memory that is not aligned: a subarray at an odd offset', async (subject) => {
    const expected = subject.pattern(3, 7)
    const odd = new Uint8Array(expected.byteLength + 2).subarray(1, 1 + expected.byteLength)
    odd.set(expected)
    const handles = await subject.store(odd)
    const around = new Uint8Array(expected.byteLength + 2).fill(0xee)
    const into = around.subarray(1, 1 + expected.byteLength)
    const result = await subject.backup.copyPages(handles, [into])
    assert.equal(result.error, undefined)
    subject.assertBytes(into, expected)
    assert.equal(around[0], 0xee, 'the byte before the span is untouched')
    assert.equal(around[around.byteLength - 1], 0xee, 'the byte after the span is untouched')
  })

  test('takes memory of a resizable ArrayBuffer', async (subject) => {
    const bytes = 2 * subject.pageSizeBytes
    const expected = subject.pattern(2, 8)
    const span = new Uint8Array(new ArrayBuffer(bytes, { maxByteLength: bytes * 2 }), 0, bytes)
    span.set(expected)
    const handles = await subject.store(span)
    span.fill(0)
    const result = await subject.backup.copyPages(handles, [span])
    assert.equal(result.error, undefined)
    subject.assertBytes(span, expected)
  })

  test('does nothing with an empty batch, and says that it worked', async (subject) => {
    const before = subject.backup.stats()
    assert.deepEqual((await subject.backup.backupPages([])).handles, [])
    assert.equal((await subject.backup.backupPages([])).error, undefined)
    assert.deepEqual(await subject.backup.copyPages([], []), { copied: 0 })
    assert.equal(await subject.backup.drop([]), undefined)
    assert.deepEqual(subject.backup.stats(), before)
  })

  test('carries a batch of the size it says it handles best, and one page more', async (subject) => {
    const pages = subject.capacityPages
    const bytes = subject.pattern(pages, 9)
    const handles = await subject.store(bytes)
    assert.equal(countOf(handles), pages)
    await subject.assertHolds(handles, bytes)
  }, 513)

  test('T7: stores the same whether writeback is asked for or not', async (subject) => {
    const bytes = subject.pattern(4, 10)
    const result = await subject.backup.backupPages([bytes], { writeback: true, retryMayFail: true })
    subject.assertComplete(result, [bytes])
    await subject.assertHolds(result.handles, bytes)
    assert.ok(Number.isInteger(subject.backup.stats().writebackErrors))
  })
}
