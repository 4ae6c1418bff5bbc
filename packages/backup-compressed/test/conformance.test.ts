import { tmpdir } from 'node:os'
import { openFileBackup } from '@spillway/backup-file'
import { openShmemBackup } from '@spillway/backup-shmem'
import { type Backup, memoryBackup } from '@spillway/core'
import { backupSuite, backupSuites } from '@spillway/core/conformance'
import { describe, it } from 'vitest'
import { withoutStartCopy } from '../../core/test/support/tampered-backup.ts'
import { compressedBackup } from '../src/index.ts'

const inners: Record<string, (capacityBytes: number) => Promise<Backup>> = {
  memory: async (capacityBytes) => memoryBackup({ capacityBytes }),
  'memory without startCopy': async (capacityBytes) => withoutStartCopy(memoryBackup({ capacityBytes })),
  shmem: (capacityBytes) => openShmemBackup({ capacityBytes }),
  file: (capacityBytes) => openFileBackup({ capacityBytes, directory: tmpdir() }),
}

for (const [name, open] of Object.entries(inners)) {
  const suite = name === 'memory' ? backupSuites : backupSuite
  suite({
    describe,
    it,
    name: `compressed ${name}`,
    open: async ({ capacityPages }) => compressedBackup(await open(capacityPages * 4096)),
  })
}
