import { SpillwayError } from '@spillway/core'
import fc from 'fast-check'
import { expect, it } from 'vitest'
import { type FileBackupOptions, type FileSystem, openFileBackup } from '../src/index.ts'
import { dataOffsetBytes } from '../src/layout.ts'
import { failure, faulty } from './faulty-file-system.ts'
import { count, expectHeld, pageBytes, pattern, singles, store } from './pages.ts'
import { memoryFileSystem } from './places.ts'

const open = (fs: FileSystem, options: Partial<FileBackupOptions> = {}) =>
  openFileBackup({ path: '/spill/pages', fs, ...options })

/** A file system whose page writes or reads fail from a certain position of the file on, until it is healed. */
function breaking(verb: 'read' | 'write', fromSlot: number, code: string) {
  const inner = memoryFileSystem()
  const state = { broken: true, failures: 0 }
  const from = dataOffsetBytes + fromSlot * pageBytes
  const fileSystem = faulty(inner, {
    [verb]: ((fd, memory, offset, length, position, done) => {
      if (!state.broken || position + length <= from) {
        inner[verb](fd, memory, offset, length, position, done)
      } else if (position < from) {
        // The part before the bad place gets through, as a disk does it.
        inner[verb](fd, memory, offset, from - position, position, done)
      } else {
        state.failures++
        setImmediate(() => done(failure(code)))
      }
    }) as FileSystem['read'],
  })
  return { fileSystem, state }
}

for (const code of ['ENOSPC', 'EDQUOT', 'EFBIG', 'EIO', 'EROFS', 'ENXIO']) {
  it(`keeps the pages before a write that fails with ${code}, and goes on afterwards`, async () => {
    for (const goodPages of [0, 1, 255, 256, 300, 1023]) {
      const { fileSystem, state } = breaking('write', goodPages, code)
      await using backup = await open(fileSystem)
      const bytes = pattern(1024, goodPages)
      const { handles, error } = await backup.backupPages([bytes])
      expect(error).toMatchObject({ code })
      if (code !== 'ENXIO') expect(error).toBeInstanceOf(SpillwayError)
      expect(count(handles)).toBe(goodPages)
      expect(backup.stats()).toMatchObject({ livePages: goodPages, backedUpPages: goodPages })
      await expectHeld(backup, handles, bytes.subarray(0, goodPages * pageBytes))
      state.broken = false
      const rest = bytes.subarray(goodPages * pageBytes)
      await expectHeld(backup, await store(backup, rest), rest)
      await expectHeld(backup, handles, bytes.subarray(0, goodPages * pageBytes))
    }
  })
}

it('T3: copies the pages before a read that fails, says which page, and all of them once it works', async () => {
  for (const goodPages of [0, 1, 255, 256, 700]) {
    const { fileSystem, state } = breaking('read', goodPages, 'EIO')
    await using backup = await open(fileSystem)
    const bytes = pattern(800, goodPages)
    const handles = await store(backup, bytes)
    const into = new Uint8Array(bytes.byteLength)
    const { copied, error } = await backup.copyPages(handles, [into])
    expect(copied).toBe(goodPages)
    expect(error).toMatchObject({ code: 'EIO', page: goodPages, handle: handles[0].first + goodPages })
    expect(
      Buffer.compare(into.subarray(0, goodPages * pageBytes), bytes.subarray(0, goodPages * pageBytes)),
    ).toBe(0)
    state.broken = false
    await expectHeld(backup, handles, bytes)
  }
})

it('goes on after short writes and short reads of any length', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.integer({ min: 1, max: 9000 }), { minLength: 1, maxLength: 8 }),
      async (lengths) => {
        const inner = memoryFileSystem()
        let calls = 0
        const shortened = (length: number) => Math.min(length, lengths[calls++ % lengths.length])
        const backup = await open(inner)
        await backup.close()
        const fileSystem = faulty(inner, {
          read: (fd, memory, offset, length, position, done) =>
            inner.read(
              fd,
              memory,
              offset,
              position < dataOffsetBytes ? length : shortened(length),
              position,
              done,
            ),
          write: (fd, memory, offset, length, position, done) =>
            inner.write(
              fd,
              memory,
              offset,
              position < dataOffsetBytes ? length : shortened(length),
              position,
              done,
            ),
        })
        await using short = await open(fileSystem)
        const bytes = pattern(5, lengths[0])
        await expectHeld(short, await store(short, bytes), bytes)
      },
    ),
    { numRuns: 30 },
  )
})

