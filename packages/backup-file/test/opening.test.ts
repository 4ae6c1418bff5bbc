import { createHash } from 'node:crypto'
import {
  chmodSync,
  chownSync,
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { open } from 'node:fs/promises'
import { createServer } from 'node:net'
import { basename, join } from 'node:path'
import { shareBackup } from '@spillway/core'
import { expect, it } from 'vitest'
import { type FileBackupOptions, openFileBackup } from '../src/index.ts'
import { decodeHeader, encodeHeader, type Header } from '../src/layout.ts'
import { ownIdentity } from '../src/owner-identity.ts'
import { runChild } from './children.ts'
import { faulty } from './faulty-file-system.ts'
import { expectHeld, pattern, store } from './pages.ts'
import { memoryFileSystem, scratchDirectory } from './places.ts'

const directory = scratchDirectory()
let names = 0
const freshPath = (): string => join(directory, `named-${names++}`)
const headerOf = (path: string) => decodeHeader(readFileSync(path).subarray(0, 4096)) as Header

it('creates a named file for its owner alone and removes it at close', async () => {
  const path = freshPath()
  const backup = await openFileBackup({ path })
  expect(statSync(path).mode & 0o777).toBe(0o600)
  expect(headerOf(path).owner.processId).toBe(process.pid)
  const bytes = pattern(3, 1)
  await expectHeld(backup, await store(backup, bytes), bytes)
  await backup.close()
  expect(existsSync(path)).toBe(false)
})

it('refuses a name that a live owner holds, this process included: EBUSY', async () => {
  const path = freshPath()
  await using first = await openFileBackup({ path })
  await expect(openFileBackup({ path, ownerWaitMs: 0 })).rejects.toMatchObject({
    code: 'EBUSY',
    message: expect.stringContaining('share that one with shareBackup'),
  })
  const bytes = pattern(2, 2)
  await expectHeld(first, await store(first, bytes), bytes)
})

it('lets one of many openers at the same time have the name', async () => {
  const path = freshPath()
  const outcomes = await Promise.allSettled(Array.from({ length: 8 }, () => openFileBackup({ path })))
  const opened = outcomes.filter((outcome) => outcome.status === 'fulfilled')
  expect(opened).toHaveLength(1)
  for (const outcome of outcomes) {
    if (outcome.status === 'rejected') expect(outcome.reason).toMatchObject({ code: 'EBUSY' })
  }
  await opened[0].value.close()
})

it('sweeps what a killed owner left, and nothing of an owner it cannot see', async () => {
  const path = freshPath()
  const child = await runChild('hold-backup.ts', ['path', path])
  expect(existsSync(path)).toBe(true)
  await expect(openFileBackup({ path, ownerWaitMs: 0 })).rejects.toMatchObject({ code: 'EBUSY' })
  await child.kill()
  expect(existsSync(path)).toBe(true)
  const left = headerOf(path).instance
  await using backup = await openFileBackup({ path })
  expect(headerOf(path).instance).not.toBe(left)
  expect(headerOf(path).owner.processId).toBe(process.pid)
  await store(backup, pattern(1, 1))

  const elsewhere = freshPath()
  const owner = { ...ownIdentity(), processNamespace: 'pid:[1]', processId: 999_999 }
  writeFileSync(elsewhere, encodeHeader({ ...headerOf(path), owner, isLocked: false }))
  await expect(openFileBackup({ path: elsewhere })).rejects.toMatchObject({
    code: 'EBUSY',
    message: expect.stringContaining('remove the file if it is not'),
  })
  expect(existsSync(elsewhere)).toBe(true)
})

it('takes a process id that was given away again for dead, and one of an earlier boot', async () => {
  const reused = freshPath()
  const backup = await openFileBackup({ path: reused })
  const header = headerOf(reused)
  await backup.close()
  writeFileSync(reused, encodeHeader({ ...header, owner: { ...header.owner, startTicks: '1' } }))
  await (await openFileBackup({ path: reused })).close()
  writeFileSync(reused, encodeHeader({ ...header, owner: { ...header.owner, bootId: 'an earlier boot' } }))
  await (await openFileBackup({ path: reused })).close()
})

it('finishes for a creator that died before it wrote its header', async () => {
  const path = freshPath()
  writeFileSync(path, '')
  chmodSync(path, 0o700)
  await (await openFileBackup({ path })).close()
})

it('leaves alone what is not its own: files, links, directories, files of other users', async () => {
  const file = freshPath()
  writeFileSync(file, 'something else')
  await expect(openFileBackup({ path: file })).rejects.toMatchObject({ code: 'EEXIST' })
  expect(readFileSync(file, 'utf8')).toBe('something else')

  const empty = freshPath()
  writeFileSync(empty, '')
  await expect(openFileBackup({ path: empty })).rejects.toMatchObject({ code: 'EEXIST' })

  const link = freshPath()
  symlinkSync(join(directory, 'target-of-link'), link)
  await expect(openFileBackup({ path: link })).rejects.toMatchObject({
    code: 'EEXIST',
    message: expect.stringContaining('symbolic link'),
  })
  expect(existsSync(join(directory, 'target-of-link'))).toBe(false)

  const folder = freshPath()
  mkdirSync(folder)
  await expect(openFileBackup({ path: folder })).rejects.toMatchObject({
    code: 'EEXIST',
    message: expect.stringContaining('it is a directory, which the option directory takes'),
  })
})

it('refuses what is no object of options: the message shows one', async () => {
  for (const wrong of [undefined, null, '/var/tmp']) {
    await expect(openFileBackup(wrong as never)).rejects.toThrow(
      /openFileBackup takes an object of options, such as { directory: .* it was given ("\/var\/tmp"|undefined|null)$/,
    )
  }
})

it('refuses a file that belongs to another user: EPERM', async () => {
  const fileSystem = memoryFileSystem()
  const first = await openFileBackup({ path: '/spill/pages', fs: fileSystem })
  const foreign = faulty(fileSystem, {
    lstat: (path, done) =>
      fileSystem.lstat(path, (error, status) =>
        done(error, Object.assign(Object.create(status), { uid: 4242 })),
      ),
  })
  await expect(openFileBackup({ path: '/spill/pages', fs: foreign })).rejects.toMatchObject({
    code: 'EPERM',
    message: expect.stringContaining('user 4242'),
  })
  await first.close()

  if (process.getuid?.() !== 0) return
  const path = freshPath()
  writeFileSync(path, 'private')
  chownSync(path, 65534, 65534)
  await expect(openFileBackup({ path })).rejects.toMatchObject({ code: 'EPERM' })
})

it('says what is wrong with a directory: absent, not writable, not a directory', async () => {
  await expect(openFileBackup({ directory: join(directory, 'absent') })).rejects.toMatchObject({
    code: 'ENOENT',
  })
  await expect(openFileBackup({ path: join(directory, 'absent', 'x') })).rejects.toMatchObject({
    code: 'ENOENT',
  })
  const file = freshPath()
  writeFileSync(file, '')
  await expect(openFileBackup({ directory: file })).rejects.toMatchObject({ code: 'ENOTDIR' })
  // Root may write everywhere: a child tries for which modes count.
  const locked = join(directory, 'locked')
  mkdirSync(locked, { mode: 0o555 })
  const child = await runChild('report-open.ts', ['directory', locked], { heedsModes: true })
  expect(await child.output).toContain('EACCES')
  const named = await runChild('report-open.ts', ['path', join(locked, 'x')], { heedsModes: true })
  expect(await named.output).toContain('EACCES')
})

it('leaves no file behind when it is killed in scratch mode', async () => {
  const scratch = join(directory, 'scratch')
  mkdirSync(scratch)
  const child = await runChild('hold-backup.ts', ['directory', scratch])
  expect(readdirSync(scratch)).toEqual([])
  await child.kill()
  expect(readdirSync(scratch)).toEqual([])
})

it('creates and unlinks where the file system has no unnamed files', async () => {
  const fileSystem = memoryFileSystem()
  await using backup = await openFileBackup({ directory: '/spill', fs: fileSystem })
  expect((fileSystem as unknown as typeof import('node:fs')).readdirSync('/spill')).toEqual([])
  const bytes = pattern(5, 3)
  await expectHeld(backup, await store(backup, bytes), bytes)
})

it('uses a descriptor or FileHandle it is given, leaves it open and as long as it was', async () => {
  const path = freshPath()
  writeFileSync(path, 'mine')
  await using handle = await open(path, 'r+')
  for (const fd of [handle, handle.fd]) {
    const backup = await openFileBackup({ fd })
    const bytes = pattern(4, 4)
    await expectHeld(backup, await store(backup, bytes), bytes)
    expect(backup.stats().mediumBytes).toBeGreaterThanOrEqual(4 * 4096)
    await backup.close()
    expect(readFileSync(path, 'utf8')).toBe('mine')
  }
  expect((await handle.stat()).size).toBe(4)
})

it('works on a descriptor of its own: the one that was given may be closed, and its number be another file', async () => {
  for (const given of ['number', 'FileHandle'] as const) {
    const path = freshPath()
    const handle = await open(path, 'w+')
    await handle.write('mine')
    const fd = given === 'number' ? openSync(path, 'r+') : handle
    const backup = await openFileBackup({ fd, direct: false, keepFreeBytes: 0 })
    if (typeof fd === 'number') closeSync(fd)
    await handle.close()
    // The next files of the application get the numbers that are free now.
    const others = Array.from({ length: 4 }, () => freshPath())
    const numbers = others.map((other) => openSync(other, 'w+'))
    const bytes = pattern(600, 1)
    await expectHeld(backup, await store(backup, bytes), bytes)
    await backup.close()
    expect(others.map((other) => statSync(other).size)).toEqual([0, 0, 0, 0])
    expect(readFileSync(path, 'utf8')).toBe('mine')
    numbers.forEach((number) => void closeSync(number))
  }
})

it('refuses a second backup in one file, however it is named: EBUSY', async () => {
  const path = freshPath()
  writeFileSync(path, '')
  await using handle = await open(path, 'r+')
  const backup = await openFileBackup({ fd: handle })
  const again = openSync(path, 'r+')
  for (const fd of [handle, handle.fd, again]) {
    await expect(openFileBackup({ fd })).rejects.toMatchObject({ code: 'EBUSY' })
  }
  const named = freshPath()
  await using holder = await openFileBackup({ path: named })
  const behind = openSync(named, 'r+')
  await expect(openFileBackup({ fd: behind })).rejects.toMatchObject({ code: 'EBUSY' })
  const bytes = pattern(5, 1)
  await expectHeld(holder, await store(holder, bytes), bytes)
  await backup.close()
  await (await openFileBackup({ fd: again })).close()
  closeSync(again)
  closeSync(behind)
})

it('leaves the file of a live owner alone whatever has become of its header: EBUSY', async () => {
  const path = freshPath()
  const child = await runChild('hold-backup.ts', ['path', path])
  const good = readFileSync(path).subarray(0, 4096)
  const dead = { ...headerOf(path), owner: { ...ownIdentity(), processId: 999_999, startTicks: '1' } }
  for (const header of [
    new Uint8Array(4096),
    encodeHeader(dead),
    good.map((byte, index) => byte ^ Number(index === 200)),
  ]) {
    const fd = openSync(path, 'r+')
    writeSync(fd, header, 0, 4096, 0)
    closeSync(fd)
    await expect(openFileBackup({ path, ownerWaitMs: 0 })).rejects.toMatchObject({ code: 'EBUSY' })
    expect(existsSync(path)).toBe(true)
  }
  await child.kill()
})

it('believes nothing of a header that is damaged, lacks a field or is of another version: EEXIST, untouched', async () => {
  const path = freshPath()
  const backup = await openFileBackup({ path })
  const header = headerOf(path)
  await backup.close()
  const { owner, ...rest } = header
  const { machine: _, ...nameless } = owner
  const good = encodeHeader({ ...header, owner: { ...owner, startTicks: '1' } })
  const blocks = [
    encodeHeader({ ...rest, owner: nameless } as Header),
    encodeHeader(rest as Header),
    good.map((byte, index) => byte ^ Number(index === 150)),
    new TextEncoder().encode(`spillway backup file 1\n${JSON.stringify(header)}\n`),
  ]
  for (const block of blocks) {
    writeFileSync(path, block)
    await expect(openFileBackup({ path })).rejects.toMatchObject({
      code: 'EEXIST',
      message: expect.stringContaining('header is damaged'),
    })
    expect(readFileSync(path)).toEqual(Buffer.from(block))
  }
  writeFileSync(path, good)
  await (await openFileBackup({ path })).close()
})

it('opens a name again that its owner in another process name space left, as a container does after a restart', async ({
  skip,
}) => {
  if (process.getuid?.() !== 0) skip('needs root to make process name spaces')
  const path = freshPath()
  const shell = 'exec unshare --pid --fork --mount-proc --kill-child "$@"'
  const first = await runChild('hold-backup.ts', ['path', path], { shell })
  expect(headerOf(path).owner.processId).toBe(1)
  await expect(openFileBackup({ path, ownerWaitMs: 0 })).rejects.toMatchObject({ code: 'EBUSY' })
  await first.kill()
  // The kill of the name space takes a moment to reach the owner in it.
  await (await openFileBackup({ path, ownerWaitMs: 20_000 })).close()
})

it('is not kept from opening by a socket that somebody else named after the file', async () => {
  const path = freshPath()
  const { dev, ino } = statSync(directory)
  const lock = createHash('sha256')
    .update(`true ${dev} ${ino} ${basename(path)}`)
    .digest('hex')
    .slice(0, 40)
  const server = createServer().listen({ path: `\0spillway-open-${lock}` })
  await (await openFileBackup({ path })).close()
  await new Promise((resolve) => server.close(resolve))
})

it('refuses descriptors that cannot hold pages: EINVAL, and closed ones: EBADF', async () => {
  const path = freshPath()
  writeFileSync(path, '')
  for (const flags of ['r', 'a', 'a+'] as const) {
    const fd = openSync(path, flags)
    await expect(openFileBackup({ fd })).rejects.toMatchObject({ code: 'EINVAL' })
    closeSync(fd)
    await expect(openFileBackup({ fd })).rejects.toMatchObject({ code: 'EBADF' })
  }
  const device = openSync('/dev/null', 'r+')
  await expect(openFileBackup({ fd: device })).rejects.toMatchObject({
    code: 'EINVAL',
    message: expect.stringContaining('neither a regular file nor a block device'),
  })
  closeSync(device)
})

it('refuses options that cannot be meant, and names the value', async () => {
  const wrong: [object, typeof TypeError | typeof RangeError, string][] = [
    [{}, TypeError, 'exactly one'],
    [{ path: 'a', directory: 'b' }, TypeError, '2 of path, directory and fd'],
    [{ path: 'a', fd: 3 }, TypeError, '2 of path, directory and fd'],
    [{ path: '' }, TypeError, 'path is ""'],
    [{ directory: 'a\0b' }, TypeError, 'directory is'],
    [{ fd: -1 }, TypeError, 'fd is -1'],
    [{ fd: 1.5 }, TypeError, 'fd is 1.5'],
    [{ fd: 'three' }, TypeError, 'fd is'],
    [{ directory, capcityBytes: 1 }, TypeError, 'capcityBytes'],
    [{ directory, capacityBytes: -1 }, RangeError, '-1'],
    [{ directory, capacityBytes: 4095 }, RangeError, '4095'],
    [{ directory, keepFreeBytes: 0.5 }, RangeError, '0.5'],
    [{ directory, warmBytes: Number.NaN }, RangeError, 'NaN'],
    [{ directory, pageSizeBytes: 5000 }, RangeError, '5000'],
    [{ directory, pageSizeBytes: 2048 }, RangeError, '2048'],
    [{ directory, io: 'threadz' }, TypeError, 'threadz'],
    [{ directory, direct: 'yes' }, TypeError, 'yes'],
    [{ directory, checksums: 1 }, TypeError, 'checksums is 1'],
    [{ directory, name: '' }, TypeError, 'name'],
    [{ directory, fs: {} }, TypeError, 'node:fs'],
    [{ directory, fs: memoryFileSystem(), io: 'uring' }, TypeError, 'uring'],
    [{ directory, fs: memoryFileSystem(), direct: true }, TypeError, 'direct'],
  ]
  for (const [options, kind, words] of wrong) {
    const call = openFileBackup(options as FileBackupOptions)
    await expect(call).rejects.toBeInstanceOf(kind)
    await expect(call).rejects.toMatchObject({ message: expect.stringContaining(words) })
  }
})

it('keeps no descriptor open after a failed open or a close', async () => {
  const openDescriptors = () => readdirSync('/proc/self/fd').length
  await (await openFileBackup({ directory })).close()
  const before = openDescriptors()
  const path = freshPath()
  await using holder = await openFileBackup({ path })
  const held = openDescriptors()
  for (let time = 0; time < 5; time++) {
    await (await openFileBackup({ directory })).close()
    await expect(openFileBackup({ path, ownerWaitMs: 0 })).rejects.toMatchObject({ code: 'EBUSY' })
  }
  expect(openDescriptors()).toBe(held)
  await holder.close()
  expect(openDescriptors()).toBe(before)
})

it('T83, T84: several owners share one file, and the last close removes it', async () => {
  const path = freshPath()
  const shared = shareBackup(await openFileBackup({ path }))
  const [one, other] = [shared.reference(), shared.reference()]
  const [mine, theirs] = [pattern(300, 1), pattern(300, 2)]
  const handles = await store(one, mine)
  const others = await store(other, theirs)
  await one.drop(handles)
  await expectHeld(other, others, theirs)
  await one.close()
  await expect(one.bytesAvailable()).rejects.toMatchObject({ code: 'EBADF' })
  await expectHeld(other, others, theirs)
  expect(existsSync(path)).toBe(true)
  await other.close()
  expect(existsSync(path)).toBe(false)
})

it('serves several backups at the same time with one ring', async () => {
  const backups = await Promise.all(
    Array.from({ length: 6 }, () => openFileBackup({ directory, keepFreeBytes: 0 })),
  )
  const [first, ...rest] = backups
  await Promise.all(
    backups.map(async (backup, seed) => {
      const bytes = pattern(700, seed)
      await expectHeld(backup, await store(backup, bytes), bytes)
    }),
  )
  // Those that stay are not disturbed by one that goes.
  await first.close()
  await Promise.all(
    rest.map(async (backup, seed) => {
      const bytes = pattern(64, seed)
      await expectHeld(backup, await store(backup, bytes), bytes)
    }),
  )
  await Promise.all(rest.map((backup) => backup.close()))
})
