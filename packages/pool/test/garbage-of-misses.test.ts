import { execFile } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { describe, expect, it } from 'vitest'

const script = fileURLToPath(new URL('children/garbage-of-misses.ts', import.meta.url))

async function measured(backup: 'shmem' | 'file', call: 'pin' | 'read') {
  // Never compiled, so that it does not matter when code is: all that the source makes is made.
  const flags = ['--no-opt', '--no-maglev']
  const { stdout } = await promisify(execFile)(process.execPath, [...flags, script, backup, call])
  return JSON.parse(stdout) as { bytesPerPage: number; missedPages: number; pages: number }
}

// Compiled code makes less than half of that: a pin and its release 2.3 KB on shared memory and 2.6 KB on a file.
describe('a page that is missed', () => {
  it.each([
    ['pin', 'shmem', 6500],
    ['read', 'shmem', 7700],
    ['pin', 'file', 6800],
  ] as const)('makes few bytes of garbage: %s, %s', async (call, backup, mostBytes) => {
    const { bytesPerPage, missedPages, pages } = await measured(backup, call)
    expect(missedPages).toBe(pages)
    expect(bytesPerPage).toBeLessThan(mostBytes)
  })
})