it('a write that stores nothing is EIO and not an endless loop', async () => {
  const inner = memoryFileSystem()
  const fileSystem = faulty(inner, {
    write: (fd, memory, offset, length, position, done) => {
      if (position < dataOffsetBytes) inner.write(fd, memory, offset, length, position, done)
      else setImmediate(() => done(null, 0))
    },
  })
  await using backup = await open(fileSystem)
  const { handles, error } = await backup.backupPages([pattern(2, 1)])
  expect(handles).toEqual([])
  expect(error).toMatchObject({ code: 'EIO' })
})

it('T45: tries again what may pass, unless told to fail rather', async () => {
  for (const code of ['EAGAIN', 'EINTR']) {
    const { fileSystem, state } = breaking('write', 0, code)
    await using backup = await open(fileSystem)
    const bytes = pattern(1, 1)
    const refused = await backup.backupPages([bytes], { retryMayFail: true })
    expect(refused.error).toMatchObject({ code, retryable: true })
    expect(state.failures).toBe(1)
    const call = backup.backupPages([bytes])
    while (state.failures < 3) await new Promise(setImmediate)
    state.broken = false
    const { handles, error } = await call
    expect(error).toBeUndefined()
    await expectHeld(backup, handles, bytes)
  }
})

it('T7: counts a writeback that failed and keeps the pages', async () => {
  const inner = memoryFileSystem()
  const fileSystem = faulty(inner, { fdatasync: (_fd, done) => setImmediate(() => done(failure('EIO'))) })
  await using backup = await open(fileSystem)
  const bytes = pattern(3, 1)
  const { handles, error } = await backup.backupPages([bytes], { writeback: true })
  expect(error).toBeUndefined()
  expect(backup.stats().writebackErrors).toBe(1)
  await expectHeld(backup, handles, bytes)
})

it('reads a page again that does not match, and takes it when it does', async () => {
  const inner = memoryFileSystem()
  let flips = 1
  const fileSystem = faulty(inner, {
    read: (fd, memory, offset, length, position, done) =>
      inner.read(fd, memory, offset, length, position, (error, bytes) => {
        if (position >= dataOffsetBytes && flips-- > 0) memory[offset + 3 * pageBytes + 17] ^= 1
        done(error, bytes)
      }),
  })
  await using backup = await open(fileSystem)
  const bytes = pattern(8, 1)
  const handles = await store(backup, bytes)
  await expectHeld(backup, handles, bytes)
  expect(backup.stats()).toMatchObject({ rereadPages: 1, quarantinedPages: 0 })
})

type Damage = (fs: typeof import('node:fs'), fd: number, at: (slot: number) => number) => void
const damages: Record<string, Damage> = {
  'one bit is flipped': (fs, fd, at) => {
    const byte = new Uint8Array(1)
    fs.readSync(fd, byte, 0, 1, at(2) + 4095)
    byte[0] ^= 0x80
    fs.writeSync(fd, byte, 0, 1, at(2) + 4095)
  },
  'it is zeroed': (fs, fd, at) => fs.writeSync(fd, new Uint8Array(pageBytes), 0, pageBytes, at(2)),
  'its neighbour is in its place': (fs, fd, at) => {
    const page = new Uint8Array(pageBytes)
    fs.readSync(fd, page, 0, pageBytes, at(3))
    fs.writeSync(fd, page, 0, pageBytes, at(2))
  },
  'the file ends in the middle of it': (fs, fd, at) => fs.ftruncateSync(fd, at(2) + 100),
}

