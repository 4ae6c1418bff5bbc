import { backupSuite, backupSuites } from '@spillway/core/conformance'
import { describe, it } from 'vitest'
import { openShmemBackup } from '../src/index.ts'
import { media } from './media.ts'

for (const [medium, options] of Object.entries(media)) {
  // What wrappers do does not depend on the name.
  const suite = medium.startsWith('shared') ? backupSuite : backupSuites
  suite({
    describe,
    it,
    startsCopies: true,
    name: `shmem (${medium})`,
    open: ({ capacityPages }) => openShmemBackup({ capacityBytes: capacityPages * 4096, ...options() }),
  })
}
