import { type Backup, faultyBackup, shareBackup } from '@spillway/core'
import { backupSuite } from '@spillway/core/conformance'
import { describe, it } from 'vitest'
import { openShmemBackup } from '../src/index.ts'
import { media } from './media.ts'

const wrappers: Record<string, (backup: Backup) => Backup> = {
  '': (backup) => backup,
  ' behind faultyBackup': (backup) => faultyBackup(backup),
  ' behind shareBackup': (backup) => shareBackup(backup).reference(),
}

for (const [medium, options] of Object.entries(media)) {
  for (const [wrapper, wrap] of Object.entries(wrappers)) {
    backupSuite({
      describe,
      it,
      name: `shmem (${medium})${wrapper}`,
      open: async ({ capacityPages }) =>
        wrap(await openShmemBackup({ capacityBytes: capacityPages * 4096, ...options() })),
    })
  }
}
