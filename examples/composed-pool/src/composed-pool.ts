import { once } from 'node:events'
import { Worker } from 'node:worker_threads'
import type { S3Client } from '@aws-sdk/client-s3'
import { openFileBackup } from '@spillway/backup-file'
import { S3Backup } from '@spillway/backup-s3'
import { type PagedBuffer, Pool } from '@spillway/pool'
import { SharedArena } from './shared-arena.ts'

export interface CompositionOptions {
  readonly limitBytes: number
  /** Where the file backup has its file. */
  readonly directory: string
  /** Your client and bucket; the client stays yours. */
  readonly client: S3Client
  readonly bucket: string
}

/**
 * A pool of parts that were chosen one by one:
 *
 *   shared arena ──▶ pool ──▶ file backup           buffers in general
 *                       └───▶ S3 backup             buffers allocated with `{ backup: archive }`
 *
 * Closing it closes the parts in reverse order: the pool frees all pages before the backups close.
 */
export async function composePool({ limitBytes, directory, client, bucket }: CompositionOptions) {
  await using parts = new AsyncDisposableStack()
  const scratch = parts.use(await openFileBackup({ directory }))
  const archive = parts.use(await S3Backup.open({ client, bucket }))
  const provider = new SharedArena(limitBytes)
  const pool = parts.use(new Pool({ limitBytes, provider, backup: scratch }))
  const opened = parts.move() // nothing failed: they are the caller's to close
  return { pool, scratch, archive, provider, [Symbol.asyncDispose]: () => opened.disposeAsync() }
}

/** SHA-256 of a buffer, made by a thread of its own that reads the pool's memory in place, 2 MiB at a time. */
export async function digestInThread(buffer: PagedBuffer): Promise<string> {
  const worker = new Worker(new URL('./digest-worker.ts', import.meta.url))
  try {
    for (let offset = 0; offset < buffer.sizeBytes; offset += 2 ** 21) {
      using pin = await buffer.pin({ offset, length: Math.min(2 ** 21, buffer.sizeBytes - offset) })
      for (const span of pin.spans) {
        worker.postMessage(span) // shared memory is not copied
        await once(worker, 'message')
      }
    }
    worker.postMessage(undefined)
    const [digest] = await once(worker, 'message')
    return digest
  } finally {
    await worker.terminate()
  }
}
