import { backupSuite } from '@spillway/core/conformance'
import { describe, it } from 'vitest'
import { openShmemBackup } from '../src/index.ts'
import { media } from './media.ts'

for (const [medium, options] of Object.entries(media)) {
  backupSuite({
    describe,
    it,
    name: `shmem (${medium})`,
    open: ({ capacityPages }) => openShmemBackup({ capacityBytes: capacityPages * 4096, ...options() }),
  })
}
