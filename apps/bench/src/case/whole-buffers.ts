import { readFileSync } from 'node:fs'
import { setTimeout as pause } from 'node:timers/promises'
import type { PagedBuffer, Pool } from '@spillway/pool'
import type { InputPlan } from '../input/plan.ts'
import { affordableShare } from './case-budget.ts'
import { DataLedger } from './ledger.ts'
import { loadData, type Progress, type Verification, verifyData } from './load-and-verify.ts'
import { PoolStore } from './pool-store.ts'

/** Whole buffers are backed up and restored this many at a time. */
export const wholeBuffersInFlight = 2

export interface WholeBufferFigures {
  readonly backupBytesPerSecond: readonly number[]
  readonly restoreBytesPerSecond: readonly number[]
  readonly memoryReturn: { readonly ms: number; readonly share: number } | undefined
  readonly verification: Verification
  /** Share of the set that each measured round moved. */
  readonly share: number
}

export interface WholeBufferOptions {
  readonly pool: Pool
  /** Data of the set: it fits into the limit with room to spare. */
  readonly plan: InputPlan
  readonly rounds: number
  /** Time for all of it: each round moves fewer buffers when it is short. */
  readonly allowedMs: number
  readonly staging: Uint8Array
  readonly progress: Progress
  /** Called before and after what is measured, so that nothing else counts into event-loop delay. */
  readonly measured: (running: boolean) => void
}

/**
 * Backs up a set of whole buffers with `buffer.backup()` and brings it back with `buffer.restore()`, again and again.
 * Every page is rewritten between the rounds, or the pool would rightly not write it a second time. The first round warms
 * up, and tells how many buffers the others can move in the time there is. Whatever comes back is checked by its sums before it is rewritten, and byte by byte after the last round; a set that
 * went wrong has no figures.
 */
export async function measureWholeBuffers(options: WholeBufferOptions): Promise<WholeBufferFigures> {
  const { pool, plan, rounds, staging, progress } = options
  const ledger = new DataLedger(plan)
  const bufferCount = plan.dataBytes / plan.bufferBytes
  const startMs = performance.now()
  await using store = await PoolStore.open(pool, {
    bufferCount,
    bufferBytes: plan.bufferBytes,
    maxOrder: undefined,
  })
  const hashes = await loadData(store, ledger, staging, () => {})
  const backupBytesPerSecond: number[] = []
  const restoreBytesPerSecond: number[] = []
  let memoryReturn: WholeBufferFigures['memoryReturn']
  let movedCount = bufferCount
  // Verifying takes about as long as loading.
  const verifyMs = performance.now() - startMs
  const errors: string[] = []

  for (let round = 0; round <= rounds; round++) {
    const roundMs = performance.now()
    const wrongBlocks = await rewriteAll(store, ledger, movedCount)
    if (wrongBlocks > 0) errors.push(`${wrongBlocks} blocks of the set were wrong before round ${round}`)
    if (errors.length > 0) break
    const residentBytes = residentBytesNow()
    const moved = store.buffers.slice(0, movedCount)
    options.measured(round > 0)
    const start = performance.now()
    await forEachBuffer(moved, errors, (buffer) => buffer.backup())
    const backedUp = performance.now()
    options.measured(false)
    // Only the warm-up round waits for it: the figures shall not.
    if (round === 0) memoryReturn = await watchMemoryReturn(residentBytes, plan.dataBytes, backedUp)
    options.measured(round > 0)
    const restoreStart = performance.now()
    await forEachBuffer(moved, errors, (buffer) => buffer.restore())
    const restored = performance.now()
    options.measured(false)
    progress(round, rounds)
    if (errors.length > 0) break
    if (round === 0) {
      const allowedMs = options.allowedMs - verifyMs - (restored - startMs)
      const share = affordableShare(allowedMs, (restored - roundMs) * rounds)
      movedCount = Math.max(Math.min(bufferCount, wholeBuffersInFlight), Math.round(share * bufferCount))
    } else {
      const movedBytes = movedCount * plan.bufferBytes
      backupBytesPerSecond.push((movedBytes / (backedUp - start)) * 1000)
      restoreBytesPerSecond.push((movedBytes / (restored - restoreStart)) * 1000)
    }
  }
  const share = movedCount / bufferCount
  const verification = await verifyData(store, ledger, hashes, staging, () => {})
  verification.errors.unshift(...errors)
  if (verification.wrongBytes > 0 || verification.lostPages > 0 || errors.length > 0) {
    return { backupBytesPerSecond: [], restoreBytesPerSecond: [], memoryReturn, verification, share }
  }
  return { backupBytesPerSecond, restoreBytesPerSecond, memoryReturn, verification, share }
}

/** Checks the quick sums of everything and rewrites it. Resolves to the number of 4 KiB blocks that were not right. */
async function rewriteAll(store: PoolStore, ledger: DataLedger, bufferCount: number): Promise<number> {
  const { bufferBytes } = ledger.plan
  let wrongBlocks = 0
  for (let buffer = 0; buffer < bufferCount; buffer++) {
    await store.touch({ buffer, offsetBytes: 0, lengthBytes: bufferBytes, write: true }, (memory) => {
      wrongBlocks += ledger.countMismatches(buffer * bufferBytes, memory)
      ledger.rewrite(buffer * bufferBytes, memory)
    })
  }
  return wrongBlocks
}

async function forEachBuffer(
  buffers: readonly PagedBuffer[],
  errors: string[],
  move: (buffer: PagedBuffer) => Promise<{ readonly error?: Error | undefined }>,
): Promise<void> {
  let next = 0
  async function worker(): Promise<void> {
    while (next < buffers.length) {
      const index = next++
      const { error } = await move(buffers[index])
      if (error !== undefined && errors.length < 5) errors.push(`buffer ${index}: ${error.message}`)
    }
  }
  await Promise.all(Array.from({ length: wholeBuffersInFlight }, worker))
}

/** Watches how fast the memory of a set that was just backed up goes back to the system; a quarter second at most. */
async function watchMemoryReturn(
  before: number | undefined,
  setBytes: number,
  since: number,
): Promise<WholeBufferFigures['memoryReturn']> {
  if (before === undefined) return undefined
  for (;;) {
    const ms = performance.now() - since
    const share = (before - (residentBytesNow() ?? before)) / setBytes
    if (share >= 0.9 || ms >= 250) return { ms, share }
    await pause(1)
  }
}

/** Resident anonymous memory of this process, where Linux tells. */
function residentBytesNow(): number | undefined {
  if (process.platform !== 'linux') return undefined
  const match = /^RssAnon:\s+(\d+) kB/m.exec(readFileSync('/proc/self/status', 'utf8'))
  return match === null ? undefined : Number(match[1]) * 1024
}
