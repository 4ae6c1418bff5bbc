import type { S3Client } from '@aws-sdk/client-s3'
import { type CompressedBackup, compressedBackup } from '@spillway/backup-compressed'
import { encryptedBackup } from '@spillway/backup-encrypted'
import { openFileBackup } from '@spillway/backup-file'
import { S3Backup } from '@spillway/backup-s3'
import { openShmemBackup } from '@spillway/backup-shmem'
import { type TieredBackup, tieredBackup } from '@spillway/backup-tiered'
import type { Backup } from '@spillway/core'

export interface Media {
  readonly shmem: Backup
  readonly file: Backup
  readonly s3: Backup
}

export interface MediaOptions {
  /** Most bytes in shared memory, and in the file; S3 takes the rest. */
  readonly shmemBytes: number
  readonly fileBytes: number
  readonly directory: string
  /** Your client and bucket; the client stays yours. */
  readonly client: S3Client
  readonly bucket: string
}

/** Opens all three, or none. */
export async function openMedia(options: MediaOptions): Promise<Media> {
  const { shmemBytes, fileBytes, directory, client, bucket } = options
  await using parts = new AsyncDisposableStack()
  const shmem = parts.use(await openShmemBackup({ capacityBytes: shmemBytes }))
  // Changed pages are found by the encryption: a second checksum is not needed.
  const file = parts.use(await openFileBackup({ directory, capacityBytes: fileBytes, checksums: false }))
  const s3 = parts.use(await S3Backup.open({ client, bucket }))
  parts.move() // nothing failed: they belong to the stack
  return { shmem, file, s3 }
}

/**
 * Pages are compressed first, for what is encrypted cannot be. What stays in this machine's memory is not encrypted.
 *
 *   pool ─▶ compressed ─▶ tiered ─┬─▶ shared memory
 *                                 ├─▶ encrypted ─▶ file
 *                                 └─▶ encrypted ─▶ S3
 *
 * Closing the compressed one closes all of them.
 */
export function stackOf({ shmem, file, s3 }: Media): { backup: CompressedBackup; tiers: TieredBackup } {
  const tiers = tieredBackup({ tiers: [shmem, encryptedBackup(file), encryptedBackup(s3)] })
  return { backup: compressedBackup(tiers), tiers }
}
