/**
 * The conformance suites of core, shmem and file, and random histories of the pool, on whatever runtime runs this, against
 * the built packages. Prints what failed and, as the last line, `N passed, N failed`.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import process from 'node:process'
import { openFileBackup } from '@spillway/backup-file'
import { openShmemBackup } from '@spillway/backup-shmem'
import { memoryBackup } from '@spillway/core'
import { backupSuite } from '@spillway/core/conformance'
import { available } from '@spillway/native'
import { poolHistories } from './pool-histories.ts'
import { describe, it, runAll } from './runner.ts'

const directory = mkdtempSync(join(tmpdir(), 'spillway-runtime-'))
const name = process.versions['bun'] ? 'Bun' : process.versions['deno'] ? 'Deno' : 'Node'
const { mmap, ioUring, ioUringReason } = available()
console.log(
  `${name}: mapped memory ${mmap}, io_uring ${ioUring}${ioUringReason ? ` (${ioUringReason})` : ''}`,
)

const pageBytes = 4096
const backups = {
  memory: async (capacityBytes: number) => memoryBackup({ capacityBytes }),
  shmem: (capacityBytes: number) => openShmemBackup({ capacityBytes }),
  'shmem (tmpfs)': (capacityBytes: number) => openShmemBackup({ capacityBytes, medium: 'tmpfs' }),
  'shmem (shared)': (capacityBytes: number) =>
    openShmemBackup({ capacityBytes, shared: { name: `spillway-runtime-${process.pid}-${counter++}` } }),
  file: (capacityBytes: number) => openFileBackup({ directory, capacityBytes }),
}
let counter = 0

for (const [backup, open] of Object.entries(backups)) {
  backupSuite({
    describe,
    it,
    name: backup,
    open: ({ capacityPages }) => open(capacityPages * pageBytes),
  })
  for (const provider of mmap ? (['mmap', 'resizable'] as const) : (['resizable'] as const)) {
    poolHistories({ describe, it, name: backup, provider, open: () => open(2 ** 24) })
  }
}

const { passed, failed } = await runAll()
rmSync(directory, { recursive: true })
console.log(`${passed} passed, ${failed} failed`)
process.exit(failed === 0 ? 0 : 1)
