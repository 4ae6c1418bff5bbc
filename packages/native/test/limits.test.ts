import { execFileSync } from 'node:child_process'
import { closeSync, fstatSync, mkdirSync, mkdtempSync, openSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, describe, expect, it } from 'vitest'

import { allocate, Mapping, Ring, systemPageBytes } from '../src/index.ts'

const page = systemPageBytes()
const undo: (() => unknown)[] = []

afterEach(async () => {
  for (const step of undo.splice(0).reverse()) await step()
})

/** Runs `work` on a file system of one MiB, in a process that may mount one: as root, or in a user namespace. */
function onSmallFileSystem(work: string): unknown {
  const directory = mkdtempSync(join(tmpdir(), 'native-'))
  undo.push(() => rmSync(directory, { recursive: true }))
  mkdirSync(join(directory, 'small'))
  const program = `
    import { closeSync, openSync, fstatSync } from 'node:fs'
    import { allocate, Mapping, Ring, punchHole } from ${JSON.stringify(join(import.meta.dirname, '../src/index.ts'))}
    const fd = openSync(${JSON.stringify(join(directory, 'small/file'))}, 'w+')
    const codeOf = (work) => { try { work(); return 'fine' } catch (error) { return error.code } }
    ${work}
    closeSync(fd)
    console.log(JSON.stringify(answer))`
  const script = `mount -t tmpfs -o size=1m none "$0/small" && exec "$1" --no-warnings --input-type=module -e "$2"`
  const output = execFileSync(
    'unshare',
    [
      ...(process.getuid?.() === 0 ? [] : ['-r']),
      '-m',
      'sh',
      '-c',
      script,
      directory,
      process.execPath,
      program,
    ],
    { encoding: 'utf8' },
  )
  return JSON.parse(output)
}

describe('a full file system', () => {
  it('is ENOSPC when allocated, and never a signal', () => {
    const answer = onSmallFileSystem(`
      const MiB = 1024 * 1024
      const answer = [codeOf(() => allocate(fd, 0, 512 * 1024)), codeOf(() => allocate(fd, 0, 2 * MiB))]
      punchHole(fd, 0, 512 * 1024)
      answer.push(fstatSync(fd).blocks, codeOf(() => allocate(fd, 0, MiB)))`)
    expect(answer).toEqual(['fine', 'ENOSPC', 0, 'fine'])
  })

  it('is EFAULT when a mapping is populated, and what was there stays', () => {
    const answer = onSmallFileSystem(`
      const MiB = 1024 * 1024
      const { ftruncateSync } = await import('node:fs')
      ftruncateSync(fd, 2 * MiB)
      const mapping = Mapping.file(fd, { lengthBytes: 2 * MiB })
      mapping.populate(0, MiB / 2)
      const bytes = mapping.view(0, MiB / 2).fill(7)
      const answer = [codeOf(() => mapping.populate(0, 2 * MiB)), bytes.every((byte) => byte === 7)]`)
    expect(answer).toEqual(['EFAULT', true])
  })

  it('is ENOSPC, or fewer bytes, when a ring writes', async () => {
    const answer = onSmallFileSystem(`
      const MiB = 1024 * 1024
      const mapping = Mapping.anonymous(2 * MiB)
      const ring = Ring.open({ entries: 2 })
      const moved = await ring.write(fd, mapping.view(0, 2 * MiB), 0)
      const code = await ring.write(fd, mapping.view(0, 4096), MiB).then(() => 'fine', (error) => error.code)
      const answer = [moved, code]
      await ring.close()`)
    expect(answer).toEqual([1024 * 1024, 'ENOSPC'])
  })
})

it('reports other limits of the system by their codes', async () => {
  const mappings: Mapping[] = []
  undo.push(() => {
    for (const mapping of mappings) mapping.close()
  })
  expect(() => {
    for (let index = 0; index < 8; index++) mappings.push(Mapping.anonymous(2 ** 46))
  }).toThrow(expect.objectContaining({ code: 'ENOMEM', syscall: 'mmap' }))
  const full = openSync('/dev/full', 'r+')
  undo.push(() => closeSync(full))
  expect(fstatSync(full).isCharacterDevice()).toBe(true)
  expect(() => allocate(full, 0, 1)).toThrow(expect.objectContaining({ syscall: 'fallocate' }))
  const ring = Ring.open({ entries: 1 })
  undo.push(() => ring.close())
  const mapping = Mapping.anonymous(page)
  mappings.push(mapping)
  await expect(ring.write(full, mapping.view(0, page), 0)).rejects.toMatchObject({
    code: 'ENOSPC',
    syscall: 'write',
  })
})
