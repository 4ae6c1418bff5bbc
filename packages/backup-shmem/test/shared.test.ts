import { execFileSync } from 'node:child_process'
import {
  chmodSync,
  chownSync,
  closeSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { lockFile } from '@spillway/native'
import fc from 'fast-check'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { attachShmemBackup, openShmemBackup } from '../src/index.ts'
import { encodeHeader, headerBytes, layoutOf } from '../src/shared/layout.ts'
import { currentOwner, isDead } from '../src/shared/owner.ts'
import {
  canMakeProcessNamespace,
  inProcessNamespace,
  namespaceEnvironment,
  TestProcess,
} from './processes/process.ts'

const pageSizeBytes = 4096
const capacityBytes = 64 * pageSizeBytes
let directory: string

beforeEach(() => {
  directory = mkdtempSync('/dev/shm/spillway-test-')
})
afterEach(() => {
  rmSync(directory, { recursive: true })
})

const page = (fill: number, pages = 1) => new Uint8Array(pages * pageSizeBytes).fill(fill)

for (const medium of ['auto', 'tmpfs'] as const) {
  const open = (name: string) => openShmemBackup({ capacityBytes, directory, medium, shared: { name } })
  const access = medium === 'auto' ? 'mapped' : 'calls'

  describe(`a shared backup (${access})`, () => {
    it('is a file of mode 0600 as long as it is open, and nothing afterwards', async () => {
      const backup = await open('one')
      expect(backup.capabilities.shareable).toBe(true)
      expect(backup.stats()).toMatchObject({ medium: 'tmpfs', access })
      expect(readdirSync(directory)).toEqual(['one'])
      expect(statSync(join(directory, 'one')).mode & 0o777).toBe(0o600)
      await backup.backupPages([page(1)])
      await backup.close()
      expect(readdirSync(directory)).toEqual([])
    })

    it('is one owner’s: a name in use is EEXIST, in this process and in another', async () => {
      await using backup = await open('one')
      const { handles } = await backup.backupPages([page(1)])
      await expect(open('one')).rejects.toMatchObject({ code: 'EEXIST' })
      await using other = new TestProcess()
      await expect(
        other.call('open', { capacityBytes, directory, shared: { name: 'one' } }),
      ).rejects.toMatchObject({ code: 'EEXIST' })
      const into = page(0)
      expect(await backup.copyPages(handles, [into])).toEqual({ copied: 1 })
      expect(into).toEqual(page(1))
    })

    it('takes no name that is somebody’s file, and follows no symbolic link', async () => {
      writeFileSync(join(directory, 'file'), 'mine')
      symlinkSync(join(directory, 'target'), join(directory, 'dangling'))
      symlinkSync(join(directory, 'file'), join(directory, 'link'))
      mkdirSync(join(directory, 'folder'))
      for (const name of ['file', 'dangling', 'link', 'folder']) {
        await expect(open(name)).rejects.toMatchObject({ code: 'EEXIST' })
      }
      expect(readFileSync(join(directory, 'file'), 'utf8')).toBe('mine')
      expect(existsSync(join(directory, 'target'))).toBe(false)
      expect(readdirSync(directory).sort()).toEqual(['dangling', 'file', 'folder', 'link'])
    })

    it('hands live pages to an attached process, and no dropped one', async () => {
      await using backup = await open('one')
      await using reader = new TestProcess()
      expect(await reader.call('attach', { name: 'one', directory })).toBe(pageSizeBytes)
      const { handles } = await backup.backupPages([page(7, 40)])
      expect(await reader.call('fillOf', [...handles], 40)).toBe(7)
      await backup.drop(handles)
      await expect(reader.call('fillOf', [...handles], 40)).rejects.toMatchObject({ code: 'ESTALE' })
      const again = await backup.backupPages([page(8, 64)])
      await expect(reader.call('fillOf', [...handles], 40)).rejects.toMatchObject({ code: 'ESTALE' })
      expect(await reader.call('fillOf', [...again.handles], 64)).toBe(8)
      await reader.call('close')
    })

    it('tells attached processes that it was closed, and keeps no memory for them', async () => {
      const backup = await open('one')
      const attached = await attachShmemBackup({ name: 'one', directory })
      const { handles } = await backup.backupPages([page(7)])
      expect(await attached.copyPages(handles, [page(0)])).toEqual({ copied: 1 })
      await backup.close()
      const copy = attached.copyPages(handles, [page(0)])
      await expect(copy).rejects.toMatchObject({ code: 'ESTALE' })
      await attached.close()
    })

    it('does not remove a file that took its name', async () => {
      const backup = await open('one')
      rmSync(join(directory, 'one'))
      const successor = await open('one')
      await backup.close()
      expect(readdirSync(directory)).toEqual(['one'])
      await successor.close()
      expect(readdirSync(directory)).toEqual([])
    })
  })
}

describe('what dead owners left', () => {
  const open = (name: string) => openShmemBackup({ capacityBytes, directory, shared: { name } })

  it('is readable until it is swept by the next open, of the same name or another', async () => {
    for (const nextName of ['one', 'two']) {
      await using owner = new TestProcess()
      await owner.call('open', { capacityBytes, directory, shared: { name: 'one' } })
      const handles = await owner.call('store', 9, 3)
      await using attached = await attachShmemBackup({ name: 'one', directory })
      expect(attached.ownerIsAlive).toBe(true)
      await owner.kill()
      expect(attached.ownerIsAlive).toBe(false)
      const into = page(0, 3)
      expect(await attached.copyPages(handles, [into])).toEqual({ copied: 3 })
      expect(into).toEqual(page(9, 3))
      expect(readdirSync(directory)).toEqual(['one'])
      await using next = await open(nextName)
      expect(readdirSync(directory)).toEqual([nextName])
      expect(next.stats().livePages).toBe(0)
    }
  })

  it('is swept when it died before the file had its name, or while it swept', async () => {
    await using owner = new TestProcess()
    await owner.call('open', { capacityBytes, directory, shared: { name: 'one' } })
    const { pid } = owner
    const { namespace } = currentOwner()
    await owner.kill()
    for (const kind of ['make', 'sweep']) {
      writeFileSync(join(directory, `.spillway-${kind}-${pid}-1-${namespace}-0123456789ab`), '', {
        mode: 0o600,
      })
    }
    await using _next = await open('two')
    expect(readdirSync(directory)).toEqual(['two'])
  })

  it('is told from what the living use, another process namespace has, or nobody can say', async () => {
    const own = currentOwner()
    const { fileBytes } = layoutOf(pageSizeBytes, 64)
    const write = (name: string, owner: typeof own, mode = 0o600, isLocked = false) => {
      const bytes = new Uint8Array(fileBytes)
      bytes.set(encodeHeader({ pageSizeBytes, capacitySlots: 64, slotRange: 64, owner, isLocked }))
      writeFileSync(join(directory, name), bytes, { mode })
    }
    const dead = { ...own, startTicks: own.startTicks + 1 }
    write('alive', own)
    write('elsewhere', { ...dead, namespace: own.namespace + 1 })
    write('unknown', { ...dead, namespace: 0 })
    write('open-to-others', dead, 0o640)
    write('dead', dead)
    // Whoever lives elsewhere is told by its lock.
    write('lock-is-held', dead, 0o600, true)
    write('.spillway-make-1-1-1-0123456789ab', dead, 0o600, true)
    write('lock-is-gone', { ...dead, namespace: own.namespace + 1 }, 0o600, true)
    write('.spillway-make-2-1-1-0123456789ab', dead, 0o600, true)
    write('.spillway-sweep-2-1-1-0123456789ab', dead, 0o600, true)
    const locked = ['lock-is-held', '.spillway-make-1-1-1-0123456789ab'].map((name) => {
      const fd = openSync(join(directory, name), 'r+')
      lockFile(fd)
      return fd
    })
    writeFileSync(join(directory, 'torn'), new Uint8Array(fileBytes).fill(1), { mode: 0o600 })
    await using _next = await open('next')
    locked.forEach(closeSync)
    expect(readdirSync(directory).sort()).toEqual([
      '.spillway-make-1-1-1-0123456789ab',
      'alive',
      'elsewhere',
      'lock-is-held',
      'next',
      'open-to-others',
      'torn',
      'unknown',
    ])
  })

  it('is free for the next when its owner was killed in another process namespace, as in a container', async ({
    skip,
  }) => {
    if (!canMakeProcessNamespace()) return skip('no process namespace can be made here')
    await using owner = new TestProcess(inProcessNamespace, namespaceEnvironment)
    await owner.call('open', { capacityBytes, directory, shared: { name: 'one' } })
    await expect(open('one')).rejects.toMatchObject({
      code: 'EEXIST',
      message: `EEXIST: the name is taken: process 1 of another process namespace (a container) has ${join(directory, 'one')} open`,
    })
    await owner.kill()
    // Its parent is gone; the process itself follows a moment later.
    for (;;) {
      const next = await open('one').catch(() => undefined)
      await next?.close()
      if (next !== undefined) break
      await new Promise((resolve) => setTimeout(resolve, 5))
    }
    expect(readdirSync(directory)).toEqual([])
  })

  it('says what cannot be told of an owner in another process namespace that had no lock', async () => {
    const own = currentOwner()
    const bytes = new Uint8Array(layoutOf(pageSizeBytes, 64).fileBytes)
    const owner = { ...own, pid: 1, namespace: own.namespace + 1 }
    bytes.set(encodeHeader({ pageSizeBytes, capacitySlots: 64, slotRange: 64, owner, isLocked: false }))
    writeFileSync(join(directory, 'one'), bytes, { mode: 0o600 })
    const message =
      /cannot be told because its owner had no @spillway\/native; remove the file if it does not$/
    await expect(open('one')).rejects.toMatchObject({
      code: 'EEXIST',
      message: expect.stringMatching(message),
    })
  })

  it('a process whose number was given to another counts as dead, and an unreadable one as alive', () => {
    const own = currentOwner()
    expect(isDead(own)).toBe(false)
    expect(isDead({ ...own, startTicks: own.startTicks - 1 })).toBe(true)
    expect(isDead({ ...own, pid: 2 ** 22 + 1 })).toBe(true)
    expect(isDead({ ...own, pid: 2 ** 22 + 1 }, join(directory, 'no-proc'))).toBe(false)
  })
})

describe('attaching', () => {
  const attach = (name = 'one') => attachShmemBackup({ name, directory })

  it('refuses what is not there, no file, a link, another’s, and what others could write', async () => {
    await using _owner = await openShmemBackup({ capacityBytes, directory, shared: { name: 'one' } })
    const path = join(directory, 'one')
    mkdirSync(join(directory, 'folder'))
    symlinkSync(path, join(directory, 'link'))
    execFileSync('mkfifo', [join(directory, 'pipe')])
    await expect(attach('nothing')).rejects.toMatchObject({ code: 'ENOENT' })
    await expect(attach('folder')).rejects.toMatchObject({ code: 'EINVAL' })
    await expect(attach('link')).rejects.toMatchObject({ code: 'EINVAL' })
    await expect(attach('pipe')).rejects.toMatchObject({ code: 'EINVAL' })
    chmodSync(path, 0o660)
    await expect(attach()).rejects.toMatchObject({ code: 'EACCES' })
    chmodSync(path, 0o600)
    await (await attach()).close()
  })

  it('refuses a file of another user', async () => {
    await using _owner = await openShmemBackup({ capacityBytes, directory, shared: { name: 'one' } })
    const user = process.geteuid!()
    // Root can give the file away; anybody else can only pretend to be somebody else.
    if (user === 0) chownSync(join(directory, 'one'), 65534, 65534)
    else process.geteuid = () => user + 1
    try {
      await expect(attach()).rejects.toMatchObject({ code: 'EPERM' })
    } finally {
      if (user === 0) chownSync(join(directory, 'one'), 0, 0)
      else process.geteuid = () => user
    }
  })

  it('refuses bad names and unknown options', async () => {
    for (const name of ['', '.', '..', '.hidden', 'a/b', '../a', '-a', 'a\0', 'ä', 'a'.repeat(129)]) {
      await expect(attach(name)).rejects.toBeInstanceOf(RangeError)
    }
    for (const options of [{}, { name: 5 }, { name: 'a', mode: 1 }, { name: 'a', directory: 5 }, null]) {
      await expect(attachShmemBackup(options as never)).rejects.toBeInstanceOf(TypeError)
    }
  })

  it('EBADMSG or EINVAL for any header with any byte changed, and for any length', async () => {
    const { fileBytes } = layoutOf(pageSizeBytes, 64)
    const good = encodeHeader({
      pageSizeBytes,
      capacitySlots: 64,
      slotRange: 64,
      owner: currentOwner(),
      isLocked: false,
    })
    const path = join(directory, 'one')
    const write = (header: Uint8Array, length: number) => {
      const bytes = new Uint8Array(length)
      bytes.set(header.subarray(0, length))
      writeFileSync(path, bytes, { mode: 0o600 })
    }
    write(good, fileBytes)
    await (await attach()).close()
    for (const length of [
      0,
      1,
      7,
      8,
      75,
      76,
      79,
      80,
      headerBytes - 1,
      headerBytes,
      fileBytes - 1,
      fileBytes + 1,
    ]) {
      write(good, length)
      await expect(attach()).rejects.toMatchObject({ code: expect.stringMatching(/^(EINVAL|EBADMSG)$/) })
    }
    for (let position = 0; position < 80; position++) {
      const bad = good.slice()
      bad[position] ^= 0x40
      write(bad, fileBytes)
      await expect(attach(), `byte ${position}`).rejects.toMatchObject({
        code: expect.stringMatching(/^(EINVAL|EBADMSG)$/),
      })
    }
  })

  it('EBADMSG for a header that matches its checksum and says what cannot be', async () => {
    const owner = currentOwner()
    const possible = { pageSizeBytes, capacitySlots: 64, slotRange: 64, owner, isLocked: false }
    const numbers = fc.oneof(
      fc.double(),
      fc.integer(),
      fc.constantFrom(0, -1, 3, 2 ** 31, 2 ** 60, Number.NaN),
    )
    const changes = fc.oneof(
      fc.record({ capacitySlots: numbers }),
      fc.record({ slotRange: numbers }),
      fc.record({ pageSizeBytes: fc.integer({ min: 0, max: 2 ** 32 - 1 }) }),
    )
    await fc.assert(
      fc.asyncProperty(changes, async (change) => {
        const header = { ...possible, ...change }
        const bytes = new Uint8Array(layoutOf(pageSizeBytes, 64).fileBytes)
        bytes.set(encodeHeader(header))
        writeFileSync(join(directory, 'one'), bytes, { mode: 0o600 })
        const outcome = await attach().then(
          async (attached) => {
            await attached.close()
            return 'attached'
          },
          (error: { code: string }) => error.code,
        )
        // A larger range of handles is possible; nothing else is.
        const isPossible =
          Object.entries(header).every(
            ([key, value]) => key === 'slotRange' || value === possible[key as keyof typeof possible],
          ) &&
          header.slotRange >= 64 &&
          header.slotRange <= 2 ** 40 &&
          Number.isInteger(Math.log2(header.slotRange))
        expect(outcome).toBe(isPossible ? 'attached' : 'EBADMSG')
      }),
      { numRuns: 100 },
    )
  })

  it('refuses forged handles and misuse as the owner does, and is EBADF when closed', async () => {
    await using owner = await openShmemBackup({ capacityBytes, directory, shared: { name: 'one' } })
    const { handles } = await owner.backupPages([page(1, 4)])
    const attached = await attach()
    const { first } = handles[0]
    for (const forged of [1, first - 1, first + 4, first + 2 ** 30, 2 ** 52 - 1]) {
      const copy = attached.copyPages([{ first: forged, count: 1 }], [page(0)])
      await expect(copy).rejects.toMatchObject({ code: 'ESTALE', handle: forged })
    }
    await expect(attached.copyPages([{ first, count: 5 }], [page(0, 5)])).rejects.toMatchObject({
      code: 'ESTALE',
    })
    await expect(attached.copyPages([{ first, count: 4 }], [page(0, 3)])).rejects.toBeInstanceOf(RangeError)
    await expect(attached.copyPages([{ first: 0, count: 1 }], [page(0)])).rejects.toBeInstanceOf(RangeError)
    const signal = AbortSignal.abort('enough')
    const aborted = await attached.copyPages(handles, [page(0, 4)], { signal })
    expect(aborted).toMatchObject({ copied: 0, error: { code: 'EINTR', cause: 'enough' } })
    await Promise.all([attached.close(), attached.close(), attached[Symbol.asyncDispose]()])
    await expect(attached.copyPages(handles, [page(0, 4)])).rejects.toMatchObject({ code: 'EBADF' })
    expect(lstatSync(join(directory, 'one')).isFile()).toBe(true)
  })
})
