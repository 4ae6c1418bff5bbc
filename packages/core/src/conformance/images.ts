import assert from 'node:assert/strict'
import type { HandleRun, ImageContent, ImageStore } from '../contract.ts'
import { countOf, handlesOf, refuses, rejectsWith, Subject, singles } from './subject.ts'
import type { Suite } from './suite.ts'

/** Images outlive the backup, whole; a page lives while a holder or an image names it. */
export function images(suite: Suite): void {
  outliving(suite)
  leaving(suite)
  following(suite)
  holding(suite)
  refusing(suite)
}

function outliving({ test, options }: Suite): void {
  test('an image and its pages are there when the backup is opened again, and nothing else', async (subject) => {
    const bytes = subject.pattern(5, 300)
    const handles = await subject.store(bytes)
    await subject.store(subject.pattern(3, 301))
    const body = [subject.pattern(1, 302), new Uint8Array(0), Uint8Array.of(1, 2, 3)]
    const revision = await imagesOf(subject).save('a', whole(body, [handles, [], []]))
    assert.equal(subject.backup.stats().livePages, 8)
    await reopened(options, subject, async (again) => {
      assert.deepEqual(await imagesOf(again).names(), ['a'])
      assertFigures(again, { count: 1, onlyPages: 5 })
      const image = await imagesOf(again).load('a')
      assert.deepEqual(
        image.body.map((block) => [...block]),
        body.map((block) => [...block]),
      )
      assert.equal(image.revision, revision)
      assert.equal(image.pages, 5)
      assert.deepEqual(
        image.keeps.map((runs) => handlesOf([...runs])),
        [handlesOf(handles), [], []],
      )
      assertFigures(again, { count: 1, onlyPages: 0 })
      await again.assertHolds(handles, bytes)
      await again.backup.drop(handles)
      await again.assertHolds(handles, bytes)
      await again.fill(303)
      await again.assertHolds(handles, bytes)
      await imagesOf(again).remove('a')
      await rejectsWith('ESTALE', () => again.backup.copyPages(handles, [again.dirty(5)]))
    })
  })

  test('what was stored since the last save is gone, and its space is free again', async (subject) => {
    const { handles } = await subject.fill(304)
    await imagesOf(subject).save('half', whole([Uint8Array.of(1)], [singles(handles.slice(0, 8))]))
    await reopened(options, subject, async (again) => {
      const rest = singles(handles.slice(8))
      await rejectsWith('ESTALE', () => again.backup.copyPages([rest[0]], [again.dirty(1)]))
      assert.ok((await again.backup.bytesAvailable()) > 0)
      const bytes = again.pattern(4, 305)
      const fresh = await again.store(bytes)
      const old = new Set(handles)
      assert.ok(
        handlesOf(fresh).every((handle) => !old.has(handle)),
        'a handle of the dead was given again',
      )
      await again.assertHolds(fresh, bytes)
    })
  }, 24)
}

function leaving({ test, options }: Suite): void {
  test('names are sorted, and one that was removed stays away', async (subject) => {
    for (const name of ['b', 'ä/ö', 'a']) await imagesOf(subject).save(name, whole([Uint8Array.of(7)], [[]]))
    assert.deepEqual(await imagesOf(subject).names(), ['a', 'b', 'ä/ö'])
    await imagesOf(subject).remove('b')
    await reopened(options, subject, async (again) => {
      assert.deepEqual(await imagesOf(again).names(), ['a', 'ä/ö'])
      await rejectsWith('ENOENT', () => imagesOf(again).load('b'))
      await rejectsWith('ENOENT', () => imagesOf(again).remove('b'))
    })
  })

  test('a full backup can remove an image, and has its space back', async (subject) => {
    const handles = await subject.store(subject.pattern(8, 306))
    await imagesOf(subject).save('a', whole([Uint8Array.of(1)], [handles]))
    await subject.backup.drop(handles)
    const before = (await subject.fill(307)).handles.length
    await imagesOf(subject).remove('a')
    const after = (await subject.fill(308)).handles.length
    assert.ok(after >= 8, `${after} pages after ${before}`)
  }, 24)
}

