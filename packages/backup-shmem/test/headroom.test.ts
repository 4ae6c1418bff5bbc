import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { Headroom } from '../src/headroom.ts'
import { openShmemBackup } from '../src/index.ts'

const MiB = 2 ** 20
let root: string
let system: { procDirectory: string; cgroupDirectory: string }

beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'spillway-test-'))
  system = { procDirectory: join(root, 'proc'), cgroupDirectory: join(root, 'cgroup') }
  write('proc/meminfo', `MemAvailable:    ${1000 * 1024} kB\n`)
})
afterEach(() => rmSync(root, { recursive: true }))

function write(path: string, text: string | number): void {
  mkdirSync(dirname(join(root, path)), { recursive: true })
  writeFileSync(join(root, path), `${text}`)
}

/** A group of version 2 with this limit and use. */
function writeGroup(path: string, limitMib: number, usedMib: number): void {
  write(`cgroup${path}/memory.max`, limitMib * MiB)
  write(`cgroup${path}/memory.current`, usedMib * MiB)
}

describe('head-room', () => {
  const mebibytes = (keepFreeBytes?: number) =>
    new Headroom({ ...system, backup: 'test', keepFreeBytes }).bytes() / MiB

  it('leaves 5 % of the limit of each level to others, 32 MiB at least [T8]', () => {
    write('proc/meminfo', `MemTotal: ${10_000 * 1024} kB\nMemAvailable: ${1000 * 1024} kB\n`)
    expect(mebibytes()).toBe(500)
    write('proc/self/cgroup', '0::/a/b\n')
    writeGroup('/a', 600, 100)
    expect(mebibytes()).toBe(500 - 32)
    writeGroup('/a/b', 2000, 1500)
    expect(mebibytes()).toBe(500 - 100)
    writeGroup('/a', 600, 580)
    expect(mebibytes()).toBe(0)
  })

  it('leaves what the caller says [T8]', () => {
    write('proc/self/cgroup', '0::/\n')
    writeGroup('', 100, 60)
    expect(mebibytes(10 * MiB)).toBe(30)
    expect(mebibytes(0)).toBe(40)
    expect(mebibytes(50 * MiB)).toBe(0)
  })

  it('is not limited where the system tells nothing', () => {
    rmSync(join(root, 'proc'), { recursive: true })
    expect(mebibytes()).toBe(Number.POSITIVE_INFINITY)
  })

  it('subtracts what is taken until it is read again, and refuses more', () => {
    let nowMs = 0
    const headroom = new Headroom({ ...system, backup: 'test', keepFreeBytes: 0, nowMs: () => nowMs })
    headroom.take(900 * MiB)
    expect(headroom.bytes()).toBe(100 * MiB)
    expect(() => headroom.take(200 * MiB)).toThrow(
      expect.objectContaining({ code: 'ENOSPC', backup: 'test' }),
    )
    nowMs = 1000
    expect(headroom.bytes()).toBe(1000 * MiB)
  })

  it('is one for all backups of the process: what one took, another cannot', () => {
    const one = new Headroom({ backup: 'one', keepFreeBytes: 0 })
    const other = new Headroom({ backup: 'other', keepFreeBytes: 0 })
    const before = other.bytes()
    one.take(Math.floor(before))
    expect(other.bytes()).toBeLessThan(MiB)
  })

  it('is the room of the file system as well', () => {
    const headroom = new Headroom({ ...system, backup: 'test', keepFreeBytes: 0, directory: '/proc' })
    expect(headroom.bytes()).toBe(1000 * MiB)
    const nowhere = { procDirectory: '/nowhere', cgroupDirectory: '/nowhere' }
    const shm = new Headroom({ ...nowhere, backup: 'test', directory: '/dev/shm' })
    expect(shm.bytes()).toBeGreaterThan(0)
    expect(shm.bytes()).toBeLessThan(Number.POSITIVE_INFINITY)
  })
})

for (const medium of ['memfd', 'tmpfs'] as const) {
  describe(`T8: a backup in a full system (${medium})`, () => {
    const open = () => openShmemBackup({ capacityBytes: 64 * MiB, medium, system })
    const full = () => {
      write('proc/self/cgroup', '0::/\n')
      writeGroup('', 100, 66)
    }

    const nothingLeft = async () => {
      write('proc/meminfo', 'MemAvailable: 0 kB\n')
      // What was read before is used for some milliseconds.
      await new Promise((resolve) => setTimeout(resolve, 30))
    }

    it('tells the least of capacity, free memory and the cgroup', async () => {
      await using roomy = await open()
      expect(await roomy.bytesAvailable()).toBe(64 * MiB)
      full()
      await using backup = await open()
      expect(await backup.bytesAvailable()).toBe(2 * MiB)
    })

    it('stores every page that fits and says ENOSPC, and what was stored is good', async () => {
      await using backup = await open()
      const warm = await backup.backupPages([new Uint8Array(100 * 4096)])
      await backup.drop(warm.handles)
      await nothingLeft()
      const bytes = new Uint8Array(8 * MiB).map((_, index) => index * 7 + (index >> 12))
      const { handles, error } = await backup.backupPages([bytes])
      expect(error).toMatchObject({ code: 'ENOSPC', retryable: true })
      const pages = handles.reduce((count, run) => count + run.count, 0)
      expect(pages).toBe(100)
      const into = new Uint8Array(100 * 4096)
      expect(await backup.copyPages(handles, [into])).toEqual({ copied: pages })
      expect(Buffer.compare(into, bytes.subarray(0, into.byteLength))).toBe(0)
    })

    it('reserves nothing that it could not keep', async () => {
      full()
      await using backup = await open()
      await expect(backup.reserve(4 * MiB)).rejects.toMatchObject({ code: 'ENOSPC' })
      expect(backup.stats()).toMatchObject({ reservedBytes: 0, livePages: 0 })
      await using reservation = await backup.reserve(MiB)
      expect(reservation.bytes).toBe(MiB)
    })

    it('uses warm memory although there is no more', async () => {
      await using backup = await open()
      const bytes = new Uint8Array(16 * MiB).fill(3)
      const first = await backup.backupPages([bytes])
      await backup.drop(first.handles)
      await nothingLeft()
      expect(await backup.bytesAvailable()).toBe(16 * MiB)
      const second = await backup.backupPages([bytes])
      expect(second.error).toBeUndefined()
    })
  })
}
