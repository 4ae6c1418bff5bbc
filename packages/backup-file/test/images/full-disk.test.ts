import { closeSync, openSync, rmSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { type FileBackup, openFileBackup } from '../../src/index.ts'
import { freeBytes, mebibyte, onFileSystem } from '../loop-devices.ts'
import { expectHeld, pattern, store } from '../pages.ts'
import { blockOf, pagesOf, storedImages } from '../stored-images.ts'

const fileSystems = [
  { what: 'ext4', mkfs: 'mkfs.ext4 -m 0', mebibytes: 64 },
  { what: 'xfs', mkfs: 'mkfs.xfs', mebibytes: 330 },
  { what: 'btrfs', mkfs: 'mkfs.btrfs', mebibytes: 200 },
]
const words = (count: number, from: number) => Array.from({ length: count }, (_, index) => from + index)

function openAt(path: string): Promise<FileBackup> {
  return openFileBackup({ path, persistent: true, keepFreeBytes: 0, capacityBytes: 2 ** 30, warmBytes: 0 })
}

/** Other data takes all the space that the file system still has. */
function fillUp(directory: string): void {
  const other = openSync(join(directory, 'other'), 'w')
  for (let bytes = mebibyte; bytes >= 4096; ) {
    try {
      writeSync(other, pattern(bytes / 4096, bytes))
    } catch (failure) {
      if ((failure as NodeJS.ErrnoException).code !== 'ENOSPC') throw failure
      bytes /= 4
    }
  }
  closeSync(other)
}

async function save(backup: FileBackup, content: readonly number[]): Promise<void> {
  const { handles, error } = await backup.backupPages([pagesOf(content)])
  try {
    if (error !== undefined) throw error
    await backup.images!.save('image', { body: [{ index: 0, bytes: blockOf(content) }], keeps: [handles] })
  } finally {
    await backup.drop(handles)
  }
}

const full = { name: 'SpillwayError', code: 'ENOSPC' }

for (const { what, mkfs, mebibytes } of fileSystems) {
  it(`the old image stays when ${what} is full in the middle of a save, and the store goes on when there is room`, async (context) => {
    await onFileSystem(context, { mkfs, mebibytes }, async (directory) => {
      const path = join(directory, 'store')
      const backup = await openAt(path)
      const [old, next] = [words(300, 1), words(600, 1000)]
      await save(backup, old)
      const scratch = await store(backup, pagesOf(next))
      fillUp(directory)
      // There is no room for the pages.
      await expect(save(backup, words(600, 2000))).rejects.toMatchObject(full)
      // The pages are stored, and there is no room for what describes them.
      const body = [0, 1, 2, 3].map((index) => ({ index, bytes: pattern(256, index) }))
      const keeps = [scratch, [], [], []]
      await expect(backup.images!.save('image', { body, keeps })).rejects.toMatchObject(full)
      const found = await backup.images!.load('image')
      expect(found.body.map((block) => Buffer.from(block).toString())).toEqual([JSON.stringify(old)])
      await expectHeld(backup, [...found.keeps[0]], pagesOf(old))
      await backup.drop(found.keeps.flatMap((runs) => [...runs]))

      rmSync(join(directory, 'other'))
      freeBytes(directory)
      await backup.images!.save('image', {
        body: [{ index: 0, bytes: blockOf(next) }],
        keeps: [scratch],
      })
      await backup.drop(scratch)
      await backup.close()
      await using again = await openAt(path)
      expect(await storedImages(again)).toEqual(new Map([['image', [next]]]))
    })
  })
}
