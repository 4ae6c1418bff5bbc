import { describe, expect, it } from 'vitest'
import { backupSuite, backupSuites } from '../src/conformance/index.ts'
import {
  type Backup,
  type BackupDefinition,
  type CopyDone,
  defineBackup,
  type NumberedPages,
  SpillwayError,
  splitIntoPages,
  yieldToEventLoop,
} from '../src/index.ts'

const pageSizeBytes = 4096

/** Pages in a `Map`: the least that a backend has to write. */
function mapBackup(capacityBytes: number, later?: (body: () => void) => void): Backup {
  const pages = new Map<number, Uint8Array>()
  const startCopy = (first: number, span: Uint8Array, done: CopyDone): boolean => {
    const copy = () => {
      const targets = splitIntoPages([span], pageSizeBytes)
      for (const [index, page] of targets.entries()) page.set(pages.get(first + index) ?? new Uint8Array(1))
      done(targets.length)
    }
    if (later === undefined) copy()
    else later(copy)
    return true
  }
  return defineBackup({
    name: 'map',
    medium: 'map',
    pageSizeBytes,
    numbered: {
      capacityBytes,
      store(first, spans) {
        for (const page of splitIntoPages(spans, pageSizeBytes)) pages.set(first++, page.slice())
      },
      copy(first, spans) {
        for (const page of splitIntoPages(spans, pageSizeBytes)) page.set(pages.get(first++) as Uint8Array)
      },
      drop(handles) {
        for (const { first, count } of handles) for (let at = 0; at < count; at++) pages.delete(first + at)
      },
    },
    startCopy,
    release: () => pages.clear(),
  })
}

backupSuites({
  describe,
  it,
  name: 'a backup over a Map',
  startsCopies: true,
  open: async ({ capacityPages }) => mapBackup(capacityPages * pageSizeBytes),
})

backupSuite({
  describe,
  it,
  name: 'a backup over a Map that ends started copies later',
  startsCopies: true,
  open: async ({ capacityPages }) =>
    mapBackup(capacityPages * pageSizeBytes, (body) => void yieldToEventLoop().then(body)),
})

const nothing: NumberedPages = { capacityBytes: 2 ** 20, store() {}, copy() {}, drop() {} }

function numbered(pages: Partial<NumberedPages>): Backup {
  return defineBackup({ name: 'tried', medium: 'test', pageSizeBytes, numbered: { ...nothing, ...pages } })
}

function pages(count: number): Uint8Array[] {
  return [new Uint8Array(count * pageSizeBytes)]
}

