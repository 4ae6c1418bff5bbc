import { describe, it } from 'vitest'
import { backupSuite, backupSuites } from '../src/conformance/index.ts'
import { type Backup, MemoryMedium, memoryBackup, nullBackup } from '../src/index.ts'

const openings = new WeakMap<Backup, { medium: MemoryMedium; capacityBytes: number }>()

function openIn(medium: MemoryMedium, capacityBytes: number): Backup {
  const backup = memoryBackup({ medium, capacityBytes })
  openings.set(backup, { medium, capacityBytes })
  return backup
}

backupSuites({
  describe,
  it,
  startsCopies: true,
  name: 'memoryBackup with images',
  open: async ({ capacityPages }) => openIn(new MemoryMedium(), capacityPages * 4096),
  reopen: async (closed) => {
    const { medium, capacityBytes } = openings.get(closed)!
    return openIn(medium, capacityBytes)
  },
})

backupSuites({
  describe,
  it,
  startsCopies: true,
  name: 'memoryBackup',
  open: async ({ capacityPages }) => memoryBackup({ capacityBytes: capacityPages * 4096 }),
})

backupSuite({
  describe,
  it,
  startsCopies: true,
  name: 'memoryBackup with pages of 8 KiB',
  open: async ({ capacityPages }) =>
    memoryBackup({ pageSizeBytes: 8192, capacityBytes: capacityPages * 8192 }),
})

backupSuites({
  describe,
  it,
  startsCopies: true,
  name: 'nullBackup',
  open: async ({ capacityPages }) => nullBackup({ capacityBytes: capacityPages * 4096 }),
})
