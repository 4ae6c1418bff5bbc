import { execFileSync } from 'node:child_process'
import { mkdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { memoryHeadroomBytes, SystemMemoryReader } from '../src/index.ts'

const MiB = 2 ** 20

/** A reader of a system that consists of these files. */
const systemOf = (files: Record<string, string | number>) =>
  new SystemMemoryReader((path) => (path in files ? String(files[path]) : undefined))

const machine = { '/proc/meminfo': `MemTotal:  ${4000 * 1024} kB\nMemAvailable:  ${1000 * 1024} kB\n` }
const none = '9223372036854771712\n'

describe('the memory of the system', () => {
  it('is that of the machine where there are no groups', () => {
    expect(systemOf(machine).read()).toEqual({
      levels: [{ name: 'machine', limitBytes: 4000 * MiB, availableBytes: 1000 * MiB }],
      limitBytes: 4000 * MiB,
      availableBytes: 1000 * MiB,
      pressurePercent: undefined,
    })
  })

  it('is without limit where nothing is told', () => {
    const { limitBytes, availableBytes, levels } = systemOf({}).read()
    expect({ limitBytes, availableBytes, levels }).toEqual({
      limitBytes: Infinity,
      availableBytes: Infinity,
      levels: [],
    })
  })

  it('is the least of all groups above the process in version 2, with memory.high', () => {
    const files = {
      ...machine,
      '/proc/self/cgroup': '0::/a/b\n',
      '/sys/fs/cgroup/a/b/memory.max': 'max\n',
      '/sys/fs/cgroup/a/b/memory.high': `${500 * MiB}\n`,
      '/sys/fs/cgroup/a/b/memory.current': 50 * MiB,
      '/sys/fs/cgroup/a/memory.max': 600 * MiB,
      '/sys/fs/cgroup/a/memory.current': 400 * MiB,
      '/sys/fs/cgroup/a/b/memory.pressure': 'some avg10=12.50 avg60=0 avg300=0 total=1\n',
    }
    expect(systemOf(files).read()).toMatchObject({
      limitBytes: 500 * MiB,
      availableBytes: 200 * MiB,
      pressurePercent: 12.5,
    })
  })

  it('is the least of all groups above the process in version 1', () => {
    const files = {
      ...machine,
      '/proc/self/cgroup': '9:name=systemd:/x\n4:cpu,memory:/a/b\n0::/elsewhere\n',
      '/sys/fs/cgroup/memory/memory.limit_in_bytes': none,
      '/sys/fs/cgroup/memory/a/memory.limit_in_bytes': 500 * MiB,
      '/sys/fs/cgroup/memory/a/memory.usage_in_bytes': 100 * MiB,
      '/sys/fs/cgroup/memory/a/b/memory.limit_in_bytes': 450 * MiB,
      '/sys/fs/cgroup/memory/a/b/memory.usage_in_bytes': 40 * MiB,
    }
    expect(systemOf(files).read()).toMatchObject({ limitBytes: 450 * MiB, availableBytes: 400 * MiB })
  })

  it('knows the limit of a group of version 1 above what the container sees', () => {
    const files = {
      ...machine,
      '/proc/self/cgroup': '4:memory:/\n',
      '/sys/fs/cgroup/memory/memory.limit_in_bytes': none,
      '/sys/fs/cgroup/memory/memory.usage_in_bytes': 100 * MiB,
      '/sys/fs/cgroup/memory/memory.stat': `hierarchical_memory_limit ${512 * MiB}\ntotal_inactive_file 0\n`,
    }
    expect(systemOf(files).read()).toMatchObject({ limitBytes: 512 * MiB, availableBytes: 412 * MiB })
  })

  it('counts clean cached files as available, and dirty ones and a tmpfs as used', () => {
    const stat = (prefix: string, dirty: string, writeback: string) =>
      `${prefix}inactive_file ${100 * MiB}\n${prefix}active_file ${60 * MiB}\n${prefix}shmem ${200 * MiB}\n` +
      `${dirty} ${10 * MiB}\n${writeback} ${20 * MiB}\n`
    const unified = {
      '/proc/self/cgroup': '0::/\n',
      '/sys/fs/cgroup/memory.max': 500 * MiB,
      '/sys/fs/cgroup/memory.current': 490 * MiB,
      '/sys/fs/cgroup/memory.stat': stat('', 'file_dirty', 'file_writeback'),
    }
    const legacy = {
      '/proc/self/cgroup': '1:memory:/\n',
      '/sys/fs/cgroup/memory/memory.limit_in_bytes': 500 * MiB,
      '/sys/fs/cgroup/memory/memory.usage_in_bytes': 490 * MiB,
      '/sys/fs/cgroup/memory/memory.stat': stat('total_', 'total_dirty', 'total_writeback'),
    }
    expect(systemOf(unified).read().availableBytes).toBe(140 * MiB)
    expect(systemOf(legacy).read().availableBytes).toBe(140 * MiB)
  })

  it('is nothing, not less, where more is used than allowed', () => {
    const files = {
      '/proc/self/cgroup': '0::/\n',
      '/sys/fs/cgroup/memory.max': 100 * MiB,
      '/sys/fs/cgroup/memory.current': 140 * MiB,
    }
    expect(systemOf(files).read().availableBytes).toBe(0)
  })

  it('finds groups where they are mounted, below the group that a container has as its root', () => {
    const files = {
      '/proc/self/mountinfo':
        '35 31 0:32 /docker/0123 /sys/my\\040groups/memory rw,relatime - cgroup cgroup rw,memory\n' +
        '36 31 0:33 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n' +
        '37 31 0:34 /docker/0123 /sys/unified rw,nosuid shared:4 - cgroup2 cgroup2 rw\n',
      '/proc/self/cgroup': '4:memory:/docker/0123/worker\n0::/docker/0123\n',
      '/sys/my groups/memory/worker/memory.limit_in_bytes': 300 * MiB,
      '/sys/my groups/memory/worker/memory.usage_in_bytes': 100 * MiB,
      '/sys/unified/memory.max': 400 * MiB,
      '/sys/unified/memory.current': 390 * MiB,
    }
    expect(systemOf(files).read()).toMatchObject({
      levels: [
        { name: '/sys/my groups/memory/worker', limitBytes: 300 * MiB, availableBytes: 200 * MiB },
        { name: '/sys/unified', limitBytes: 400 * MiB, availableBytes: 10 * MiB },
      ],
      availableBytes: 10 * MiB,
    })
  })

  it.each(['/docker/0123', '/../../sibling'])(
    'uses what is mounted when the group %s lies outside of it',
    (group) => {
      const files = {
        '/proc/self/cgroup': `0::${group}\n`,
        '/sys/fs/cgroup/memory.max': 100 * MiB,
        '/sys/fs/cgroup/memory.current': 40 * MiB,
      }
      expect(systemOf(files).read().availableBytes).toBe(60 * MiB)
    },
  )

  it('follows a process into another group', () => {
    const files: Record<string, string | number> = {
      '/proc/self/cgroup': '0::/a\n',
      '/sys/fs/cgroup/a/memory.max': 100 * MiB,
      '/sys/fs/cgroup/b/memory.max': 200 * MiB,
    }
    const reader = systemOf(files)
    expect(reader.read().limitBytes).toBe(100 * MiB)
    files['/proc/self/cgroup'] = '0::/b\n'
    expect(reader.read().limitBytes).toBe(200 * MiB)
  })

  it('is what the real kernel allows a process in a group below a limited one', ({ skip }) => {
    const parent = `/sys/fs/cgroup/memory/spillway-test-${process.pid}`
    try {
      mkdirSync(`${parent}/leaf`, { recursive: true })
      writeFileSync(`${parent}/memory.limit_in_bytes`, String(512 * MiB))
    } catch (failure) {
      return skip(`needs root and control groups of version 1: ${(failure as Error).message}`)
    }
    try {
      const show = 'cat /proc/self/cgroup; exec sleep 0'
      const group = execFileSync('sh', ['-c', `echo $$ > ${parent}/leaf/cgroup.procs; ${show}`], {
        encoding: 'utf8',
      })
      const reader = new SystemMemoryReader((path) => {
        try {
          return path === '/proc/self/cgroup' ? group : readFileSync(path, 'latin1')
        } catch {
          return undefined
        }
      })
      const { limitBytes, availableBytes } = reader.read()
      expect(limitBytes).toBe(512 * MiB)
      expect(availableBytes).toBeGreaterThan(400 * MiB)
      expect(availableBytes).toBeLessThanOrEqual(512 * MiB)
    } finally {
      rmdirSync(`${parent}/leaf`)
      rmdirSync(parent)
    }
  })
})

describe('head-room', () => {
  it('is 5 % of the limit, and 32 MiB at least', () => {
    expect(memoryHeadroomBytes(256 * MiB)).toBe(32 * MiB)
    expect(memoryHeadroomBytes(20_000 * MiB)).toBe(1000 * MiB)
    expect(memoryHeadroomBytes(Number.POSITIVE_INFINITY)).toBe(32 * MiB)
  })
})