function following({ test, options }: Suite): void {
  test('a save after a revision changes the blocks that it names and no others', async (subject) => {
    const pages = await Promise.all([1, 2, 3].map((seed) => subject.store(subject.pattern(2, 310 + seed))))
    const [first, second, third] = pages
    const body = [Uint8Array.of(0), Uint8Array.of(1)]
    const since = await imagesOf(subject).save('a', whole(body, [first, second]))
    const more = [
      { index: 1, bytes: Uint8Array.of(9) },
      { index: 2, bytes: Uint8Array.of(2) },
    ]
    const next = await imagesOf(subject).save('a', { body: more, keeps: [third, []], since })
    assert.notEqual(next, since)
    for (const runs of pages) await subject.backup.drop(runs)
    await rejectsWith('ESTALE', () => subject.backup.copyPages(second, [subject.dirty(2)]))
    await reopened(options, subject, async (again) => {
      const image = await imagesOf(again).load('a')
      assert.deepEqual(
        image.body.map((block) => [...block]),
        [[0], [9], [2]],
      )
      assert.equal(image.revision, next)
      await again.assertHolds(first, again.pattern(2, 311))
      await again.assertHolds(third, again.pattern(2, 313))
      assert.equal(again.backup.stats().livePages, 4)
    })
  })

  test('a save whose revision was replaced, or whose name is taken, is EEXIST, and changes nothing', async (subject) => {
    const store = imagesOf(subject)
    const handles = await subject.store(subject.pattern(1, 314))
    const first = await store.save('a', whole([Uint8Array.of(1)], [[]], null))
    const second = await store.save('a', whole([Uint8Array.of(2)], [[]]))
    await rejectsWith('EEXIST', () => store.save('a', whole([Uint8Array.of(3)], [handles], null)))
    await rejectsWith('EEXIST', () => store.save('a', whole([Uint8Array.of(4)], [handles], first)))
    await store.remove('a')
    await rejectsWith('ENOENT', () => store.save('a', whole([Uint8Array.of(5)], [handles], second)))
    await store.save('a', whole([Uint8Array.of(6)], [[]], null))
    assert.deepEqual([...(await store.load('a')).body[0]], [6])
    await subject.backup.drop(handles)
    assert.equal(subject.backup.stats().livePages, 0)
  })

  test('saves, loads and removes run in the order of the calls', async (subject) => {
    const store = imagesOf(subject)
    const results = await Promise.all([
      store.save('a', whole([Uint8Array.of(1)], [[]])),
      store.save('a', whole([Uint8Array.of(2)], [[]])),
      store.load('a'),
      store.remove('a'),
      store.save('a', whole([Uint8Array.of(3)], [[]], null)),
      store.names(),
    ])
    assert.deepEqual([...results[2].body[0]], [2])
    assert.equal(new Set([results[0], results[1], results[4]]).size, 3)
    assert.deepEqual([...(await store.load('a')).body[0]], [3])
  })
}

function holding({ test, options }: Suite): void {
  test('a page lives until every holder and every image has let go of it', async (subject) => {
    const store = imagesOf(subject)
    const bytes = subject.pattern(3, 320)
    const handles = await subject.store(bytes)
    await store.save('a', whole([Uint8Array.of(1)], [handles]))
    await store.save('b', whole([Uint8Array.of(1), Uint8Array.of(2)], [handles, handles]))
    assert.equal((await store.load('b')).pages, 6)
    for (let drop = 0; drop < 3; drop++) await subject.backup.drop(handles)
    await subject.assertHolds(handles, bytes)
    assertFigures(subject, { count: 2, onlyPages: 3 })
    await rejectsWith('ESTALE', () => subject.backup.drop(handles))
    await store.remove('a')
    await subject.assertHolds(handles, bytes)
    await store.remove('b')
    assert.equal(subject.backup.stats().livePages, 0)
    await rejectsWith('ESTALE', () => subject.backup.copyPages(handles, [subject.dirty(3)]))
  })

  test('a drop of more holds than there are is ESTALE, and returns none', async (subject) => {
    const store = imagesOf(subject)
    const handles = handlesOf(await subject.store(subject.pattern(3, 321)))
    await store.save('a', whole([Uint8Array.of(1)], [singles([handles[1]])]))
    await store.load('a')
    const twice = singles([handles[0], handles[1], handles[1], handles[0]])
    await rejectsWith('ESTALE', () => subject.backup.drop(twice))
    await subject.backup.drop(singles([handles[0], handles[1], handles[1]]))
    await rejectsWith('ESTALE', () => subject.backup.drop(singles([handles[2], handles[1]])))
    await subject.assertHolds(
      singles([handles[1], handles[2]]),
      subject.pattern(3, 321).subarray(subject.pageSizeBytes),
    )
  })

  test('what is saved may be dropped as soon as the save has settled', async (subject) => {
    const bytes = subject.pattern(40, 322)
    const handles = await subject.store(bytes)
    await imagesOf(subject).save('a', whole([Uint8Array.of(1)], [handles]))
    await subject.backup.drop(handles)
    await reopened(options, subject, async (again) => {
      assert.equal((await imagesOf(again).load('a')).pages, countOf(handles))
      await again.assertHolds(handles, bytes)
    })
  })
}

