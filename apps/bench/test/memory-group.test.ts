import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { openMemoryGroup } from '../src/case/memory-group.ts'
import { openSwapSpace } from '../src/peers/swap-space.ts'

const mebibyte = 2 ** 20
let directory: string

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'spillway-bench-group-'))
})

afterEach(() => rmSync(directory, { recursive: true, force: true }))

/** A process that does what it is told once it gets a line, and says so. */
function startProcess(program: string): ChildProcess {
  const whole = `process.stdin.once('data', () => { ${program}; console.log('done'); setInterval(() => {}, 1000) })
    console.log('ready')`
  return spawn(process.execPath, ['-e', whole], { stdio: ['pipe', 'pipe', 'ignore'] })
}

const line = (child: ChildProcess) => once(child.stdout!, 'data')

/** Groups of this process in either version of control groups. */
function groupsOfThisProcess(): string[] {
  const mount = '/sys/fs/cgroup'
  const places = readFileSync('/proc/self/cgroup', 'utf8')
    .trim()
    .split('\n')
    .map((group) => group.split(':'))
    .flatMap(([, controllers, path]) => {
      if (controllers === 'memory') return [join(mount, 'memory', path!)]
      return controllers === '' ? [join(mount, path!, '..')] : []
    })
  const existing = places.filter((place) => existsSync(place))
  return existing.flatMap((place) => readdirSync(place)).filter((name) => name.includes(`-${process.pid}-`))
}

const opened = openMemoryGroup(false)
const canGroup = 'add' in opened
if (canGroup) opened[Symbol.dispose]()

if (canGroup) {
  describe('a memory control group', () => {
    it('kills a process that takes more than it is allowed, and says so', async () => {
      using group = openGroup()
      const child = startProcess('globalThis.kept = Buffer.alloc(400 * 2 ** 20, 1)')
      const ended = once(child, 'close')
      await line(child)
      group.add(child.pid!)
      group.allow(100 * mebibyte)
      expect(group.wasExceeded()).toBe(false)
      child.stdin!.write('\n')
      expect((await ended)[1]).toBe('SIGKILL')
      expect(group.wasExceeded()).toBe(true)
    })

    it('makes the page cache of a process give way instead of killing it', async () => {
      using group = openGroup()
      const path = JSON.stringify(join(directory, 'written'))
      const child = startProcess(
        `const file = require('node:fs').openSync(${path}, 'w')
         const piece = Buffer.alloc(2 ** 20, 1)
         for (let count = 0; count < 120; count++) require('node:fs').writeSync(file, piece)`,
      )
      const ended = once(child, 'close')
      await line(child)
      group.add(child.pid!)
      group.allow(50 * mebibyte)
      child.stdin!.write('\n')
      expect(String(await Promise.race([line(child), ended]))).toBe('done\n')
      expect(group.wasExceeded()).toBe(false)
      child.kill('SIGKILL')
      await ended
    })

    it('leaves nothing behind, also when its process has ended only just before', async () => {
      {
        using group = openGroup()
        const child = startProcess('')
        const ended = once(child, 'close')
        await line(child)
        group.add(child.pid!)
        expect(groupsOfThisProcess()).toHaveLength(1)
        child.kill('SIGKILL')
        await ended
      }
      expect(groupsOfThisProcess()).toEqual([])
    })
  })
} else {
  describe('without the privileges for a memory control group', () => {
    it('says why there is none', () => {
      expect((openMemoryGroup(false) as { reason: string }).reason).not.toBe('')
    })
  })
}

/** What the system swaps to now. */
const swaps = () => readFileSync('/proc/swaps', 'utf8')

describe('swap space for the peers', () => {
  it.each(['file', 'zram'] as const)(
    'on %s is there until it is disposed of, or it says what prevents it',
    (kind) => {
      const before = swaps()
      let space: Disposable
      try {
        space = openSwapSpace(kind, 64 * mebibyte, directory)
      } catch (failure) {
        expect((failure as Error).message).not.toBe('')
        expect(swaps()).toBe(before)
        expect(readdirSync(directory)).toEqual([])
        return
      }
      expect(swaps()).toContain(kind === 'file' ? join(directory, 'swap') : '/dev/zram')
      space[Symbol.dispose]()
      expect(swaps()).toBe(before)
      expect(readdirSync(directory)).toEqual([])
    },
  )
})

function openGroup() {
  const group = openMemoryGroup(false)
  if (!('add' in group)) throw new Error(group.reason)
  return group
}
