import { nullBackup } from '@spillway/core'
import { type PagedBuffer, Pool } from '@spillway/pool'
import { mebibyte } from '../sizes.ts'
import { heapBytes } from './growth.ts'
import { pageSizeBytes } from './page-costs.ts'

/** What a pool has to know of its pages, in bytes per page. */
export interface MetadataCost {
  readonly chunks: '2 MiB' | '4 KiB'
  /** As `pool.stats().metadataBytes` tells it. */
  readonly perResidentPage: number
  readonly perBackedUpPage: number
  /** As heap and array buffers tell it; what the null backup knows of its handles is in it. */
  readonly heapPerResidentPage: number
  readonly heapPerBackedUpPage: number
}

const pieceBytes = 2 * mebibyte

/**
 * Fills a pool, which shows what a resident page costs, and goes on until four times the limit is written, which shows what
 * each backed-up page adds. With whole chunks, or with single pages, the worst case.
 */
export async function measureMetadata(
  chunks: MetadataCost['chunks'],
  limitBytes = (chunks === '4 KiB' ? 64 : 256) * mebibyte,
): Promise<MetadataCost> {
  await using backup = nullBackup()
  await using pool = new Pool({ limitBytes, backup, background: false })
  const options = chunks === '4 KiB' ? { maxOrder: 0 } : {}
  {
    // A small one first, so that arenas, lists and code are there.
    await using small = await pool.allocate(4 * pieceBytes, options)
    await touch(small, 0, 4 * pieceBytes)
    await small.backup()
  }
  const heapBefore = await heapBytes()
  await using buffer = await pool.allocate(4 * limitBytes, options)
  await touch(buffer, 0, limitBytes)
  const [heapFull, full] = [await heapBytes(), pool.stats().metadataBytes]
  await touch(buffer, limitBytes, 4 * limitBytes)
  const { metadataBytes, backedUpBytes } = pool.stats()
  const heapGrown = (await heapBytes()) - heapFull
  const residentPages = limitBytes / pageSizeBytes
  const backedUpPages = backedUpBytes / pageSizeBytes
  return {
    chunks,
    perResidentPage: full / residentPages,
    perBackedUpPage: (metadataBytes - full) / backedUpPages,
    heapPerResidentPage: (heapFull - heapBefore) / residentPages,
    heapPerBackedUpPage: heapGrown / backedUpPages,
  }
}

async function touch(buffer: PagedBuffer, from: number, to: number): Promise<void> {
  for (let offset = from; offset < to; offset += pieceBytes) {
    using pin = await buffer.pin({ offset, length: pieceBytes, write: true })
    for (const span of pin.spans) span[0] = 1
  }
}
