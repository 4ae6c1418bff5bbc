import {
  chmodSync,
  existsSync,
  readFileSync,
  renameSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it, vi } from 'vitest'
import { type FileBackup, type FileBackupOptions, openFileBackup, verifyStore } from '../../src/index.ts'
import { dataOffsetBytes } from '../../src/layout.ts'
import { runChild } from '../children.ts'
import { damage } from '../damage.ts'
import { pattern, store } from '../pages.ts'
import { memoryFileSystem, scratchDirectory } from '../places.ts'
import { blockOf, pagesOf, storedImages } from '../stored-images.ts'

const directory = scratchDirectory()
let names = 0
const freshPath = (): string => join(directory, `store-${names++}`)
const capacityPages = 1024
const capacityBytes = capacityPages * 4096
/** What the statistics of images say when nothing is wrong. */
const sound = { rootTorn: false, damaged: 0, withheldBytes: 0 }

function openAt(path: string, options: Partial<FileBackupOptions> = {}): Promise<FileBackup> {
  return openFileBackup({ path, persistent: true, keepFreeBytes: 0, capacityBytes, ...options })
}

async function save(backup: FileBackup, name: string, words: readonly number[]): Promise<void> {
  const handles = await store(backup, pagesOf(words))
  try {
    await backup.images!.save(name, { body: [{ index: 0, bytes: blockOf(words) }], keeps: [handles] })
  } finally {
    await backup.drop(handles)
  }
}

function words(count: number, first: number): number[] {
  return Array.from({ length: count }, (_, index) => first + index)
}

/** A closed store with an image `a` of three pages. */
async function closedStore(): Promise<string> {
  const path = freshPath()
  await using backup = await openAt(path)
  await save(backup, 'a', [1, 2, 3])
  return path
}

it('stays when it is closed, for its owner alone, with its images and nothing else', async () => {
  const path = await closedStore()
  expect(statSync(path).mode & 0o777).toBe(0o600)
  await using backup = await openAt(path)
  expect(backup.capabilities.persistent).toBe(true)
  expect(await storedImages(backup)).toEqual(new Map([['a', [[1, 2, 3]]]]))
  expect(backup.stats().images).toEqual({ count: 1, onlyPages: 3, ...sound })
})

it('is refused to a second owner, EBUSY, and to one who wants scratch, EEXIST', async () => {
  const path = await closedStore()
  await expect(openFileBackup({ path })).rejects.toMatchObject({
    code: 'EEXIST',
    message: expect.stringMatching(/is a persistent backup file; open it with persistent: true$/),
  })
  await using backup = await openAt(path)
  await expect(openAt(path, { ownerWaitMs: 0 })).rejects.toMatchObject({ code: 'EBUSY' })
  await expect(openFileBackup({ path, ownerWaitMs: 0 })).rejects.toMatchObject({ code: 'EBUSY' })
  expect((await storedImages(backup)).size).toBe(1)
})

it('waits for an owner that is killed, until ownerWaitMs are over or it is aborted', async () => {
  const path = freshPath()
  const child = await runChild('save-images.ts', [path, '1', String(capacityBytes)])
  await expect(openAt(path, { ownerWaitMs: 0 })).rejects.toMatchObject({ code: 'EBUSY' })
  const controller = new AbortController()
  const aborted = openAt(path, { ownerWaitMs: 2 ** 31, signal: controller.signal })
  const opening = openAt(path, { ownerWaitMs: 60_000 })
  await new Promise((resolve) => setTimeout(resolve, 30))
  controller.abort(new Error('enough'))
  await expect(aborted).rejects.toMatchObject({ code: 'EINTR', cause: { message: 'enough' } })
  await child.kill()
  await using backup = await opening
  await storedImages(backup)
  await expect(openAt(path, { signal: AbortSignal.abort() })).rejects.toMatchObject({ code: 'EINTR' })
})

it('lets one of many openers at the same time have a new name', async () => {
  const path = freshPath()
  const outcomes = await Promise.allSettled(Array.from({ length: 8 }, () => openAt(path)))
  const opened = outcomes.filter((outcome) => outcome.status === 'fulfilled')
  expect(opened).toHaveLength(1)
  for (const outcome of outcomes)
    if (outcome.status === 'rejected') expect(outcome.reason).toMatchObject({ code: 'EBUSY' })
  await opened[0]!.value.close()
})