function refusing({ test }: Suite): void {
  test('a handle that is not live is ESTALE, and nothing was saved', async (subject) => {
    const store = imagesOf(subject)
    const [live, dead] = handlesOf(await subject.store(subject.pattern(2, 330)))
    await subject.backup.drop(singles([dead]))
    await rejectsWith('ESTALE', () => store.save('a', whole([Uint8Array.of(1)], [singles([live, dead])])))
    assert.deepEqual(await store.names(), [])
    await subject.backup.drop(singles([live]))
    assert.equal(subject.backup.stats().livePages, 0)
  })

  test('names, blocks and runs that cannot be meant are refused', async (subject) => {
    const store = imagesOf(subject)
    const good = whole([Uint8Array.of(1)], [[]])
    for (const name of [7, 'a\nb', 'a\u0085', '\ud800']) {
      await refuses(TypeError, JSON.stringify(name), () => store.save(name as string, good))
      await refuses(TypeError, JSON.stringify(name), () => store.load(name as string))
      await refuses(TypeError, JSON.stringify(name), () => store.remove(name as string))
    }
    for (const name of ['', 'x'.repeat(201), 'ä'.repeat(101)])
      await refuses(RangeError, name, () => store.save(name, good))
    const block = (index: number) => ({ index, bytes: Uint8Array.of(1) })
    await refuses(RangeError, 'a gap', () => store.save('a', { body: [block(0), block(2)], keeps: [[], []] }))
    await refuses(RangeError, 'twice', () => store.save('a', { body: [block(0), block(0)], keeps: [[], []] }))
    const wide = { index: 0, bytes: new Uint16Array(4) as unknown as Uint8Array }
    await refuses(TypeError, 'wide elements', () => store.save('a', { body: [wide], keeps: [[]] }))
    await refuses(TypeError, 'no keeps', () => store.save('a', { body: [block(0)], keeps: [] }))
    await refuses(TypeError, 'since', () => store.save('a', { ...good, since: 5 as unknown as string }))
    await refuses(RangeError, 'a run', () =>
      store.save('a', whole([Uint8Array.of(1)], [[{ first: 0, count: 1 }]])),
    )
    const since = await store.save('a', good)
    await refuses(RangeError, 'a gap after it', () =>
      store.save('a', { body: [block(2)], keeps: [[]], since }),
    )
    assert.deepEqual(await store.names(), ['a'])
    assert.equal((await store.load('a')).revision, since)
  })

  test('images of a closed backup are EBADF', async (subject) => {
    const store = imagesOf(subject)
    await subject.backup.close()
    await rejectsWith('EBADF', () => store.save('a', whole([Uint8Array.of(1)], [[]])))
    await rejectsWith('EBADF', () => store.load('a'))
    await rejectsWith('EBADF', () => store.names())
    await rejectsWith('EBADF', () => store.remove('a'))
  })
}

/** A backend may tell more of its images. */
function assertFigures({ backup }: Subject, figures: { count: number; onlyPages: number }): void {
  assert.deepEqual({ ...backup.stats().images, ...figures }, backup.stats().images)
}

function imagesOf({ backup }: Subject): ImageStore {
  assert.ok(backup.images !== undefined, 'a backup that can be opened again has images')
  assert.ok(backup.capabilities.persistent)
  return backup.images
}

function whole(
  body: readonly Uint8Array[],
  keeps: readonly (readonly HandleRun[])[],
  since?: string | null,
): ImageContent {
  return { body: body.map((bytes, index) => ({ index, bytes })), keeps, since }
}

/** Closes the backup, opens what it left, and closes that. */
async function reopened(
  { reopen }: Suite['options'],
  { backup, capacityPages }: Subject,
  body: (again: Subject) => Promise<void>,
): Promise<void> {
  await backup.close()
  const again = new Subject(await reopen!(backup), capacityPages)
  try {
    await body(again)
  } finally {
    await again.backup.close()
  }
}
