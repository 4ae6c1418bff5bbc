/**
 * Run as a program: makes many buffers, and tells what each costs and what the pool says that it costs, in bytes.
 * `node --expose-gc many-buffers.ts COUNT SIZE_BYTES WRITTEN_BYTES [pinned]`.
 */
import '../../../../scripts/resolve-sources.ts'
import type { PagedBuffer } from '../../src/index.ts'

const { Pool } = await import('../../src/index.ts')

const [count, sizeBytes, writtenBytes] = process.argv.slice(2).map(Number) as [number, number, number]
const collect = (globalThis as { gc?: () => void }).gc!

/** What is in use once nothing more is collected: finalizers, and code that is not used any more, take a few turns. */
async function usedBytes(): Promise<number> {
  let least = Number.POSITIVE_INFINITY
  for (let sinceLess = 0; sinceLess < 4; sinceLess++) {
    await new Promise(setImmediate)
    collect()
    const { heapUsed, arrayBuffers } = process.memoryUsage()
    if (heapUsed + arrayBuffers < least - 4096) sinceLess = 0
    least = Math.min(least, heapUsed + arrayBuffers)
  }
  return least
}

const pool = new Pool({ limitBytes: 2 ** 40, provider: 'mmap' })
const bytes = new Uint8Array(writtenBytes).fill(7)
const buffers: PagedBuffer[] = new Array(count)
async function make(): Promise<PagedBuffer> {
  const buffer = await pool.allocate(sizeBytes)
  if (writtenBytes > 0) await buffer.write(0, bytes)
  if (process.argv[5] === 'pinned') (await buffer.pin({ write: true })).release()
  return buffer
}
// What is made once, and code that is compiled.
for (let index = 0; index < 1000; index++) await (await make()).free()
const before = await usedBytes()
const metadataBefore = pool.stats().metadataBytes
for (let index = 0; index < count; index++) buffers[index] = await make()
const costBytes = ((await usedBytes()) - before) / count
const toldBytes = (pool.stats().metadataBytes - metadataBefore) / count
process.stdout.write(JSON.stringify({ costBytes, toldBytes, count: buffers.length }))
