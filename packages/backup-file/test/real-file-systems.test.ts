import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Backup, HandleRun } from '@spillway/core'
import { expect, it } from 'vitest'
import { openFileBackup } from '../src/index.ts'
import { freeBytes, mebibyte, onFileSystem, run } from './loop-devices.ts'
import { count, expectHeld, pageBytes, pattern, singles, store } from './pages.ts'

const until = async (condition: () => boolean): Promise<void> => {
  for (let turn = 0; turn < 1000 && !condition(); turn++)
    await new Promise((resolve) => setTimeout(resolve, 5))
  expect(condition()).toBe(true)
}

/** Stores pieces of a mebibyte until one is refused; returns what was stored and why it ended. */
async function fill(
  backup: Backup,
  most = 1000,
): Promise<{ stored: HandleRun[][]; error: Error | undefined }> {
  const stored: HandleRun[][] = []
  for (let seed = 0; seed < most; seed++) {
    const { handles, error } = await backup.backupPages([pattern(256, seed)])
    if (handles.length > 0) stored.push([...handles])
    if (error !== undefined) return { stored, error }
  }
  return { stored, error: undefined }
}
const pagesOf = (stored: HandleRun[][]): number =>
  stored.reduce((pages, handles) => pages + count(handles), 0)

it('a refused reservation gives back what it had found on ext4', async (context) => {
  await onFileSystem(context, { mkfs: 'mkfs.ext4 -m 0', mebibytes: 256 }, async (directory) => {
    await using one = await openFileBackup({ directory })
    await using other = await openFileBackup({ directory })
    const before = freeBytes(directory)
    const outcomes = await Promise.allSettled([one, other].map((backup) => backup.reserve(150 * mebibyte)))
    expect(outcomes.map(({ status }) => status).sort()).toEqual(['fulfilled', 'rejected'])
    const refused = outcomes.find((outcome) => outcome.status === 'rejected')
    expect(refused?.reason).toMatchObject({ code: 'ENOSPC', backup: 'file' })
    expect(freeBytes(directory)).toBeGreaterThan(before - 154 * mebibyte)

    // Another process takes space that was free when it was granted: what is left is kept free, and all is given back.
    writeFileSync(join(directory, 'others'), new Uint8Array(60 * mebibyte))
    const left = freeBytes(directory)
    await expect(other.reserve(left - 2 * mebibyte)).rejects.toMatchObject({ code: 'ENOSPC' })
    expect(freeBytes(directory)).toBeGreaterThan(left - 4 * mebibyte)
  })
})

it('what is dropped of reserved space comes back on btrfs, and punchedBytes says how much', async (context) => {
  await onFileSystem(context, { mkfs: 'mkfs.btrfs', mebibytes: 400 }, async (directory) => {
    await using backup = await openFileBackup({ directory, warmBytes: 0 })
    const before = freeBytes(directory)
    const reservation = await backup.reserve(64 * mebibyte)
    const bytes = pattern(64 * 256, 1)
    const { handles, error } = await backup.backupPages([bytes], { reservation })
    expect(error).toBeUndefined()
    const stored = freeBytes(directory)
    expect(stored).toBeLessThan(before - 60 * mebibyte)
    const pages = singles(handles)
    // All but one page of every 16 MiB.
    const kept = pages.filter((_, index) => index % 4096 === 0)
    await backup.drop(pages.filter((_, index) => index % 4096 !== 0))
    await until(() => backup.stats().holes.punchedBytes >= 58 * mebibyte)
    const back = freeBytes(directory) - stored
    expect(back).toBeGreaterThan(56 * mebibyte)
    expect(Math.abs(back - backup.stats().holes.punchedBytes)).toBeLessThan(4 * mebibyte)
    for (const [index, page] of kept.entries()) {
      await expectHeld(
        backup,
        [page],
        bytes.subarray(index * 4096 * pageBytes, (index * 4096 + 1) * pageBytes),
      )
    }
  })
})

it('can use all of a btrfs after space was reserved and released again', async (context) => {
  await onFileSystem(context, { mkfs: 'mkfs.btrfs', mebibytes: 400 }, async (directory) => {
    const keepFreeBytes = 40 * mebibyte
    await using backup = await openFileBackup({ directory, keepFreeBytes })
    const room = await backup.bytesAvailable()
    const reservation = await backup.reserve(Math.floor(room / 2 / mebibyte) * mebibyte)
    await reservation.release()
    // The file system writes its transaction, as it does every 30 s.
    freeBytes(directory)
    const { stored, error } = await fill(backup)
    expect(error).toMatchObject({ code: 'ENOSPC' })
    expect(pagesOf(stored) * pageBytes).toBeGreaterThan(room - 24 * mebibyte)
    expect(freeBytes(directory)).toBeGreaterThan(keepFreeBytes - mebibyte)
  })
})

