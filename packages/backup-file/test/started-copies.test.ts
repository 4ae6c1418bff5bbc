import { available } from '@spillway/native'
import { describe, expect, it } from 'vitest'
import { type FileBackup, type FileSystem, openFileBackup } from '../src/index.ts'
import { dataOffsetBytes } from '../src/layout.ts'
import { failure, faulty } from './faulty-file-system.ts'
import { mappedMemory } from './mapped-memory.ts'
import { pageBytes, pattern, store } from './pages.ts'
import { memoryFileSystem, scratchDirectory } from './places.ts'

/** Starts a copy; resolves to what `done` was told, or to nothing when it was not begun. */
function started(backup: FileBackup, first: number, span: Uint8Array) {
  return new Promise<{ copied: number; error: Error | undefined } | undefined>((resolve) => {
    const began = backup.startCopy?.(first, span, (copied, error) => resolve({ copied, error }))
    if (began !== true) resolve(undefined)
  })
}

const { ioUring } = available()
if (!ioUring) console.error('skipped: io_uring is not available here')

describe('a started copy of a file', () => {
  for (const io of ['uring', 'threads'] as const) {
    it.skipIf(io === 'uring' && !ioUring)(`goes by ${io} where the memory is taken as it is`, async () => {
      await using backup = await openFileBackup({ directory: scratchDirectory(), io, keepFreeBytes: 0 })
      const bytes = pattern(8, 1)
      const [{ first }] = await store(backup, bytes)
      const into = mappedMemory(8 * pageBytes)
      const before = backup.stats()
      expect(await started(backup, first, into)).toEqual({ copied: 8, error: undefined })
      expect(Buffer.compare(into, bytes)).toBe(0)
      expect(backup.stats().directBytes - before.directBytes).toBe(8 * pageBytes)
      expect(backup.stats().stagedBytes).toBe(before.stagedBytes)
      if (!backup.stats().direct.used) return
      // Memory that is not aligned is copied through a detour, which only copyPages takes.
      expect(
        await started(backup, first, mappedMemory(2 * pageBytes).subarray(1, 1 + pageBytes)),
      ).toBeUndefined()
    })
  }

  /** A file system whose page reads can be made to fail, end early or bring something else. */
  function disturbed() {
    const inner = memoryFileSystem()
    const state = { next: [] as ('EAGAIN' | 'EIO' | 'short' | 'wrong')[], reads: 0 }
    const fileSystem = faulty(inner, {
      read: ((fd, memory, offset, length, position, done) => {
        if (position < dataOffsetBytes) return inner.read(fd, memory, offset, length, position, done)
        state.reads++
        const what = state.next.shift()
        if (what === 'EAGAIN' || what === 'EIO') return setImmediate(() => done(failure(what)))
        const asked = what === 'short' ? length - pageBytes / 2 : length
        inner.read(fd, memory, offset, asked, position, (error, bytes) => {
          if (what === 'wrong') memory[offset + length - 1] ^= 1
          done(error, bytes)
        })
      }) as FileSystem['read'],
    })
    return { fileSystem, state }
  }

  for (const [what, reads, reread] of [
    [['short'], 2, 0],
    [['EAGAIN', 'EAGAIN'], 3, 0],
    [['wrong'], 2, 1],
  ] as const) {
    it(`goes on after ${what.join(' and ')}, as copyPages does`, async () => {
      const { fileSystem, state } = disturbed()
      await using backup = await openFileBackup({ path: '/spill/pages', fs: fileSystem })
      const bytes = pattern(3, 2)
      const [{ first }] = await store(backup, bytes)
      state.next = [...what]
      const into = new Uint8Array(3 * pageBytes)
      expect(await started(backup, first, into)).toEqual({ copied: 3, error: undefined })
      expect(Buffer.compare(into, bytes)).toBe(0)
      expect(state.reads).toBe(reads)
      expect(backup.stats()).toMatchObject({ copiedPages: 3, rereadPages: reread, quarantinedPages: 0 })
    })
  }

  it('tells a page that does not match twice, quarantines it, and leaves nothing of it in the memory', async () => {
    const { fileSystem, state } = disturbed()
    await using backup = await openFileBackup({ path: '/spill/pages', fs: fileSystem })
    const [{ first }] = await store(backup, pattern(3, 3))
    state.next = ['wrong', 'wrong']
    const into = new Uint8Array(3 * pageBytes)
    const told = await started(backup, first, into)
    expect(told).toMatchObject({ copied: 2, error: { code: 'EBADMSG', handle: first + 2 } })
    expect(backup.stats()).toMatchObject({ copiedPages: 2, rereadPages: 1, quarantinedPages: 1 })
    expect(into.subarray(2 * pageBytes).every((byte) => byte === 0)).toBe(true)
  })

  it('tells what the disk said, and can be repeated', async () => {
    const { fileSystem, state } = disturbed()
    await using backup = await openFileBackup({ path: '/spill/pages', fs: fileSystem })
    const bytes = pattern(2, 4)
    const [{ first }] = await store(backup, bytes)
    state.next = ['EIO']
    const into = new Uint8Array(2 * pageBytes)
    expect(await started(backup, first, into)).toMatchObject({ copied: 0, error: { code: 'EIO', page: 0 } })
    expect(state.reads).toBe(1)
    expect(await started(backup, first, into)).toEqual({ copied: 2, error: undefined })
    expect(Buffer.compare(into, bytes)).toBe(0)
  })

  it('ends though the memory is detached on its way, and gives nothing away', async () => {
    const { fileSystem } = disturbed()
    await using backup = await openFileBackup({ path: '/spill/pages', fs: fileSystem })
    const [{ first }] = await store(backup, pattern(1, 5))
    const into = new Uint8Array(pageBytes)
    const call = started(backup, first, into)
    structuredClone(into.buffer, { transfer: [into.buffer] })
    const told = await call
    expect(told?.copied).toBe(0)
    expect(told?.error).toBeInstanceOf(Error)
    expect(backup.stats().quarantinedPages).toBe(0)
    expect(await started(backup, first, new Uint8Array(pageBytes))).toEqual({ copied: 1, error: undefined })
  })
})