for (const [what, damage] of Object.entries(damages)) {
  it(`never gives a page back as data when ${what}: EBADMSG`, async () => {
    const fs = memoryFileSystem()
    await using backup = await open(fs, { capacityBytes: 6 * pageBytes })
    const bytes = pattern(6, 1)
    const handles = singles(await store(backup, bytes))
    const system = fs as unknown as typeof import('node:fs')
    const fd = system.openSync('/spill/pages', 'r+')
    damage(system, fd, (slot) => dataOffsetBytes + slot * pageBytes)
    const into = new Uint8Array(bytes.byteLength)
    const { copied, error } = await backup.copyPages(handles, [into])
    expect(copied).toBe(2)
    expect(error).toMatchObject({ code: 'EBADMSG', handle: handles[2].first, page: 2, retryable: false })
    expect(Buffer.compare(into.subarray(0, 2 * pageBytes), bytes.subarray(0, 2 * pageBytes))).toBe(0)
    expect(into.subarray(2 * pageBytes, 3 * pageBytes).every((byte) => byte === 0)).toBe(true)
    expect(backup.stats()).toMatchObject({ quarantinedPages: 1 })
    system.closeSync(fd)
    await backup.drop(handles)
    const { handles: again, error: full } = await backup.backupPages([pattern(6, 2)])
    expect(count(again), 'the slot is not used again').toBe(5)
    expect(full).toMatchObject({ code: 'ENOSPC' })
    expect(await backup.bytesAvailable()).toBe(0)
  })
}

it('knows a page that an earlier use of its slot left: the write was lost', async () => {
  const inner = memoryFileSystem()
  let lost = false
  const fileSystem = faulty(inner, {
    write: (fd, memory, offset, length, position, done) => {
      if (lost) setImmediate(() => done(null, length))
      else inner.write(fd, memory, offset, length, position, done)
    },
  })
  await using backup = await open(fileSystem, { capacityBytes: pageBytes })
  await backup.drop(await store(backup, pattern(1, 1)))
  lost = true
  const handles = await store(backup, pattern(1, 2))
  const { copied, error } = await backup.copyPages(handles, [new Uint8Array(pageBytes)])
  expect({ copied, code: (error as SpillwayError | undefined)?.code }).toEqual({ copied: 0, code: 'EBADMSG' })
})

it('without checksums gives back what the file holds, and still nothing beyond its end', async () => {
  const fs = memoryFileSystem()
  await using backup = await open(fs, { checksums: false })
  expect(backup.capabilities.detectsCorruption).toBe(false)
  const handles = await store(backup, pattern(2, 1))
  const system = fs as unknown as typeof import('node:fs')
  const fd = system.openSync('/spill/pages', 'r+')
  system.ftruncateSync(fd, dataOffsetBytes + pageBytes)
  const { copied, error } = await backup.copyPages(handles, [new Uint8Array(2 * pageBytes)])
  expect(copied).toBe(1)
  expect(error).toMatchObject({ code: 'EBADMSG' })
})

it('says ESTALE for a page that is dropped while it is read, and gives out no bytes of it', async () => {
  const inner = memoryFileSystem()
  let hold: (() => void) | undefined
  const fileSystem = faulty(inner, {
    read: (fd, memory, offset, length, position, done) => {
      if (position < dataOffsetBytes) inner.read(fd, memory, offset, length, position, done)
      else hold = () => inner.read(fd, memory, offset, length, position, done)
    },
  })
  await using backup = await open(fileSystem, { capacityBytes: 4 * pageBytes, checksums: false })
  const handles = singles(await store(backup, pattern(4, 1)))
  const into = new Uint8Array(4 * pageBytes)
  const copy = backup.copyPages(handles, [into])
  while (hold === undefined) await new Promise(setImmediate)
  await backup.drop([handles[2]])
  await store(backup, pattern(1, 9))
  hold()
  const { copied, error } = await copy
  expect(copied).toBe(2)
  expect(error).toMatchObject({ code: 'ESTALE', handle: handles[2].first })
  expect(into.subarray(2 * pageBytes).every((byte) => byte === 0)).toBe(true)
})

it('knows no handle before its page is stored', async () => {
  const inner = memoryFileSystem()
  const held: (() => void)[] = []
  let holding = false
  const fileSystem = faulty(inner, {
    write: (fd, memory, offset, length, position, done) => {
      const go = () => inner.write(fd, memory, offset, length, position, done)
      if (holding) held.push(go)
      else go()
    },
  })
  await using backup = await open(fileSystem, { capacityBytes: 64 * pageBytes })
  const [known] = await store(backup, pattern(1, 1))
  holding = true
  const call = backup.backupPages([pattern(3, 2)])
  while (held.length === 0) await new Promise(setImmediate)
  // What the call under way is about to answer: the next slot, in this generation or one soon after.
  const guesses = Array.from({ length: 64 }, (_, generations) => known.first + 1 + 64 * generations)
  for (const first of guesses) {
    const forged = [{ first, count: 1 }]
    await expect(backup.copyPages(forged, [new Uint8Array(pageBytes)])).rejects.toMatchObject({
      code: 'ESTALE',
    })
    await expect(backup.drop(forged)).rejects.toMatchObject({ code: 'ESTALE' })
  }
  for (const go of held) go()
  expect(guesses).toContain((await call).handles[0].first)
})

