import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { openShmemBackup, type ShmemBackupOptions } from '../src/index.ts'

const open = (options: object) =>
  openShmemBackup({ capacityBytes: 2 ** 20, ...options } as ShmemBackupOptions)

describe('openShmemBackup', () => {
  it.each([
    ['no options', undefined, TypeError, /needs options/],
    ['an unknown option', { capacity: 1 }, TypeError, /no option "capacity"/],
    ['no capacity', {}, RangeError, /capacityBytes is undefined/],
  ])('refuses %s', async (_what, options, kind, message) => {
    const call = openShmemBackup(options as unknown as ShmemBackupOptions)
    await expect(call).rejects.toBeInstanceOf(kind)
    await expect(call).rejects.toThrow(message)
  })

  it.each([
    ['a page size that is no power of two', { pageSizeBytes: 5000 }, /pageSizeBytes is 5000/],
    ['a page size that is too small', { pageSizeBytes: 2048 }, /pageSizeBytes is 2048/],
    ['a page size that is too large', { pageSizeBytes: 2 ** 22 }, /pageSizeBytes is 4194304/],
    ['a negative capacity', { capacityBytes: -4096 }, /capacityBytes is -4096/],
    ['a fractional capacity', { capacityBytes: 4096.5 }, /capacityBytes is 4096.5/],
    ['a capacity of no page', { capacityBytes: 0 }, /capacityBytes is 0/],
    ['a capacity that is no multiple', { capacityBytes: 5000 }, /multiple of the page size of 4096/],
    ['a capacity beyond what can be addressed', { capacityBytes: 2 ** 51 }, /at most 2\^50/],
    ['a negative warmBytes', { warmBytes: -1 }, /warmBytes is -1/],
    ['a medium that is none', { medium: 'disk' }, /medium is disk; .*auto, memfd, tmpfs/],
    ['a memfd with a name', { medium: 'memfd', shared: { name: 'a' } }, /memfd, which has no name/],
    ['a shared name with a slash', { shared: { name: 'a/b' } }, /shared.name is "a\/b"/],
    ['a shared name that climbs', { shared: { name: '..' } }, /shared.name is ".."/],
    ['an empty shared name', { shared: { name: '' } }, /shared.name is ""/],
  ])('refuses %s', async (_what, options, message) => {
    await expect(open(options)).rejects.toBeInstanceOf(RangeError)
    await expect(open(options)).rejects.toThrow(message)
  })

  it.each([
    ['a shared name that is no string', { shared: { name: 7 } }, /shared.name is 7/],
    ['a shared option it does not know', { shared: { name: 'a', mode: 7 } }, /no option "mode"/],
    ['shared that is no object', { shared: true }, /shared is true/],
    ['a name that is no string', { name: 7 }, /name is 7/],
    ['an empty name', { name: '' }, /name is/],
    ['a directory that is no path', { directory: 7 }, /directory is 7/],
    ['system that is no object', { system: 7 }, /system is 7/],
    ['a system path it does not know', { system: { sys: '/sys' } }, /no option "sys"/],
    ['a system path that is none', { system: { procDirectory: 7 } }, /system.procDirectory is 7/],
  ])('refuses %s', async (_what, options, message) => {
    await expect(open(options)).rejects.toBeInstanceOf(TypeError)
    await expect(open(options)).rejects.toThrow(message)
  })

  it('refuses a directory on a disk, and says so of one that is not there', async () => {
    const directory = mkdtempSync(join(tmpdir(), 'spillway-test-'))
    const nowhere = join(directory, 'nowhere')
    for (const shared of [undefined, { name: 'a' }]) {
      const options = { medium: 'tmpfs', shared }
      await expect(open({ ...options, directory: '/proc' })).rejects.toMatchObject({ code: 'EINVAL' })
      await expect(open({ ...options, directory: nowhere })).rejects.toMatchObject({ code: 'ENOENT' })
    }
    rmSync(directory, { recursive: true })
  })

  it('says which medium it uses and why', async () => {
    await using mapped = await open({})
    expect(mapped.capabilities.medium).toBe('memfd')
    expect(mapped.stats()).toMatchObject({ medium: 'memfd', access: 'mapped' })
    await using called = await open({ medium: 'tmpfs' })
    expect(called.capabilities.medium).toBe('tmpfs')
    expect(called.stats()).toMatchObject({ medium: 'tmpfs', access: 'calls' })
    expect(called.stats().mediumReason).toMatch(/\/dev\/shm.*medium is 'tmpfs'/)
  })

  it('can do what it says', async () => {
    await using backup = await open({ pageSizeBytes: 16384, name: 'mine' })
    expect(backup.name).toBe('mine')
    expect(backup.capabilities).toMatchObject({
      pageSizeBytes: 16384,
      preferredBatchPages: 512,
      persistent: false,
      shareable: false,
      reserves: true,
      detectsCorruption: false,
      stores: true,
    })
  })
})
