/**
 * A process that works on an S3 backup until the server kills it. It is told what to do in one message and reports every
 * page that was acknowledged, and every page that it is about to drop, before it makes its next call.
 */
import { S3Client, type S3ClientConfig } from '@aws-sdk/client-s3'
import { S3Backup, type S3BackupOptions } from '../src/index.ts'
import { openInTime } from './stores.ts'
import { handlesOf, type KeptPage, pagesOf, Workload } from './workload.ts'

export interface ChildOrders {
  readonly clientConfig: S3ClientConfig
  readonly options: Omit<S3BackupOptions, 'client'>
  readonly seed: number
  readonly steps: number
  readonly maxBatchPages: number
  readonly maxLivePages: number
  /** Backed up first, and never dropped: page 0, 1, … */
  readonly basePages: number
}

export type ChildReport =
  | { readonly kind: 'ready' }
  | { readonly kind: 'opened' }
  | { readonly kind: 'kept' | 'dropping'; readonly pages: readonly KeptPage[] }
  | { readonly kind: 'worked'; readonly pages: readonly KeptPage[] }
  | { readonly kind: 'closed' }
  | { readonly kind: 'failed'; readonly error: string }

/** Resolves once the report is in the pipe, where it survives this process. */
function report(message: ChildReport): Promise<void> {
  return new Promise((resolve) => process.send!(message, undefined, undefined, () => resolve()))
}

async function work(orders: ChildOrders): Promise<void> {
  const client = new S3Client(orders.clientConfig)
  const backup = await openInTime(() => S3Backup.open({ ...orders.options, client }))
  await report({ kind: 'opened' })
  const ids = Array.from({ length: orders.basePages }, (_, id) => id)
  const { handles, error } = await backup.backupPages(ids.length === 0 ? [] : [pagesOf(ids)])
  if (error !== undefined) throw error
  await report({ kind: 'kept', pages: handlesOf(handles).map((handle, id) => ({ id, handle })) })
  const workload = new Workload(backup, {
    seed: orders.seed,
    maxBatchPages: orders.maxBatchPages,
    maxLivePages: orders.maxLivePages,
    onKept: (pages) => report({ kind: 'kept', pages }),
    onDropping: (pages) => report({ kind: 'dropping', pages }),
  })
  for (let step = 0; step < orders.steps; step++) await workload.step()
  await workload.verify()
  if (workload.errors.size > 0) throw new Error(`calls failed: ${[...workload.errors.keys()]}`)
  await report({ kind: 'worked', pages: workload.pages })
  await backup.close()
  await report({ kind: 'closed' })
}

process.once('disconnect', () => process.exit(1))
process.once('message', (orders: ChildOrders) => {
  work(orders)
    .catch((error: Error) => report({ kind: 'failed', error: error.stack ?? String(error) }))
    .then(() => process.exit(0))
})
void report({ kind: 'ready' })
