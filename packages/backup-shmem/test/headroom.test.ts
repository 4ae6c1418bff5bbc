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
  write('proc/meminfo', `MemTotal: 9999999 kB\nMemAvailable:    ${1000 * 1024} kB\n`)
})
afterEach(() => rmSync(root, { recursive: true }))

function write(path: string, text: string | number): void {
  mkdirSync(dirname(join(root, path)), { recursive: true })
  writeFileSync(join(root, path), `${text}`)
}

const mebibytes = () => new Headroom({ ...system, backup: 'test' }).bytes() / MiB

describe('T8: head-room', () => {
  it('is the free memory where there is no cgroup', () => {
    expect(mebibytes()).toBe(1000)
  })

  it('is the least of all levels of a cgroup of version 2', () => {
    write('proc/self/cgroup', '0::/a/b\n')
    write('cgroup/a/b/memory.max', 'max\n')
    write('cgroup/a/b/memory.current', 10 * MiB)
    expect(mebibytes()).toBe(1000)
    write('cgroup/a/memory.max', 300 * MiB)
    write('cgroup/a/memory.current', 100 * MiB)
    expect(mebibytes()).toBe(200)
    write('cgroup/a/b/memory.max', 60 * MiB)
    expect(mebibytes()).toBe(50)
    write('cgroup/a/memory.current', 280 * MiB)
    expect(mebibytes()).toBe(20)
    write('cgroup/a/b/memory.high', 25 * MiB)
    expect(mebibytes()).toBe(15)
  })

  it('is the least of all levels of a cgroup of version 1', () => {
    write('proc/self/cgroup', '9:name=systemd:/\n4:cpu,memory:/a/b\n0::/elsewhere\n')
    write('cgroup/memory/memory.limit_in_bytes', '9223372036854771712\n')
    write('cgroup/memory/memory.usage_in_bytes', 700 * MiB)
    write('cgroup/memory/a/memory.limit_in_bytes', 500 * MiB)
    write('cgroup/memory/a/memory.usage_in_bytes', 100 * MiB)
    write('cgroup/memory/a/b/memory.limit_in_bytes', 450 * MiB)
    write('cgroup/memory/a/b/memory.usage_in_bytes', 40 * MiB)
    expect(mebibytes()).toBe(400)
  })

  it('counts cached files that nobody used lately as free', () => {
    write('proc/self/cgroup', '0::/\n')
    write('cgroup/memory.max', 100 * MiB)
    write('cgroup/memory.current', 90 * MiB)
    write('cgroup/memory.stat', `anon 5\ninactive_file ${30 * MiB}\nactive_file 7\n`)
    expect(mebibytes()).toBe(40)
  })

  it('uses the levels that are mounted when the path is outside of the container', () => {
    for (const path of ['/docker/0123', '/../../sibling']) {
      write('proc/self/cgroup', `0::${path}\n`)
      write('cgroup/memory.max', 100 * MiB)
      write('cgroup/memory.current', 40 * MiB)
      expect(mebibytes()).toBe(60)
    }
  })

  it('is nothing, not less, when more is used than allowed', () => {
    write('proc/self/cgroup', '0::/\n')
    write('cgroup/memory.max', 100 * MiB)
    write('cgroup/memory.current', 140 * MiB)
    expect(mebibytes()).toBe(0)
  })

  it('is not limited where the system tells nothing', () => {
    rmSync(join(root, 'proc'), { recursive: true })
    expect(mebibytes()).toBe(Number.POSITIVE_INFINITY)
  })

  it('subtracts what is taken until it is read again, and refuses more', () => {
    let nowMs = 0
    const headroom = new Headroom({ ...system, backup: 'test', nowMs: () => nowMs })
    headroom.take(900 * MiB)
    expect(headroom.bytes()).toBe(100 * MiB)
    expect(() => headroom.take(200 * MiB)).toThrow(
      expect.objectContaining({ code: 'ENOSPC', backup: 'test' }),
    )
    nowMs = 1000
    expect(headroom.bytes()).toBe(1000 * MiB)
  })

  it('is the room of the file system as well', () => {
    const headroom = new Headroom({ ...system, backup: 'test', directory: '/proc' })
    expect(headroom.bytes()).toBe(1000 * MiB)
    const shm = new Headroom({
      procDirectory: '/nowhere',
      cgroupDirectory: '/nowhere',
      backup: 'test',
      directory: '/dev/shm',
    })
    expect(shm.bytes()).toBeGreaterThan(0)
    expect(shm.bytes()).toBeLessThan(Number.POSITIVE_INFINITY)
  })
})

for (const medium of ['memfd', 'tmpfs'] as const) {
  describe(`T8: a backup in a full system (${medium})`, () => {
    const open = () => openShmemBackup({ capacityBytes: 64 * MiB, medium, system })
    const full = () => {
      write('proc/self/cgroup', '0::/\n')
      write('cgroup/memory.max', 100 * MiB)
      write('cgroup/memory.current', 98 * MiB)
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