it('is opened with what it was made with: EINVAL for another page size or capacity', async () => {
  const path = await closedStore()
  const before = readFileSync(path)
  await expect(openAt(path, { pageSizeBytes: 8192 })).rejects.toMatchObject({ code: 'EINVAL' })
  await expect(openAt(path, { capacityBytes: capacityBytes + 4096 })).rejects.toMatchObject({
    code: 'EINVAL',
  })
  expect(Buffer.compare(readFileSync(path), before)).toBe(0)
  await using backup = await openAt(path, { capacityBytes: undefined })
  expect((await storedImages(backup)).size).toBe(1)
})

it('leaves alone what is no store: files, links, scratch files', async () => {
  const path = freshPath()
  writeFileSync(path, 'something else')
  await expect(openAt(path)).rejects.toMatchObject({ code: 'EEXIST' })
  expect(readFileSync(path, 'utf8')).toBe('something else')
  const link = freshPath()
  symlinkSync(path, link)
  await expect(openAt(link)).rejects.toMatchObject({ code: 'EEXIST' })
  await expect(openAt(tmpdir())).rejects.toMatchObject({
    code: 'EEXIST',
    message: expect.stringContaining('it is a directory: give the path of a file in it'),
  })
})

it('makes anew what its creator did not finish', async () => {
  const path = freshPath()
  writeFileSync(path, 'spillway image store 1\nhalf')
  chmodSync(path, 0o700)
  await using backup = await openAt(path)
  expect(await backup.images!.names()).toEqual([])
})

it('says EBADMSG of a damaged header and of two damaged roots, ENOTSUP of another version, and changes nothing', async () => {
  const header = await closedStore()
  damage(header, 100)
  await expect(openAt(header)).rejects.toMatchObject({ code: 'EBADMSG' })
  const roots = await closedStore()
  damage(roots, 4096 + 40)
  damage(roots, dataOffsetBytes / 2 + 40)
  await expect(openAt(roots)).rejects.toMatchObject({ code: 'EBADMSG' })
  for (const version of [1, 3]) {
    const other = await closedStore()
    const bytes = readFileSync(other)
    bytes.set(Buffer.from(`spillway image store ${version}\n`))
    writeFileSync(other, bytes)
    await expect(openAt(other)).rejects.toMatchObject({ code: 'ENOTSUP' })
    expect(Buffer.compare(readFileSync(other), bytes)).toBe(0)
  }
})

it('tells that a root was torn, and has the images before it', async () => {
  const path = await closedStore()
  damage(path, dataOffsetBytes / 2 + 40)
  const warning = new Promise<Error>((resolve) => process.once('warning', resolve))
  await using backup = await openAt(path)
  expect(backup.stats().images).toEqual({ count: 0, onlyPages: 0, ...sound, rootTorn: true })
  expect(await warning).toMatchObject({ code: 'SPILLWAY_ROOT_TORN' })
})

it('finds a page that was changed while it was closed: EBADMSG, and no other page', async () => {
  const path = await closedStore()
  damage(path, dataOffsetBytes + 4096 + 17)
  await using backup = await openAt(path)
  const { keeps } = await backup.images!.load('a')
  const result = await backup.copyPages([...keeps[0]!], [new Uint8Array(3 * 4096)])
  expect(result).toMatchObject({ copied: 1, error: { code: 'EBADMSG' } })
})