it('T6: an abort lets the writes under way settle before it answers', async () => {
  const inner = memoryFileSystem()
  let underWay = 0
  const controller = new AbortController()
  const fileSystem = faulty(inner, {
    write: (fd, memory, offset, length, position, done) => {
      underWay++
      if (position >= dataOffsetBytes) controller.abort(new Error('enough'))
      inner.write(fd, memory, offset, length, position, (error, bytes) => {
        setImmediate(() => {
          underWay--
          done(error, bytes)
        })
      })
    },
  })
  await using backup = await open(fileSystem)
  const bytes = pattern(4096, 1)
  const { handles, error } = await backup.backupPages([bytes], { signal: controller.signal })
  expect(underWay).toBe(0)
  expect(error).toMatchObject({ code: 'EINTR', cause: expect.objectContaining({ message: 'enough' }) })
  expect(count(handles)).toBeGreaterThan(0)
  expect(count(handles)).toBeLessThan(4096)
  await expectHeld(backup, handles, bytes.subarray(0, count(handles) * pageBytes))
})

it('takes half of the threads of libuv at most, all backups together', async () => {
  const inner = memoryFileSystem()
  let underWay = 0
  let most = 0
  const count = (
    go: (done: (error: unknown, bytes?: number) => void) => void,
    done: (...rest: never[]) => void,
  ) => {
    most = Math.max(most, ++underWay)
    go((error, bytes) => {
      underWay--
      ;(done as (error: unknown, bytes?: number) => void)(error, bytes)
    })
  }
  const fileSystem = faulty(inner, {
    read: (fd, memory, offset, length, position, done) =>
      count((settle) => inner.read(fd, memory, offset, length, position, settle), done),
    write: (fd, memory, offset, length, position, done) =>
      count((settle) => inner.write(fd, memory, offset, length, position, settle), done),
  })
  await using one = await open(fileSystem)
  await using other = await openFileBackup({ path: '/spill/other', fs: fileSystem })
  const bytes = pattern(2048, 1)
  await Promise.all(
    [one, other, one, other].map(async (backup) => expectHeld(backup, await store(backup, bytes), bytes)),
  )
  expect(most).toBe(2)
})

it('T22, T45: a read that may pass is tried again, and once only when told to fail rather', async () => {
  const { fileSystem, state } = breaking('read', 0, 'EAGAIN')
  await using backup = await open(fileSystem)
  const bytes = pattern(1, 1)
  const handles = await store(backup, bytes)
  const into = new Uint8Array(pageBytes)
  const refused = await backup.copyPages(handles, [into], { retryMayFail: true })
  expect(refused).toMatchObject({ copied: 0, error: { code: 'EAGAIN' } })
  expect(state.failures).toBe(1)
  const call = backup.copyPages(handles, [into])
  while (state.failures < 3) await new Promise(setImmediate)
  state.broken = false
  expect(await call).toEqual({ copied: 1 })
})

it('goes through staging when the kernel refuses memory that looked aligned', async () => {
  const inner = memoryFileSystem()
  const refused = new Uint8Array(new ArrayBuffer(pageBytes, { maxByteLength: pageBytes }))
  const unless = (verb: 'read' | 'write'): FileSystem['read'] =>
    ((fd, memory, offset, length, position, done) => {
      if (memory.buffer === refused.buffer) setImmediate(() => done(failure('EINVAL')))
      else inner[verb](fd, memory, offset, length, position, done)
    }) as FileSystem['read']
  await using backup = await open(faulty(inner, { read: unless('read'), write: unless('write') }))
  const bytes = pattern(1, 3)
  refused.set(bytes)
  const handles = await store(backup, refused)
  refused.fill(0)
  expect(await backup.copyPages(handles, [refused])).toEqual({ copied: 1 })
  expect(Buffer.compare(refused, bytes)).toBe(0)
})
