import { randomFillSync } from 'node:crypto'
import { GetObjectCommand, PutObjectCommand } from '@aws-sdk/client-s3'
import { S3Backup, type S3BackupOptions } from '@spillway/backup-s3'
import { type Backup, type HandleRun, isSpillwayError } from '@spillway/core'
import type { S3Target } from '@spillway/test-s3-server'

export const pageSizeBytes = 4096

/** Random pages: no two are alike, so that a page in the wrong place is seen. */
export function randomPages(pages: number, size = pageSizeBytes): Buffer {
  return randomFillSync(Buffer.alloc(pages * size))
}

export function countOf(handles: readonly HandleRun[]): number {
  return handles.reduce((sum, { count }) => sum + count, 0)
}

/** Runs of the handles at these places of a result. */
export function pick(handles: readonly HandleRun[], places: Iterable<number>): HandleRun[] {
  const all = handles.flatMap(({ first, count }) => Array.from({ length: count }, (_, page) => first + page))
  return [...places].map((place) => ({ first: all[place], count: 1 }))
}

/** Opens a backup on a target, under a prefix that nobody else uses unless one is given. */
export function openOn(target: S3Target, options: Partial<S3BackupOptions> = {}): Promise<S3Backup> {
  return S3Backup.open({
    client: options.client ?? target.client(),
    bucket: target.bucket,
    prefix: target.prefix(),
    // Tests that need longer give it; nothing here should take minutes to fail.
    retryForMs: 20_000,
    ...(target.conditionalWrites ? {} : { conditionalWrites: false }),
    ...options,
  })
}

/** Opens a store whose lease is so short that a busy machine may take longer to open it: then it is opened again. A sweep opens one, too. */
export async function openInTime<Opened>(open: () => Promise<Opened>): Promise<Opened> {
  for (;;) {
    try {
      return await open()
    } catch (failure) {
      if (!isSpillwayError(failure) || failure.code !== 'ETIMEDOUT') throw failure
    }
  }
}

/** Copies pages back and returns them; throws what stopped it. */
export async function read(
  backup: Backup,
  handles: readonly HandleRun[],
  size = pageSizeBytes,
): Promise<Buffer> {
  const copy = Buffer.alloc(countOf(handles) * size, 0xa5)
  const { error, copied } = await backup.copyPages(handles, copy.length === 0 ? [] : [copy])
  if (error !== undefined) throw error
  if (copied !== countOf(handles)) throw new Error(`${copied} pages copied of ${countOf(handles)}`)
  return copy
}

/** Flips one bit of one page in the bucket. The segment must not have been compacted. */
export async function corruptPage(
  target: S3Target,
  backup: S3Backup,
  prefix: string,
  handle: number,
): Promise<void> {
  const number = String(Math.floor(handle / 2 ** 21)).padStart(10, '0')
  const offset = (handle % 2 ** 21) * backup.capabilities.pageSizeBytes + 17
  const place = { Bucket: target.bucket, Key: `${prefix}${backup.stats().epoch}/s-${number}` }
  const client = target.client()
  const object = await client.send(new GetObjectCommand(place))
  const body = await object.Body!.transformToByteArray()
  body[offset] ^= 1
  await client.send(new PutObjectCommand({ ...place, Body: body }))
}
