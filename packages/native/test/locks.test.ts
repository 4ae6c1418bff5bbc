import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, mkdtempSync, openSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { isFileLocked, lockFile, unlockFile } from '../src/index.ts'

let directory: string
let path: string
let opened: number[]

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'native-'))
  path = join(directory, 'file')
  writeFileSync(path, '')
  opened = []
})
afterEach(() => {
  for (const fd of opened) closeSync(fd)
  rmSync(directory, { recursive: true })
})

function open(flags = 'r+'): number {
  const fd = openSync(path, flags)
  opened.push(fd)
  return fd
}

describe('a lock on an open file description', () => {
  it('stands against other descriptions of the same process, and ends with its own', () => {
    const first = openSync(path, 'r+')
    const second = open()
    expect(lockFile(first)).toBe(true)
    expect(lockFile(first)).toBe(true)
    expect(lockFile(second)).toBe(false)
    expect(isFileLocked(second)).toBe(true)
    expect(isFileLocked(first)).toBe(false)
    closeSync(first)
    expect(isFileLocked(second)).toBe(false)
    expect(lockFile(second)).toBe(true)
  })

  it('does not end when another descriptor of the file is closed', () => {
    const holder = open()
    expect(lockFile(holder)).toBe(true)
    closeSync(openSync(path, 'r+'))
    expect(isFileLocked(open('r'))).toBe(true)
  })

  it('is on a range, and shared ones stand against exclusive ones only', () => {
    const [first, second, reader] = [open(), open(), open('r')]
    const range = { offsetBytes: 2 ** 40, lengthBytes: 10 }
    expect(lockFile(first, { ...range, exclusive: false })).toBe(true)
    expect(lockFile(reader, { ...range, exclusive: false })).toBe(true)
    expect(isFileLocked(reader, { ...range, exclusive: false })).toBe(false)
    expect(lockFile(second, range)).toBe(false)
    expect(lockFile(second, { offsetBytes: 2 ** 40 + 10, lengthBytes: 5 })).toBe(true)
    unlockFile(first, range)
    expect(lockFile(second, range)).toBe(false)
    unlockFile(reader, range)
    expect(lockFile(second, range)).toBe(true)
  })

  it('ends when its holder is killed', async () => {
    const index = JSON.stringify(join(import.meta.dirname, '../src/index.ts'))
    const program = `
      import { openSync } from 'node:fs'
      import { lockFile } from ${index}
      console.log(lockFile(openSync(${JSON.stringify(path)}, 'r+')))
      setInterval(() => {}, 1000)`
    const child = spawn(process.execPath, ['--no-warnings', '--input-type=module', '-e', program])
    const [said] = await once(child.stdout, 'data')
    expect(String(said).trim()).toBe('true')
    const fd = open()
    expect(lockFile(fd)).toBe(false)
    child.kill('SIGKILL')
    await once(child, 'exit')
    expect(lockFile(fd)).toBe(true)
  })

  it('says EBADF for an exclusive lock on a descriptor that only reads, and refuses misuse at the call', () => {
    expect(() => lockFile(open('r'))).toThrow(expect.objectContaining({ code: 'EBADF', syscall: 'fcntl' }))
    expect(() => lockFile(-1)).toThrow(RangeError)
    expect(() => lockFile(open(), { lengthBytes: 0 })).toThrow(RangeError)
    expect(() => lockFile(open(), { offset: 0 } as never)).toThrow(TypeError)
  })
})
