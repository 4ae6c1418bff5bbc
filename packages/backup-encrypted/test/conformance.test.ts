import { tmpdir } from 'node:os'
import { openFileBackup } from '@spillway/backup-file'
import { openShmemBackup } from '@spillway/backup-shmem'
import { type Backup, memoryBackup } from '@spillway/core'
import { backupSuite, backupSuites } from '@spillway/core/conformance'
import { describe, it } from 'vitest'
import {
  flip,
  followHandles,
  tamperedBackup,
  withoutStartCopy,
} from '../../core/test/support/tampered-backup.ts'
import { encryptedBackup } from '../src/index.ts'

const inners: Record<string, (capacityBytes: number) => Promise<Backup>> = {
  memory: async (capacityBytes) => memoryBackup({ capacityBytes }),
  'memory without startCopy': async (capacityBytes) => withoutStartCopy(memoryBackup({ capacityBytes })),
  shmem: (capacityBytes) => openShmemBackup({ capacityBytes }),
  file: (capacityBytes) => openFileBackup({ capacityBytes, directory: tmpdir(), checksums: false }),
}

for (const [name, open] of Object.entries(inners)) {
  const flips = new WeakMap<Backup, (handle: number) => void>()
  const suite = name === 'memory' ? backupSuites : backupSuite
  suite({
    describe,
    it,
    name: `encrypted ${name}`,
    async open({ capacityPages }) {
      const inner = tamperedBackup(await open(capacityPages * 4096))
      const backup = encryptedBackup(inner)
      const innerHandle = followHandles(backup, inner)
      flips.set(backup, (handle) => inner.tampers.set(innerHandle(handle), flip))
      return backup
    },
    corrupt: async (backup, handle) => flips.get(backup)?.(handle),
  })
}
