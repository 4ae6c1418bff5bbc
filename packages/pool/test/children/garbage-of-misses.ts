/**
 * Run as a program: has single pages brought in that are not in memory, and tells how many bytes of JavaScript's memory were taken
 * for each, and how many pages came. `node garbage-of-misses.ts shmem|file|threads pin|read|write [ROUNDS]`.
 */
import { tmpdir } from 'node:os'
import { getHeapStatistics } from 'node:v8'
import '../../../../scripts/resolve-sources.ts'
import type { PagedBuffer } from '../../src/index.ts'

const { Pool } = await import('../../src/index.ts')

const [kind, call] = process.argv.slice(2) as ['shmem' | 'file' | 'threads', 'pin' | 'read' | 'write']
const pageBytes = 4096
const pages = 2048
const callsAtOnce = 32
const rounds = Number(process.argv[4] ?? 4)

async function open() {
  if (kind === 'shmem') {
    const { openShmemBackup } = await import('../../../backup-shmem/src/index.ts')
    return openShmemBackup({ capacityBytes: 2 * pages * pageBytes })
  }
  const { openFileBackup } = await import('../../../backup-file/src/index.ts')
  return openFileBackup({ directory: tmpdir(), io: kind === 'file' ? 'auto' : 'threads' })
}

const into = new Uint8Array(pageBytes)
const part = new Uint8Array(8).fill(9)
const calls = {
  pin: async (buffer: PagedBuffer, page: number) => {
    const pin = await buffer.pin({ offset: page * pageBytes, length: pageBytes })
    pin.release()
  },
  read: (buffer: PagedBuffer, page: number) => buffer.read(page * pageBytes, into),
  write: (buffer: PagedBuffer, page: number) => buffer.write(page * pageBytes, part),
}

const backup = await open()
const pool = new Pool({ limitBytes: (pages + 64) * pageBytes, background: false, backup })
const buffer = await pool.allocate(pages * pageBytes, { maxOrder: 0 })
buffer.advise('random')
const content = new Uint8Array(256 * pageBytes).fill(7)
const bytesPerPage: number[] = []
let missedPages = 0
for (let round = 0; round < rounds; round++) {
  for (let page = 0; page < pages; page += 256) await buffer.write(page * pageBytes, content)
  const { error } = await buffer.backup()
  if (error !== undefined) throw error
  await pool.shrink(pages * pageBytes)
  const { restoredPages } = pool.stats()
  let next = 0
  const caller = async () => {
    while (next < pages) await calls[call](buffer, (next++ * 1021) % pages)
  }
  const before = getHeapStatistics().total_allocated_bytes
  await Promise.all(Array.from({ length: callsAtOnce }, caller))
  bytesPerPage.push((getHeapStatistics().total_allocated_bytes - before) / pages)
  missedPages += pool.stats().restoredPages - restoredPages
}
await pool.close()
await backup.close()
process.stdout.write(
  JSON.stringify({ bytesPerPage: Math.min(...bytesPerPage), missedPages: missedPages / rounds, pages }),
)
