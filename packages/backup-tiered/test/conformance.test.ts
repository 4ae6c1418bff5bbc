import { tmpdir } from 'node:os'
import { compressedBackup } from '@spillway/backup-compressed'
import { encryptedBackup } from '@spillway/backup-encrypted'
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

/** All three, in the orders that make sense. */
const wholes: Record<string, (tiers: Backup[]) => Backup> = {
  'compressed(tiered(memory, encrypted(memory)))': ([fast, slow]) =>
    compressedBackup(tieredBackup({ tiers: [fast, encryptedBackup(slow)] })),
  'tiered(memory, compressed(encrypted(memory)))': ([fast, slow]) =>
    tieredBackup({ tiers: [fast, compressedBackup(encryptedBackup(slow))] }),
}

for (const [name, whole] of Object.entries(wholes)) {
  backupSuite({
    describe,
    it,
    name,
    open: async ({ capacityPages }) => whole(await stacks['memory, memory'](capacityPages)),
  })
}