it('recovers at a quota of btrfs: full is full, and what is dropped can be stored again', async (context) => {
  await onFileSystem(context, { mkfs: 'mkfs.btrfs', mebibytes: 400 }, async (directory) => {
    run('btrfs', 'quota', 'enable', directory)
    const volume = join(directory, 'volume')
    run('btrfs', 'subvolume', 'create', volume)
    run('btrfs', 'qgroup', 'limit', '64M', volume)
    await using backup = await openFileBackup({
      directory: volume,
      keepFreeBytes: 0,
      warmBytes: 8 * mebibyte,
    })
    const { stored, error } = await fill(backup)
    expect(['EDQUOT', 'ENOSPC']).toContain((error as { code?: string }).code)
    expect(error).toMatchObject({ name: 'SpillwayError', backup: 'file' })
    expect(pagesOf(stored)).toBeGreaterThan(50 * 256)
    // The file system has hundreds of MiB free, the quota has none.
    expect(await backup.bytesAvailable()).toBeLessThan(16 * mebibyte)
    for (const handles of stored.splice(0, 30)) await backup.drop(handles)
    await until(() => backup.stats().holes.punchedBytes >= 20 * mebibyte)
    expect(await backup.bytesAvailable()).toBeGreaterThan(20 * mebibyte)
    const again = await fill(backup, 20)
    expect(again.error).toBeUndefined()
    await expectHeld(backup, again.stored[0], pattern(256, 0))
  })
})

it('leaves keepFreeBytes free on btrfs, which shows late what was taken', async (context) => {
  await onFileSystem(context, { mkfs: 'mkfs.btrfs', mebibytes: 400 }, async (directory) => {
    const keepFreeBytes = freeBytes(directory) - 96 * mebibyte
    await using backup = await openFileBackup({ directory, keepFreeBytes })
    const { stored, error } = await fill(backup)
    expect(error).toMatchObject({ code: 'ENOSPC' })
    expect(pagesOf(stored) / 256).toBeGreaterThan(64)
    expect(freeBytes(directory)).toBeGreaterThan(keepFreeBytes - mebibyte)
  })
})

for (const { what, mkfs, mebibytes } of [
  { what: 'xfs with blocks of 16 KiB', mkfs: 'mkfs.xfs -b size=16384', mebibytes: 330 },
  { what: 'xfs with blocks of 64 KiB', mkfs: 'mkfs.xfs -b size=65536', mebibytes: 700 },
  { what: 'ext4 with clusters of 64 KiB', mkfs: 'mkfs.ext4 -O bigalloc -C 65536', mebibytes: 256 },
]) {
  it(`holes go over free neighbours on ${what}, and punchedBytes is what came back`, async (context) => {
    await onFileSystem(context, { mkfs, mebibytes }, async (directory) => {
      await using backup = await openFileBackup({ directory, keepFreeBytes: 0, warmBytes: 0 })
      const bytes = pattern(4096, 1)
      const pages = singles(await store(backup, bytes))
      const full = backup.stats().mediumBytes
      // In two goes, so that no run of one go is made of whole blocks: first the odd halves, then the rest but for one page.
      await backup.drop(pages.filter((_, index) => index >= 64 && index % 64 < 37))
      await until(() => backup.stats().holes.punchedBytes >= 63 * 32 * pageBytes)
      await backup.drop(pages.filter((_, index) => index >= 64 && index % 64 >= 37))
      await until(() => backup.stats().holes.punchedBytes >= 4032 * pageBytes)
      expect(backup.stats().holes.punchedBytes).toBe(4032 * pageBytes)
      // The map of a file with holes may take a block of its own.
      expect(backup.stats().mediumBytes).toBeLessThanOrEqual(full - 4032 * pageBytes + 64 * 1024)
      await expectHeld(backup, pages.slice(0, 64), bytes.subarray(0, 64 * pageBytes))
      const again = pattern(4032, 2)
      await expectHeld(backup, await store(backup, again), again)
    })
  })
}

it('uses slots that were dropped when ext4 has no space for others', async (context) => {
  await onFileSystem(context, { mkfs: 'mkfs.ext4 -m 0', mebibytes: 48 }, async (directory) => {
    await using backup = await openFileBackup({ directory, keepFreeBytes: 0 })
    const { stored, error } = await fill(backup)
    expect(error).toMatchObject({ code: 'ENOSPC' })
    const half = stored.splice(0, stored.length / 2)
    for (const handles of half) await backup.drop(handles)
    expect(await backup.bytesAvailable()).toBeGreaterThanOrEqual(pagesOf(half) * pageBytes)
    const again = await fill(backup, half.length)
    expect(pagesOf(again.stored)).toBeGreaterThanOrEqual(pagesOf(half))
  })
})

it('says that ext4 with data=journal uses the page cache, and refuses to insist on direct I/O there', async (context) => {
  const options = { mkfs: 'mkfs.ext4', mebibytes: 64, mount: 'loop,data=journal' }
  await onFileSystem(context, options, async (directory) => {
    await using backup = await openFileBackup({ directory, keepFreeBytes: 0 })
    expect(backup.stats().direct).toMatchObject({
      used: false,
      reason: expect.stringContaining('page cache'),
    })
    const bytes = pattern(300, 1)
    await expectHeld(backup, await store(backup, bytes), bytes)
    await expect(openFileBackup({ directory, direct: true })).rejects.toMatchObject({ code: 'EINVAL' })
  })
})

for (const mkfs of ['mkfs.ext4', 'mkfs.xfs', 'mkfs.btrfs']) {
  it(`keeps pages past the page cache on a file system of ${mkfs}`, async (context) => {
    await onFileSystem(context, { mkfs, mebibytes: 330 }, async (directory) => {
      const path = join(directory, 'pages')
      await using backup = await openFileBackup({ path, keepFreeBytes: 0, direct: true })
      const bytes = pattern(8192, 1)
      const handles = await store(backup, bytes)
      expect(Number(run('fincore', '--bytes', '--noheadings', '--output', 'RES', path))).toBeLessThan(
        mebibyte,
      )
      await expectHeld(backup, handles, bytes)
      expect(backup.stats().direct.used).toBe(true)
    })
  })
}