describe('defineBackup', () => {
  it.each<[string, Partial<BackupDefinition>, ErrorConstructor]>([
    ['without a way to make handles', { numbered: undefined }, TypeError],
    ['with two ways to make handles', { placed: {} as never }, TypeError],
    ['with a page size that is no power of two', { pageSizeBytes: 5000 }, RangeError],
    [
      'with a capacity that is no number of bytes',
      { numbered: { ...nothing, capacityBytes: -1 } },
      RangeError,
    ],
    ['without a name', { name: undefined as never }, TypeError],
  ])('refuses a definition %s', (_, change, kind) => {
    const definition = { name: 'tried', medium: 'test', pageSizeBytes, numbered: nothing, ...change }
    expect(() => defineBackup(definition)).toThrow(kind)
  })

  it('has startCopy where the definition has it, and guards it', async () => {
    expect(numbered({}).startCopy).toBeUndefined()
    const ends: CopyDone[] = []
    const answers: (boolean | Error)[] = []
    const backup = defineBackup({
      name: 'tried',
      medium: 'test',
      pageSizeBytes,
      numbered: nothing,
      startCopy: (_first, _span, done) => {
        ends.push(done)
        const answer = answers.shift() ?? true
        if (answer instanceof Error) throw answer
        return answer
      },
    })
    const [{ first }] = (await backup.backupPages(pages(4))).handles
    const told: unknown[] = []
    const start = () => backup.startCopy?.(first, pages(4)[0], (...result) => told.push(result))
    answers.push(false, new Error('out of order'), true)
    expect([start(), start(), start()]).toEqual([false, false, true])
    for (const end of ends.slice(0, 2)) end(4)
    expect(told).toEqual([])
    await backup.drop([{ first: first + 2, count: 1 }])
    ends[2](4)
    ends[2](4)
    expect(told).toEqual([[2, expect.objectContaining({ code: 'ESTALE', handle: first + 2 })]])
    expect(backup.stats().copiedPages).toBe(2)
    await backup.close()
  })

  it('gives handles for the prefix that the medium stored, and says what stopped it', async () => {
    const error = new SpillwayError('EIO', 'three is enough')
    const backup = numbered({ store: () => ({ pages: 3, error }) })
    const result = await backup.backupPages(pages(5))
    expect(result).toMatchObject({ handles: [{ count: 3 }], error })
    expect(await backup.bytesAvailable()).toBe(2 ** 20 - 3 * pageSizeBytes)
    await backup.drop(result.handles)
    expect(await backup.bytesAvailable()).toBe(2 ** 20)
  })

  it('tells the code of what a medium throws, and has stored nothing of that slice', async () => {
    let slices = 0
    const backup = numbered({
      slicePages: 2,
      store() {
        if (slices++ === 1) throw Object.assign(new Error('no room'), { code: 'ENOSPC' })
      },
    })
    const result = await backup.backupPages(pages(5))
    expect(result).toMatchObject({
      handles: [{ count: 2 }],
      error: { code: 'ENOSPC', backup: 'tried', page: 2 },
    })
    expect(backup.stats().livePages).toBe(2)
  })

  it('keeps pages live whose drop failed, and their room taken', async () => {
    let failures = 1
    const backup = numbered({
      drop() {
        if (failures-- > 0) throw Object.assign(new Error('not now'), { code: 'EIO' })
      },
    })
    const { handles } = await backup.backupPages(pages(4))
    await expect(backup.drop(handles)).rejects.toMatchObject({ code: 'EIO' })
    expect(await backup.copyPages(handles, pages(4))).toEqual({ copied: 4 })
    expect(backup.stats()).toMatchObject({ livePages: 4, droppedPages: 0 })
    await backup.drop(handles)
    expect(backup.stats().livePages).toBe(0)
  })

  it('says ESTALE for a page that is dropped while its medium reads it', async () => {
    let arrive = () => {}
    const backup = numbered({
      copy: () =>
        new Promise((resolve) => {
          arrive = () => resolve(undefined)
        }),
    })
    const { handles } = await backup.backupPages(pages(4))
    const [{ first }] = handles
    const copying = backup.copyPages(handles, pages(4))
    await backup.drop([{ first: first + 2, count: 1 }])
    arrive()
    expect(await copying).toMatchObject({ copied: 2, error: { code: 'ESTALE', handle: first + 2 } })
  })

  it('never promises more room than is left beside calls under way', async () => {
    let arrive = () => {}
    const backup = numbered({
      capacityBytes: 4 * pageSizeBytes,
      store: () =>
        new Promise((resolve) => {
          arrive = () => resolve(undefined)
        }),
    })
    const storing = backup.backupPages(pages(3))
    expect(await backup.bytesAvailable()).toBe(pageSizeBytes)
    await expect(backup.reserve(2 * pageSizeBytes)).rejects.toMatchObject({ code: 'ENOSPC' })
    arrive()
    await storing
    expect(await backup.bytesAvailable()).toBe(pageSizeBytes)
  })

  it('lets go of the medium once, after the calls in flight, and counts what is live then', async () => {
    let released = 0
    const backup = defineBackup({
      name: 'tried',
      medium: 'test',
      pageSizeBytes,
      numbered: nothing,
      figures: () => ({ released }),
      release: () => void released++,
    })
    await backup.backupPages(pages(4))
    await Promise.all([backup.close(), backup.close()])
    expect(released).toBe(1)
    expect(backup.stats()).toMatchObject({ leakedPages: 4, released: 0, mediumBytes: 0 })
  })
})
