import { closeSync, openSync, readSync, statSync, writeSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { expect, it } from 'vitest'
import { openFileBackup } from '../src/index.ts'
import { mebibyte, onBlockDevice, run } from './loop-devices.ts'
import { expectHeld, pattern, store } from './pages.ts'

const until = async (condition: () => boolean): Promise<void> => {
  for (let turn = 0; turn < 1000 && !condition(); turn++)
    await new Promise((resolve) => setTimeout(resolve, 5))
  expect(condition()).toBe(true)
}

for (const blockBytes of [512, 4096]) {
  for (const by of ['path', 'fd'] as const) {
    it(`a block device with blocks of ${blockBytes} bytes holds pages, by ${by}, alone and past the page cache`, async (context) => {
      await onBlockDevice(context, { blockBytes, mebibytes: 32 }, async (device, image) => {
        const label = Buffer.from('what lies in the first 2 MiB stays')
        const before = openSync(image, 'r+')
        writeSync(before, label, 0, label.byteLength, 4096)
        const handle = by === 'fd' ? await open(device, 'r+') : undefined
        const place = handle === undefined ? { path: device } : { fd: handle }
        const backup = await openFileBackup({ ...place, warmBytes: 0, direct: true })
        await expect(openFileBackup({ path: device })).rejects.toMatchObject({ code: 'EBUSY' })
        await expect(openFileBackup({ ...place })).rejects.toMatchObject({ code: 'EBUSY' })
        expect(await backup.bytesAvailable()).toBe(30 * mebibyte)
        // The caller's own descriptor is not needed any more.
        await handle?.close()

        const bytes = pattern(30 * 256, 1)
        const handles = await store(backup, bytes)
        await expectHeld(backup, handles, bytes)
        expect((await backup.backupPages([pattern(1, 2)])).error).toMatchObject({ code: 'ENOSPC' })
        expect(backup.stats()).toMatchObject({ direct: { used: true }, mediumBytes: 30 * mebibyte })
        expect(backup.stats().holes).toMatchObject({ used: true })
        const taken = statSync(image).blocks
        await backup.drop(handles)
        await until(() => backup.stats().holes.punchedBytes === 30 * mebibyte)
        expect(statSync(image).blocks).toBeLessThan(taken / 8)
        const again = pattern(512, 3)
        await expectHeld(backup, await store(backup, again), again)
        await using reservation = await backup.reserve(mebibyte)
        expect(reservation.bytes).toBe(mebibyte)
        await backup.close()

        expect(statSync(image).size).toBe(32 * mebibyte)
        const found = Buffer.alloc(label.byteLength)
        readSync(before, found, 0, label.byteLength, 4096)
        expect(found).toEqual(label)
        closeSync(before)
        await (await openFileBackup({ path: device })).close()
      })
    })
  }
}

it('refuses a device that is in use, read-only, or has less room than capacityBytes', async (context) => {
  await onBlockDevice(context, { blockBytes: 512, mebibytes: 8 }, async (device) => {
    await expect(openFileBackup({ path: device, capacityBytes: 7 * mebibyte })).rejects.toMatchObject({
      name: 'RangeError',
      message: expect.stringContaining(`${6 * mebibyte} bytes`),
    })
    const fd = openSync(device, 'r')
    await expect(openFileBackup({ fd })).rejects.toMatchObject({ code: 'EINVAL' })
    closeSync(fd)
    // The kernel opens such a device for writing all the same.
    run('blockdev', '--setro', device)
    const writable = openSync(device, 'r+')
    try {
      await expect(openFileBackup({ path: device })).rejects.toMatchObject({ code: 'EROFS' })
      await expect(openFileBackup({ fd: writable })).rejects.toMatchObject({ code: 'EROFS' })
    } finally {
      // A loop device would stay so for whoever has it next.
      run('blockdev', '--setrw', device)
      closeSync(writable)
    }
    await (await openFileBackup({ path: device })).close()
  })
})
