/**
 * What it costs a pool to reclaim memory from another pool of its budget, relative to reclaiming as much from itself:
 *
 *   npm run bench:budget -- [--limit 256] [--rounds 15]
 *
 * `--limit` in MiB. In each round a victim fills the limit with dirty pages; then half of it is written elsewhere, which is timed: to
 * another buffer of the same pool, and to a pool beside it. Pages go to shared memory.
 */
import { parseArgs } from 'node:util'
import { openShmemBackup } from '@spillway/backup-shmem'
import type { Backup } from '@spillway/core'
import { MemoryBudget, type PagedBuffer, Pool } from '@spillway/pool'
import { spreadOf } from '../../apps/bench/src/statistics.ts'

const { values } = parseArgs({
  options: { limit: { type: 'string', default: '256' }, rounds: { type: 'string', default: '15' } },
})
const limitBytes = Number(values.limit) * 2 ** 20
const piece = new Uint8Array(2 ** 21).fill(7)

async function fill(buffer: PagedBuffer): Promise<void> {
  for (let offset = 0; offset < buffer.sizeBytes; offset += piece.byteLength)
    await buffer.write(offset, piece)
}

/** Milliseconds, of the wall and of the processor, that `writer` takes for half of the limit while `victim` has all of it. */
async function timed(victim: Pool, writer: Pool): Promise<{ wallMs: number; processorMs: number }> {
  await using full = await victim.allocate(limitBytes)
  await fill(full)
  await using wanted = await writer.allocate(limitBytes / 2)
  const before = process.cpuUsage()
  const start = performance.now()
  await fill(wanted)
  const wallMs = performance.now() - start
  const { user, system } = process.cpuUsage(before)
  if (full.residentBytes > limitBytes / 2 + piece.byteLength) throw new Error('the victim gave nothing')
  return { wallMs, processorMs: (user + system) / 1000 }
}

async function compare(backup: Backup): Promise<void> {
  const budget = new MemoryBudget({ limitBytes })
  await using victim = new Pool({ budget, backup, name: 'victim' })
  await using neighbour = new Pool({ budget, backup, name: 'neighbour' })
  const ratios: { wall: number[]; processor: number[] } = { wall: [], processor: [] }
  for (let round = 0; round < Number(values.rounds) + 2; round++) {
    const own = await timed(victim, victim)
    const other = await timed(victim, neighbour)
    // The first rounds compile what runs.
    if (round < 2) continue
    ratios.wall.push(other.wallMs / own.wallMs)
    ratios.processor.push(other.processorMs / own.processorMs)
  }
  for (const [kind, figures] of Object.entries(ratios)) {
    const { median, min, max } = spreadOf(figures)!
    const shown = `${median.toFixed(2)} (${min.toFixed(2)}–${max.toFixed(2)})`
    console.log(`reclaiming from a neighbour, of reclaiming from itself, ${kind} time (≤ 1.1): ${shown}`)
  }
}

await using backup = await openShmemBackup({ capacityBytes: 4 * limitBytes })
await compare(backup)
