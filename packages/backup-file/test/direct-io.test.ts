import fs, { openSync, readdirSync, readFileSync } from 'node:fs'
import { syncBuiltinESMExports } from 'node:module'
import { join } from 'node:path'
import * as native from '@spillway/native'
import { afterEach, expect, it } from 'vitest'
import { DataDescriptor } from '../src/direct-io.ts'
import { Files } from '../src/file-system.ts'
import { type FileBackupOptions, openFileBackup } from '../src/index.ts'
import type { OpenedFile } from '../src/opened-file.ts'
import { expectHeld, pattern, store } from './pages.ts'
import { scratchDirectory } from './places.ts'

const directory = scratchDirectory()
const { write } = fs

afterEach(() => {
  fs.write = write
  syncBuiltinESMExports()
})

/** From now on each direct write is refused, as some file systems do after they took the first. */
function refuseDirectWrites(): void {
  const refusing = (fd: number, ...rest: unknown[]) => {
    const flags = /flags:\s+([0-7]+)/.exec(readFileSync(`/proc/self/fdinfo/${fd}`, 'latin1'))?.[1] ?? '0'
    if ((Number.parseInt(flags, 8) & fs.constants.O_DIRECT) === 0)
      return Reflect.apply(write, fs, [fd, ...rest])
    const done = rest.at(-1) as (error: Error) => void
    process.nextTick(done, Object.assign(new Error('EINVAL: invalid argument, write'), { code: 'EINVAL' }))
  }
  fs.write = refusing as unknown as typeof fs.write
  syncBuiltinESMExports()
}

const places: [string, () => Partial<FileBackupOptions>][] = [
  ['a named file', () => ({ path: join(directory, 'named') })],
  ['an unnamed file', () => ({ directory })],
  ['a descriptor', () => ({ fd: openSync(join(directory, 'given'), 'w+') })],
]

for (const [what, place] of places) {
  it(`goes on through the page cache, and says so, when ${what} refuses direct requests that it took before`, async () => {
    await using backup = await openFileBackup({ ...place(), io: 'threads', keepFreeBytes: 0 })
    const before = pattern(300, 1)
    const first = await store(backup, before)
    expect(backup.stats().direct).toEqual({ used: true, reason: 'tried on this file' })
    refuseDirectWrites()
    const after = pattern(600, 2)
    const calls = [store(backup, after), store(backup, after), store(backup, after)]
    for (const handles of await Promise.all(calls)) await expectHeld(backup, handles, after)
    await expectHeld(backup, first, before)
    expect(backup.stats().direct).toMatchObject({ used: false, reason: expect.stringContaining('refused') })
  })
}

it('stores nothing through the page cache where direct I/O was insisted on', async () => {
  await using backup = await openFileBackup({ directory, io: 'threads', direct: true, keepFreeBytes: 0 })
  refuseDirectWrites()
  const { handles, error } = await backup.backupPages([pattern(3, 1)])
  expect({ handles, error }).toMatchObject({
    handles: [],
    error: { code: 'EINVAL', backup: 'file', page: 0 },
  })
})

it('says that a file system in memory is no device to go to directly', async () => {
  await using backup = await openFileBackup({ directory: '/dev/shm', keepFreeBytes: 0 })
  expect(backup.stats().direct).toMatchObject({ used: false, reason: expect.stringContaining('memory') })
  await expect(openFileBackup({ directory: '/dev/shm', direct: true })).rejects.toMatchObject({
    code: 'EINVAL',
  })
})

it('opens no second time, and says why, where that would bring a removed file back', async () => {
  const fileDescriptor = openSync(join(directory, 'removed'), 'w+')
  const file = { fileDescriptor, isOwnOpening: true, mayReopen: false, device: undefined } as OpenedFile
  const options = { wanted: 'auto', tryOffsetBytes: 0, pageSizeBytes: 4096, isInMemory: false } as const
  const openings = () => readdirSync('/proc/self/fd').length
  const before = openings()
  const without = await DataDescriptor.open(new Files(fs, true), file, { ...options, native: undefined })
  expect(without).toMatchObject({
    direct: false,
    reason: expect.stringContaining('would come back'),
    fileDescriptor,
  })
  // With native code the opening that there is gets switched.
  const switched = await DataDescriptor.open(new Files(fs, true), file, { ...options, native })
  expect(switched).toMatchObject({ direct: true, fileDescriptor })
  expect(openings()).toBe(before)
})
