import { describe, it } from 'vitest'
import { backupSuites } from '../src/conformance/index.ts'
import { memoryBackup, nullBackup } from '../src/index.ts'

for (const pageSizeBytes of [4096, 16_384]) {
  backupSuites({
    describe,
    it,
    name: `memoryBackup with pages of ${pageSizeBytes}`,
    open: async ({ capacityPages }) =>
      memoryBackup({ pageSizeBytes, capacityBytes: capacityPages * pageSizeBytes }),
  })
}

backupSuites({
  describe,
  it,
  name: 'nullBackup',
  open: async ({ capacityPages }) => nullBackup({ capacityBytes: capacityPages * 4096 }),
})