describe('an image whose metadata is damaged', () => {
  /** A closed store: `a` of three pages and its leaf, then `b` of two. Damaged is the leaf of `a`; to damage it again mends it. */
  const leafOffsetBytes = dataOffsetBytes + 3 * 4096 + 20
  async function damagedStore(): Promise<string> {
    const path = await closedStore()
    await using backup = await openAt(path)
    await save(backup, 'b', [4, 5])
    await backup.close()
    damage(path, leafOffsetBytes)
    return path
  }

  it('keeps all that it may name, whatever is stored and saved: mended, it is whole again', async () => {
    const path = await damagedStore()
    for (const pages of [100, capacityPages]) {
      await using backup = await openAt(path)
      expect(backup.stats().images).toMatchObject({ count: 2, damaged: 1 })
      await expect(backup.images!.load('a')).rejects.toMatchObject({ code: 'EBADMSG' })
      await save(backup, 'b', [6, 7, 8])
      const { handles, error } = await backup.backupPages([pagesOf(Array<number>(pages).fill(9))])
      const message = expect.stringContaining('may be of damaged images')
      if (pages === capacityPages) expect(error).toMatchObject({ code: 'ENOSPC', message })
      await backup.drop(handles)
    }
    damage(path, leafOffsetBytes)
    await using backup = await openAt(path)
    expect(await storedImages(backup)).toEqual(
      new Map([
        ['a', [[1, 2, 3]]],
        ['b', [[6, 7, 8]]],
      ]),
    )
    expect(backup.stats().images).toMatchObject(sound)
  })

  it('keeps no more than the file had when it was found, however often the store is opened and used', async () => {
    const path = await damagedStore()
    // `a` and its leaf, and `b` and its leaf, which is saved anew.
    const most = 7 * 4096
    for (let opening = 0; opening < 5; opening++) {
      await using backup = await openAt(path)
      const { damaged, withheldBytes } = backup.stats().images!
      expect(damaged).toBe(1)
      expect(withheldBytes).toBe(opening === 0 ? 4 * 4096 : most)
      await save(backup, 'b', [opening, 7])
      await store(backup, pattern(200, opening))
    }
    damage(path, leafOffsetBytes)
    await using mended = await openAt(path)
    expect(mended.stats().images).toMatchObject(sound)
    expect((await storedImages(mended)).get('a')).toEqual([[1, 2, 3]])
  })

  it('keeps what another one names that is found damaged later', async () => {
    const path = await damagedStore()
    await using first = await openAt(path)
    const capacity = statSync(path).size
    await save(first, 'c', [11, 12, 13])
    await first.close()
    // The leaf of `c` lies behind its three pages, at the end of the file.
    const leafOfC = capacity + 3 * 4096 + 20
    damage(path, leafOfC)
    for (let opening = 0; opening < 3; opening++) {
      await using backup = await openAt(path)
      expect(backup.stats().images).toMatchObject({ damaged: 2, withheldBytes: 8 * 4096 })
      await store(backup, pattern(300, opening))
    }
    damage(path, leafOfC)
    damage(path, leafOffsetBytes)
    await using mended = await openAt(path)
    expect(mended.stats().images).toMatchObject(sound)
    const images = await storedImages(mended)
    expect([images.get('a'), images.get('c')]).toEqual([[[1, 2, 3]], [[11, 12, 13]]])
  })

  it.each(['remove', 'replace'])('gives the space back with its name: %s', async (way) => {
    const path = await damagedStore()
    await using backup = await openAt(path)
    expect(backup.stats().images).toMatchObject({ damaged: 1, withheldBytes: 4 * 4096 })
    const before = await backup.bytesAvailable()
    if (way === 'remove') await backup.images!.remove('a')
    else await save(backup, 'a', [9])
    expect(backup.stats().images).toMatchObject(sound)
    const taken = way === 'remove' ? 0 : 4096
    expect(await backup.bytesAvailable()).toBe(before + 4 * 4096 - taken)
    expect((await storedImages(backup)).get('a')).toEqual(way === 'remove' ? undefined : [[9]])
  })
})

it('loads no image whose body is damaged, EBADMSG, keeps its pages until it is removed, and has the others', async () => {
  const path = freshPath()
  const body = pattern(2, 77)
  {
    await using backup = await openAt(path)
    await save(backup, 'a', [1, 2, 3])
    const handles = await store(backup, pagesOf([4, 5]))
    await backup.images!.save('b', { body: [{ index: 0, bytes: body }], keeps: [handles] })
  }
  damage(path, readFileSync(path).indexOf(body) + 4321)
  expect((await verifyStore({ path })).images).toEqual([
    { name: 'a', pages: 3, problems: [] },
    { name: 'b', pages: 2, problems: [expect.stringContaining('says of its pages')] },
  ])
  await using backup = await openAt(path)
  expect(backup.stats()).toMatchObject({ livePages: 5, images: { ...sound, count: 2, onlyPages: 5 } })
  await expect(backup.images!.load('b')).rejects.toMatchObject({ code: 'EBADMSG' })
  expect(backup.stats().images!.onlyPages).toBe(5)
  await backup.images!.remove('b')
  expect(backup.stats()).toMatchObject({ livePages: 3, images: sound })
  expect(await storedImages(backup)).toEqual(new Map([['a', [[1, 2, 3]]]]))
})

