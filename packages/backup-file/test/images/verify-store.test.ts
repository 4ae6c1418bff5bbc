import { readFileSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { openFileBackup, verifyStore } from '../../src/index.ts'
import { dataOffsetBytes } from '../../src/layout.ts'
import { runChild } from '../children.ts'
import { damage } from '../damage.ts'
import { store } from '../pages.ts'
import { scratchDirectory } from '../places.ts'
import { blockOf, pagesOf } from '../stored-images.ts'

const directory = scratchDirectory()
const capacityBytes = 1024 * 4096
let names = 0

/** A closed store: pages 1 and 2 of `a` in slots 0 and 1, its leaf in 2; 600 pages of `b` in slots from 3 on, then its leaf. */
async function closedStore(): Promise<string> {
  const path = join(directory, `store-${names++}`)
  await using backup = await openFileBackup({ path, persistent: true, keepFreeBytes: 0, capacityBytes })
  for (const [name, count] of [
    ['a', 2],
    ['b', 600],
  ] as const) {
    const words = Array.from({ length: count }, (_, word) => word + 1)
    const handles = await store(backup, pagesOf(words))
    await backup.images!.save(name, { body: [{ index: 0, bytes: blockOf(words) }], keeps: [handles] })
  }
  return path
}

const slotOffset = (slot: number) => dataOffsetBytes + slot * 4096

it('finds nothing wrong with a whole store, and changes nothing', async () => {
  const path = await closedStore()
  const before = readFileSync(path)
  const told: string[] = []
  const report = await verifyStore({ path, onImage: ({ name }) => void told.push(name) })
  expect(report).toEqual({
    pageSizeBytes: 4096,
    images: [
      { name: 'a', pages: 2, problems: [] },
      { name: 'b', pages: 600, problems: [] },
    ],
    problems: [],
  })
  expect(told).toEqual(['a', 'b'])
  expect(Buffer.compare(readFileSync(path), before)).toBe(0)
})

it('tells each damaged page, and no other', async () => {
  const path = await closedStore()
  for (const slot of [3 + 17, 3 + 300, 3 + 599]) damage(path, slotOffset(slot) + 5)
  const { images } = await verifyStore({ path })
  expect(images).toEqual([
    { name: 'a', pages: 2, problems: [] },
    {
      name: 'b',
      pages: 600,
      problems: [
        `block 0: 3 of 600 pages are not what was saved, the first at byte ${slotOffset(20)} of the file`,
      ],
    },
  ])
})

it('tells pages that a cut took away', async () => {
  const path = await closedStore()
  damage(path, slotOffset(0) + 1)
  truncateSync(path, slotOffset(1) + 100)
  const { images } = await verifyStore({ path })
  expect(images).toEqual([
    { name: 'a', pages: 0, problems: ['its metadata is damaged'] },
    { name: 'b', pages: 0, problems: ['its metadata is damaged'] },
  ])
})

it('tells a damaged root and damaged metadata, and reads what is whole', async () => {
  const path = await closedStore()
  damage(path, slotOffset(2) + 5)
  damage(path, dataOffsetBytes / 2 + 40)
  const before = readFileSync(path)
  expect(await verifyStore({ path })).toEqual({
    pageSizeBytes: 4096,
    images: [
      { name: 'a', pages: 0, problems: ['its metadata is damaged'] },
      { name: 'b', pages: 600, problems: [] },
    ],
    problems: [expect.stringContaining('one of its two roots')],
  })
  expect(Buffer.compare(readFileSync(path), before)).toBe(0)
})

it('rejects with EBADMSG for a damaged header and for two damaged roots', async () => {
  const header = await closedStore()
  damage(header, 100)
  await expect(verifyStore({ path: header })).rejects.toMatchObject({ code: 'EBADMSG' })
  const roots = await closedStore()
  damage(roots, 4096 + 40)
  damage(roots, dataOffsetBytes / 2 + 40)
  await expect(verifyStore({ path: roots })).rejects.toMatchObject({ code: 'EBADMSG' })
})

it('looks at nothing that is open here or elsewhere (EBUSY), no store (EEXIST), not there (ENOENT) or aborted (EINTR)', async () => {
  const path = join(directory, `store-${names++}`)
  const child = await runChild('save-images.ts', [path, '1', String(capacityBytes)])
  await expect(verifyStore({ path, ownerWaitMs: 0 })).rejects.toMatchObject({ code: 'EBUSY' })
  const verifying = verifyStore({ path, ownerWaitMs: 60_000 })
  await child.kill()
  expect((await verifying).problems).toEqual([])
  await using backup = await openFileBackup({ path, persistent: true, keepFreeBytes: 0 })
  await expect(verifyStore({ path, ownerWaitMs: 0 })).rejects.toMatchObject({ code: 'EBUSY' })
  expect(backup.stats().images!.damaged).toBe(0)
  const other = join(directory, 'other')
  writeFileSync(other, 'something else')
  await expect(verifyStore({ path: other })).rejects.toMatchObject({ code: 'EEXIST' })
  await expect(verifyStore({ path: directory })).rejects.toMatchObject({ code: 'EEXIST' })
  await expect(verifyStore({ path: `${other}-not` })).rejects.toMatchObject({ code: 'ENOENT' })
  const signal = AbortSignal.abort()
  await expect(verifyStore({ path: await closedStore(), signal })).rejects.toMatchObject({ code: 'EINTR' })
})
