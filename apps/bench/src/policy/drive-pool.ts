import { nullBackup } from '@spillway/core'
import { type PagedBuffer, Pool } from '@spillway/pool'
import type { Outcome } from './simulators.ts'
import type { Trace } from './trace.ts'

const pageSizeBytes = 4096
const accessBytes = 8
/** Accesses between two turns of the event loop: what the pool does in the background takes turns, as backups do. */
const accessesPerTurn = 16

/** How the pool is set up for a trace. */
export interface PoolShape {
  readonly capacityPages: number
  /** Pages of a chunk: each page of the trace is one chunk of so many. A power of two. */
  readonly chunkPages: number
  readonly background: boolean
}

/**
 * Follows a trace with a pool over a null backup. Every page is stored before, and an access touches a few bytes of it only,
 * so each miss is a restore. The first `uncounted` accesses only warm it up.
 *
 * Resolves to hits and stores in pages of the trace. Rejects with the reason of `signal` when that aborts.
 */
export async function drivePool(
  trace: Trace,
  shape: PoolShape,
  uncounted: number,
  signal: AbortSignal,
): Promise<Outcome> {
  const { capacityPages, chunkPages, background } = shape
  const chunkBytes = chunkPages * pageSizeBytes
  await using backup = nullBackup()
  await using pool = new Pool({
    limitBytes: capacityPages * chunkBytes,
    maxOrder: Math.log2(chunkPages),
    backup,
    background,
    idleBytes: 0,
  })
  const buffers: PagedBuffer[] = []
  const bufferOfPage: PagedBuffer[] = []
  const offsetOfPage: number[] = []
  for (const pages of trace.bufferPages) {
    const buffer = await pool.allocate(pages * chunkBytes)
    buffers.push(buffer)
    for (let page = 0; page < pages; page++) {
      bufferOfPage.push(buffer)
      offsetOfPage.push(page * chunkBytes)
    }
    await buffer.fill(1)
    await buffer.backup()
  }
  const bytes = new Uint8Array(accessBytes)
  let before = pool.stats()
  for (let index = 0; index < trace.pages.length; index++) {
    if (index === uncounted) before = pool.stats()
    const page = trace.pages[index]
    const buffer = bufferOfPage[page]
    if (trace.writes[index] === 1) await buffer.write(offsetOfPage[page], bytes)
    else await buffer.read(offsetOfPage[page], bytes)
    if (index % accessesPerTurn !== 0) continue
    await new Promise(setImmediate)
    signal.throwIfAborted()
  }
  const after = pool.stats()
  const counted = trace.pages.length - uncounted
  const misses = (after.restoredPages - before.restoredPages) / chunkPages
  for (const buffer of buffers) await buffer.free()
  return {
    hitRate: 1 - misses / counted,
    backupWrites: (after.backedUpPages - before.backedUpPages) / chunkPages,
  }
}
