import { tmpdir } from 'node:os'
import { openFileBackup } from '@spillway/backup-file'
import { openShmemBackup } from '@spillway/backup-shmem'
import { type Backup, memoryBackup } from '@spillway/core'
import { backupSuite, backupSuites } from '@spillway/core/conformance'
import { describe, it } from 'vitest'
import { tieredBackup } from '../src/index.ts'

const half = (capacityPages: number) => Math.ceil(capacityPages / 2) * 4096
const rest = (capacityPages: number) => Math.floor(capacityPages / 2) * 4096

const stacks: Record<string, (pages: number) => Promise<Backup[]>> = {
  'memory, memory': async (pages) => [
    memoryBackup({ capacityBytes: half(pages), name: 'fast' }),
    memoryBackup({ capacityBytes: rest(pages), name: 'slow' }),
  ],
  'shmem, file': async (pages) => [
    await openShmemBackup({ capacityBytes: half(pages) }),
    await openFileBackup({ capacityBytes: rest(pages), directory: tmpdir() }),
  ],
}

for (const [name, open] of Object.entries(stacks)) {
  const suite = name === 'memory, memory' ? backupSuites : backupSuite
  suite({
    describe,
    it,
    name: `tiered ${name}`,
    open: async ({ capacityPages }) => tieredBackup({ tiers: await open(capacityPages) }),
  })
}
