import { mkdirSync, mkdtempSync, rmdirSync, rmSync, statfsSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { openFileBackup } from '../src/index.ts'
import { runChild } from './children.ts'
import { failure, faulty } from './faulty-file-system.ts'
import { run } from './loop-devices.ts'
import { count, expectHeld, pageBytes, pattern, singles, store } from './pages.ts'
import { memoryFileSystem, scratchDirectory } from './places.ts'

const directory = scratchDirectory()
const settled = async (condition: () => boolean): Promise<void> => {
  while (!condition()) await new Promise((resolve) => setTimeout(resolve, 2))
}

it('T8: says the least of its capacity and what the file system has beyond keepFreeBytes', async () => {
  await using small = await openFileBackup({ directory, capacityBytes: 10 * pageBytes + 5, keepFreeBytes: 0 })
  expect(await small.bytesAvailable()).toBe(10 * pageBytes)
  await store(small, pattern(3, 1))
  expect(await small.bytesAvailable()).toBe(7 * pageBytes)

  const { bsize, blocks } = statfsSync(directory)
  await using greedy = await openFileBackup({ directory, keepFreeBytes: bsize * blocks })
  expect(await greedy.bytesAvailable()).toBe(0)
  const { handles, error } = await greedy.backupPages([pattern(2, 1)])
  expect(handles).toEqual([])
  expect(error).toMatchObject({ code: 'ENOSPC', message: expect.stringContaining('keepFreeBytes') })
})

it('keeps 5 % of the file system free by default', async () => {
  const { bsize, blocks } = statfsSync(directory)
  await using backup = await openFileBackup({ directory })
  expect(backup.stats().keepFreeBytes).toBe(Math.floor(bsize * blocks * 0.05))
})

it('never grants the same free space twice, however many calls ask for it', async () => {
  const inner = memoryFileSystem()
  let freePages = 100
  const fileSystem = faulty(inner, {
    statfs: (_path, done) =>
      setImmediate(() => done(null, { bsize: pageBytes, blocks: 1000, bavail: freePages })),
  })
  await using backup = await openFileBackup({
    directory: '/spill',
    fs: fileSystem,
    keepFreeBytes: 10 * pageBytes,
  })
  const results = await Promise.all(
    Array.from({ length: 20 }, (_, seed) => backup.backupPages([pattern(7, seed)])),
  )
  const stored = results.reduce((pages, { handles }) => pages + count(handles), 0)
  expect(stored).toBe(90)
  for (const { error } of results.filter(({ handles }) => count(handles) < 7)) {
    expect(error).toMatchObject({ code: 'ENOSPC' })
  }
  // Slots that have their space already need none of what is left.
  freePages = 0
  await backup.drop(results.flatMap(({ handles }) => handles))
  await store(backup, pattern(90, 99))
  expect((await backup.backupPages([pattern(1, 1)])).error).toMatchObject({ code: 'ENOSPC' })
})

it('gives the space of dropped pages back beyond warmBytes, in holes, and uses it again', async () => {
  await using backup = await openFileBackup({
    directory,
    warmBytes: 2 ** 20,
    keepFreeBytes: 0,
    io: 'threads',
  })
  expect(backup.stats().holes).toMatchObject({ used: true })
  const bytes = pattern(8192, 1)
  const handles = singles(await store(backup, bytes))
  const full = backup.stats().mediumBytes
  expect(full).toBeGreaterThanOrEqual(8192 * pageBytes)
  // Keep the first and the last page: what lies between must go without them.
  await backup.drop(handles.slice(1, -1))
  await settled(() => backup.stats().holes.punchedBytes >= 8190 * pageBytes - 2 ** 20 - 2 ** 21)
  await settled(() => backup.stats().mediumBytes <= 4 * 2 ** 20)
  await expectHeld(backup, [handles[0]], bytes.subarray(0, pageBytes))
  await expectHeld(backup, [handles[8191]], bytes.subarray(8191 * pageBytes))
  const again = pattern(8190, 2)
  await expectHeld(backup, await store(backup, again), again)
})

it('writes to the space that dropped pages left before it takes more', async () => {
  await using backup = await openFileBackup({ directory, keepFreeBytes: 0, io: 'threads' })
  const runs = await Promise.all([1, 2, 3, 4].map((seed) => store(backup, pattern(512, seed))))
  const before = backup.stats().mediumBytes
  // Two runs that do not lie together: a call that wants as much as both takes both.
  await backup.drop([...runs[0]!, ...runs[2]!])
  const again = pattern(1024, 5)
  await expectHeld(backup, await store(backup, again), again)
  expect(backup.stats().mediumBytes).toBe(before)
  await expectHeld(backup, runs[1]!, pattern(512, 2))
  await expectHeld(backup, runs[3]!, pattern(512, 4))
})

it('takes whole requests of space that dropped pages left, and leaves the rest of it to shorter calls', async () => {
  await using backup = await openFileBackup({ directory, keepFreeBytes: 0, io: 'threads' })
  const dropped = await store(backup, pattern(700, 1))
  const kept = await store(backup, pattern(10, 2))
  await backup.drop(dropped)
  const again = pattern(1024, 3)
  const handles = await store(backup, again)
  expect(handles.map(({ count }) => count)).toEqual([512, 512])
  await expectHeld(backup, handles, again)
  await expectHeld(backup, kept, pattern(10, 2))
})

it('leaves single slots between others alone while there is space side by side', async () => {
  await using backup = await openFileBackup({ directory, keepFreeBytes: 0, io: 'threads' })
  const handles = singles(await store(backup, pattern(4096, 1)))
  await backup.drop(handles.filter((_, index) => index % 2 === 0))
  expect((await store(backup, pattern(1024, 2))).length).toBe(1)
})

it('T4: dropping single pages punches none of their neighbours', async () => {
  await using backup = await openFileBackup({ directory, warmBytes: 0, keepFreeBytes: 0, io: 'threads' })
  const bytes = pattern(512, 1)
  const handles = singles(await store(backup, bytes))
  const page = (index: number) => bytes.subarray(index * pageBytes, (index + 1) * pageBytes)
  const kept = handles.flatMap((_, index) => (index % 64 < 20 ? [index] : []))
  await backup.drop(handles.filter((_, index) => index % 64 >= 20))
  await settled(() => backup.stats().holes.punchedBytes === 8 * 44 * pageBytes)
  for (const index of kept) await expectHeld(backup, [handles[index]], page(index))
})

it('takes slots that wait to be punched when there are no others', async () => {
  await using backup = await openFileBackup({
    directory,
    capacityBytes: 4096 * pageBytes,
    warmBytes: 0,
    keepFreeBytes: 0,
    io: 'threads',
  })
  for (let round = 0; round < 3; round++) {
    const bytes = pattern(4096, round)
    const handles = await store(backup, bytes)
    await expectHeld(backup, handles, bytes)
    await backup.drop(handles)
    expect(await backup.bytesAvailable()).toBe(4096 * pageBytes)
  }
})

it('cuts the file off when its last page is dropped and there are no holes', async () => {
  const fileSystem = memoryFileSystem()
  await using backup = await openFileBackup({ path: '/spill/pages', fs: fileSystem, warmBytes: 0 })
  const size = () =>
    (fileSystem as unknown as typeof import('node:fs')).statSync('/spill/pages').size - 2 * 2 ** 20
  expect(backup.stats().holes).toMatchObject({ used: false, reason: expect.stringContaining('injected') })
  const one = await store(backup, pattern(3, 1))
  const two = await store(backup, pattern(3, 2))
  await backup.drop(one)
  expect(size()).toBe(6 * pageBytes)
  await backup.drop(two)
  // What comes now must wait for the cut and not be cut off itself.
  const bytes = pattern(2, 3)
  await expectHeld(backup, await store(backup, bytes), bytes)
  expect(size()).toBe(2 * pageBytes)
})

it('T8: reserves space that the file really has', async () => {
  await using backup = await openFileBackup({ directory, keepFreeBytes: 0, io: 'threads' })
  const before = backup.stats().mediumBytes
  const reservation = await backup.reserve(1000 * pageBytes)
  expect(backup.stats().mediumBytes).toBeGreaterThanOrEqual(before + 1000 * pageBytes)
  const bytes = pattern(1500, 1)
  const { handles, error } = await backup.backupPages([bytes], { reservation })
  expect(error).toBeUndefined()
  expect(reservation.bytes).toBe(0)
  await expectHeld(backup, handles, bytes)
  const unused = await backup.reserve(10 * pageBytes)
  const [{ first }] = handles
  await expect(backup.drop([{ first: first + 2 ** 30, count: 1 }])).rejects.toMatchObject({ code: 'ESTALE' })
  await unused.release()
  expect(unused.bytes).toBe(0)
})

it('tells what moves the bytes and why, for each choice', async () => {
  await using automatic = await openFileBackup({ directory, keepFreeBytes: 0 })
  const { io, direct } = automatic.stats()
  expect(io.reason).not.toBe('')
  expect(direct).toEqual({ used: true, reason: 'tried on this file' })
  await using buffered = await openFileBackup({ directory, keepFreeBytes: 0, io: 'threads', direct: false })
  expect(buffered.stats()).toMatchObject({
    io: { engine: 'threads', reason: "io: 'threads'" },
    direct: { used: false, reason: 'direct: false' },
  })
  await using injected = await openFileBackup({ directory: '/spill', fs: memoryFileSystem() })
  expect(injected.stats()).toMatchObject({
    io: { engine: 'threads', reason: 'the file system is injected' },
    direct: { used: false, reason: 'the file system is injected' },
  })
})

it('T10, B19: counts the pages that nobody dropped', async () => {
  const backup = await openFileBackup({ directory, keepFreeBytes: 0 })
  await store(backup, pattern(5, 1))
  await backup.close()
  expect(backup.stats()).toMatchObject({ leakedPages: 5, mediumBytes: 0 })
})

it('asks the open file for free space: keepFreeBytes holds when its directory is removed', async () => {
  const gone = mkdtempSync('/dev/shm/spillway-test-')
  const { bavail, bsize } = statfsSync(gone)
  await using backup = await openFileBackup({ directory: gone, keepFreeBytes: bavail * bsize - 8 * 2 ** 20 })
  rmSync(gone, { recursive: true })
  let stored = 0
  for (let turn = 0; turn < 6; turn++) {
    const { handles } = await backup.backupPages([pattern(512, turn)])
    stored += count(handles)
    // Longer than an answer is believed.
    await new Promise((resolve) => setTimeout(resolve, 60))
  }
  expect(stored * pageBytes).toBeLessThanOrEqual(9 * 2 ** 20)
})

it('says at once that keepFreeBytes cannot be kept where nothing tells the free space, and stores nothing when it is not told later', async () => {
  const inner = memoryFileSystem()
  let isTold = false
  const fileSystem = faulty(inner, {
    statfs: (_path, done) =>
      setImmediate(() =>
        isTold ? done(null, { bsize: pageBytes, blocks: 1000, bavail: 900 }) : done(failure('EIO')),
      ),
  })
  const options = { directory: '/spill', fs: fileSystem, keepFreeBytes: 10 * pageBytes }
  await expect(openFileBackup(options)).rejects.toMatchObject({ code: 'EIO' })
  await (await openFileBackup({ ...options, keepFreeBytes: 0 })).close()
  isTold = true
  await using backup = await openFileBackup(options)
  const first = await store(backup, pattern(10, 1))
  isTold = false
  await new Promise((resolve) => setTimeout(resolve, 60))
  const { handles, error } = await backup.backupPages([pattern(10, 2)])
  expect({ handles, error }).toMatchObject({ handles: [], error: { code: 'EIO', backup: 'file' } })
  isTold = true
  await expectHeld(backup, await store(backup, pattern(10, 2)), pattern(10, 2))
  await expectHeld(backup, first, pattern(10, 1))
})

it('grants free space once to all backups of a file system', async () => {
  const { bavail, bsize } = statfsSync('/dev/shm')
  const options = { directory: '/dev/shm', keepFreeBytes: bavail * bsize - 8 * 2 ** 20 }
  await using one = await openFileBackup(options)
  await using other = await openFileBackup(options)
  const results = await Promise.all(
    [one, other].flatMap((backup) => [1, 2, 3, 4].map((seed) => backup.backupPages([pattern(512, seed)]))),
  )
  const stored = results.reduce((pages, { handles }) => pages + count(handles), 0)
  expect(stored * pageBytes).toBeLessThanOrEqual(9 * 2 ** 20)
  expect(stored * pageBytes).toBeGreaterThan(6 * 2 ** 20)
})

it('stores on a file system that reports no block counts', async () => {
  const fileSystem = faulty(memoryFileSystem(), {
    statfs: (_path, done) => setImmediate(() => done(null, { bsize: pageBytes, blocks: 0, bavail: 0 })),
  })
  await using backup = await openFileBackup({ directory: '/spill', fs: fileSystem, capacityBytes: 2 ** 20 })
  expect(await backup.bytesAvailable()).toBe(2 ** 20)
  await expectHeld(backup, await store(backup, pattern(20, 1)), pattern(20, 1))
})

it('counts what is taken while the file system is being asked', async () => {
  const inner = memoryFileSystem()
  const answers: (() => void)[] = []
  let isHeld = false
  let freePages = 100
  const fileSystem = faulty(inner, {
    statfs: (_path, done) => {
      const bavail = freePages
      const answer = () => done(null, { bsize: pageBytes, blocks: 1000, bavail })
      if (isHeld) answers.push(answer)
      else setImmediate(answer)
    },
  })
  await using backup = await openFileBackup({ directory: '/spill', fs: fileSystem, keepFreeBytes: 0 })
  // Granted and written by what was told before; the next answer is of before, too, and comes after.
  await new Promise((resolve) => setTimeout(resolve, 60))
  const early = backup.backupPages([pattern(60, 1)])
  await early
  await new Promise((resolve) => setTimeout(resolve, 60))
  isHeld = true
  const late = backup.backupPages([pattern(60, 2)])
  await settled(() => answers.length > 0)
  freePages = 40
  isHeld = false
  for (const answer of answers) answer()
  const { handles } = await late
  expect(count(handles)).toBeLessThanOrEqual(40)
})

it('gives slots that wait to be punched to all that ask for them', async () => {
  const pageSizeBytes = 65_536
  await using backup = await openFileBackup({
    directory,
    capacityBytes: 4 * pageSizeBytes,
    pageSizeBytes,
    warmBytes: 0,
    keepFreeBytes: 0,
  })
  const handles = await store(backup, pattern(4, 1, pageSizeBytes))
  await backup.drop(handles)
  const calls = Array.from({ length: 4 }, (_, seed) => backup.backupPages([pattern(1, seed, pageSizeBytes)]))
  for (const { error } of await Promise.all(calls)) expect(error).toBeUndefined()
})

it('knows that an overlay over a tmpfs is memory, too', async ({ skip }) => {
  const base = join(directory, 'layers')
  const [lower, memory, merged] = ['lower', 'memory', 'merged'].map((name) => join(base, name))
  for (const folder of [lower, memory, merged]) mkdirSync(folder, { recursive: true })
  try {
    run('mount', '-t', 'tmpfs', '-o', 'size=16m', 'tmpfs', memory)
    for (const name of ['upper', 'work']) mkdirSync(join(memory, name))
    const layers = `lowerdir=${lower},upperdir=${memory}/upper,workdir=${memory}/work`
    run('mount', '-t', 'overlay', '-o', layers, 'overlay', merged)
  } catch (thrown) {
    process.stdout.write(`left out: an overlay over a tmpfs: needs root: ${(thrown as Error).message}\n`)
    return skip('needs root and overlays')
  }
  try {
    await using backup = await openFileBackup({ directory: merged, keepFreeBytes: 0 })
    expect(backup.stats().direct).toMatchObject({ used: false, reason: expect.stringContaining('memory') })
    await expectHeld(backup, await store(backup, pattern(9, 1)), pattern(9, 1))
  } finally {
    run('umount', '-l', merged)
    run('umount', '-l', memory)
  }
})

it('warns, and says in its statistics, where a scratch file may outlive the process', async () => {
  const inner = memoryFileSystem()
  const warnings: string[] = []
  const listen = (warning: Error) => void warnings.push(warning.message)
  process.on('warning', listen)
  const fileSystem = faulty(inner, {
    // FUSE, and without files that never had a name.
    statfs: (_path, done) => done(null, { type: 0x65735546, bsize: pageBytes, blocks: 1000, bavail: 900 }),
  })
  for (let turn = 0; turn < 2; turn++) {
    await using backup = await openFileBackup({ directory: '/spill', fs: fileSystem })
    expect(backup.stats().vanishes).toMatchObject({ always: false, reason: expect.stringContaining('FUSE') })
  }
  await new Promise((resolve) => setImmediate(resolve))
  process.off('warning', listen)
  expect(warnings).toEqual([expect.stringContaining('/spill may outlive this process')])
  await using local = await openFileBackup({ directory, keepFreeBytes: 0 })
  expect(local.stats().vanishes).toMatchObject({ always: true })
})

it('stops before the memory of a control group is used up by a file in a tmpfs', async ({ skip }) => {
  const group = `/sys/fs/cgroup/memory/spillway-test-${process.pid}`
  try {
    mkdirSync(group)
    writeFileSync(`${group}/memory.limit_in_bytes`, String(160 * 2 ** 20))
  } catch (thrown) {
    const why = `needs root and control groups of version 1: ${(thrown as Error).message}`
    process.stdout.write(`left out: a file in a tmpfs: ${why}\n`)
    return skip(why)
  }
  try {
    const shell = `echo $$ > ${group}/cgroup.procs; exec "$@"`
    const child = await runChild('fill-memory.ts', ['/dev/shm'], { shell })
    const { code, available, stored } = JSON.parse(await child.output)
    expect(code).toBe('ENOSPC')
    expect(available).toBeLessThan(160 * 2 ** 20)
    expect(stored).toBeGreaterThan(8)
  } finally {
    rmdirSync(group)
  }
})