it('opens a full store that is a page too long, as after a kill while it tried out the file', async () => {
  const path = freshPath()
  const full = { capacityBytes: 64 * 4096 }
  {
    await using backup = await openAt(path, full)
    await save(backup, 'a', [1, 2, 3])
  }
  const { size } = statSync(path)
  const slots = 64 + 65
  truncateSync(path, dataOffsetBytes + (slots + 1) * 4096)
  expect(size).toBeLessThan(dataOffsetBytes + slots * 4096)
  await using backup = await openAt(path, full)
  expect(await storedImages(backup)).toEqual(new Map([['a', [[1, 2, 3]]]]))
  await save(backup, 'b', words(50, 7))
  expect((await storedImages(backup)).get('b')).toEqual([words(50, 7)])
})

it('says EBADMSG of a save that goes on from a damaged image', async () => {
  const path = freshPath()
  let since: string
  {
    await using backup = await openAt(path)
    await save(backup, 'a', [1, 2, 3])
    const image = await backup.images!.load('a')
    since = image.revision
    await backup.drop(image.keeps.flatMap((runs) => [...runs]))
  }
  // The node above its only block: the three pages come first.
  damage(path, dataOffsetBytes + 3 * 4096 + 3)
  await using backup = await openAt(path)
  expect(backup.stats().images!.damaged).toBe(1)
  const change = { body: [{ index: 1, bytes: Uint8Array.of(1) }], keeps: [[]], since }
  await expect(backup.images!.save('a', change)).rejects.toMatchObject({ code: 'EBADMSG' })
})

it('saves nothing in a file that was cut or whose name means another: ESTALE', async () => {
  const cut = freshPath()
  await using first = await openAt(cut)
  await save(first, 'a', [1, 2, 3])
  truncateSync(cut, dataOffsetBytes)
  await expect(first.images!.remove('a')).rejects.toMatchObject({ code: 'ESTALE' })
  const moved = freshPath()
  await using second = await openAt(moved)
  await save(second, 'a', [1, 2])
  renameSync(moved, `${moved}-away`)
  await expect(save(second, 'a', [3])).rejects.toMatchObject({ code: 'ESTALE' })
  renameSync(`${moved}-away`, moved)
  await save(second, 'a', [4])
  expect((await storedImages(second)).get('a')).toEqual([[4]])
})

it('gives back the space of pages that nobody names any more', async () => {
  const path = freshPath()
  const first = await openAt(path, { warmBytes: 0 })
  await store(first, pattern(512, 1))
  await save(first, 'a', [1])
  await first.close()
  const filled = statSync(path).blocks
  const second = await openAt(path, { warmBytes: 0 })
  if (second.stats().holes.used)
    await vi.waitFor(() => expect(statSync(path).blocks).toBeLessThan(filled - 512 * 7), 20_000)
  await second.close()
  await using third = await openAt(path)
  expect((await storedImages(third)).get('a')).toEqual([[1]])
})

it('takes no other place, no checksums away, and no injected file system', async () => {
  await expect(openFileBackup({ directory, persistent: true })).rejects.toThrow(TypeError)
  await expect(openFileBackup({ fd: 1, persistent: true })).rejects.toThrow(TypeError)
  const path = freshPath()
  await expect(openFileBackup({ path, persistent: true, checksums: false })).rejects.toThrow(TypeError)
  await expect(openFileBackup({ path, persistent: 1 as never })).rejects.toThrow(TypeError)
  await expect(openAt(path, { ownerWaitMs: -1 })).rejects.toThrow(RangeError)
  await expect(openFileBackup({ directory, ownerWaitMs: 1 })).rejects.toThrow(TypeError)
  await expect(openAt(path, { signal: {} as never })).rejects.toThrow(TypeError)
  const injected = { path: '/spill/store', persistent: true, fs: memoryFileSystem() }
  await expect(openFileBackup(injected)).rejects.toMatchObject({ code: 'ENOSYS' })
  expect(existsSync(path)).toBe(false)
})
