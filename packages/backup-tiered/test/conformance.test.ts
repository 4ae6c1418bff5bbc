import { tmpdir } from 'node:os'
import type { S3Client } from '@aws-sdk/client-s3'
import { compressedBackup } from '@spillway/backup-compressed'
import { encryptedBackup } from '@spillway/backup-encrypted'
import { openFileBackup } from '@spillway/backup-file'
import { S3Backup } from '@spillway/backup-s3'
import { openShmemBackup } from '@spillway/backup-shmem'
import { type Backup, faultyBackup, memoryBackup } from '@spillway/core'
import { backupSuite, backupSuites } from '@spillway/core/conformance'
import { type S3Target, s3Target } from '@spillway/test-s3-server'
import { afterAll, beforeAll, describe, it } from 'vitest'
import { withoutStartCopy } from '../../core/test/support/tampered-backup.ts'
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

/** All three, in the orders that make sense; over other media than memory in `npm run test:exhaustive`. */
const wholes: Record<string, (tiers: Backup[]) => Backup> = {
  'compressed(tiered(fast, encrypted(slow)))': ([fast, slow]) =>
    compressedBackup(tieredBackup({ tiers: [fast, encryptedBackup(slow)] })),
  'tiered(fast, compressed(encrypted(slow)))': ([fast, slow]) =>
    tieredBackup({ tiers: [fast, compressedBackup(encryptedBackup(slow))] }),
  'compressed(encrypted(tiered(fast, slow)))': ([fast, slow]) =>
    compressedBackup(encryptedBackup(tieredBackup({ tiers: [fast, slow] }))),
  'tiered(compressed(fast), encrypted(slow))': ([fast, slow]) =>
    tieredBackup({ tiers: [compressedBackup(fast), encryptedBackup(slow)] }),
}

let target: S3Target
let client: S3Client

async function openS3Backup(capacityBytes: number): Promise<Backup> {
  return S3Backup.open({
    client,
    bucket: target.bucket,
    prefix: target.prefix(),
    capacityBytes,
    // Several objects for the few pages of a test, and no buffer of 8 MiB that the suite would take for a leak.
    segmentBytes: 64 * 4096,
    lingerMs: 0,
  })
}

const media: Record<string, (pages: number) => Promise<Backup[]>> = {
  ...stacks,
  'memory, memory, without startCopy': async (pages) =>
    (await stacks['memory, memory'](pages)).map(withoutStartCopy),
  'memory, memory, behind faultyBackup': async (pages) =>
    (await stacks['memory, memory'](pages)).map((tier) => faultyBackup(tier, { faults: [] })),
  'shmem, s3': async (pages) => [
    await openShmemBackup({ capacityBytes: half(pages) }),
    await openS3Backup(rest(pages)),
  ],
}

const isExhaustive = process.env['SPILLWAY_EXHAUSTIVE'] === '1'

if (isExhaustive) {
  beforeAll(async () => {
    target = await s3Target({ embedded: true })
    client = target.client()
  })
  afterAll(() => target.close())
}

for (const [name, whole] of Object.entries(wholes)) {
  for (const [medium, open] of Object.entries(media)) {
    if (medium !== 'memory, memory' && !isExhaustive) continue
    backupSuite({
      describe,
      it,
      name: `${name} over ${medium}`,
      open: async ({ capacityPages }) => whole(await open(capacityPages)),
    })
  }
}
