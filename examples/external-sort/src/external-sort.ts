import { open } from 'node:fs/promises'
import { dirname } from 'node:path'
import { openFileBackup } from '@spillway/backup-file'
import { Pool, type PoolStats } from '@spillway/pool'
import { type Blocks, bufferOf, compareRecords, formRun, recordBytes } from './runs.ts'

/**
 * Sorts a file of 100-byte records into another, with `limitBytes` of memory for records.
 *
 *   input ──▶ scratch, sorted ──▶ runs, spilled to a file as memory fills ──▶ a block of every run, merged ──▶ output
 */
export async function externalSort(from: string, to: string, limitBytes: number): Promise<PoolStats> {
  await using input = await open(from)
  await using output = await open(to, 'w')
  const { size } = await input.stat()
  if (size % recordBytes !== 0) throw new RangeError(`${from} is not made of ${recordBytes}-byte records`)
  // Half of the memory sorts, as one chunk; merging then pins one block of every run and reads one more ahead.
  const sortOrder = Math.min(18, Math.floor(Math.log2(limitBytes / 2 / 4096)))
  const sortBytes = 2 ** sortOrder * 4096
  const blockOrder = Math.min(9, Math.floor(Math.log2(limitBytes / Math.ceil(size / sortBytes) / 3 / 4096)))
  if (blockOrder < 0) throw new RangeError(`${limitBytes} bytes are too little to merge ${size} at once`)
  await using backup = await openFileBackup({ directory: dirname(to) })
  await using pool = new Pool({ limitBytes, backup, maxOrder: sortOrder })

  const runs: Blocks[] = []
  const scratch = await pool.allocate(sortBytes)
  for (let position = 0, length = 0; position < size; position += length) {
    using pin = await scratch.pin({ write: true })
    length = Math.min(size - position, sortBytes - (sortBytes % recordBytes))
    const { bytesRead } = await input.read(pin.bytes, 0, length, position) // straight into the pool's memory
    if (bytesRead < length) throw new Error(`${from} gave ${bytesRead} bytes instead of ${length}`)
    runs.push(await formRun(pool, bufferOf(pin.bytes).subarray(0, length), blockOrder))
  }
  await scratch.free()
  for await (const bytes of merge(runs)) await output.appendFile(bytes)
  return pool.stats()
}

/** A run and its next record, which is in `block` at `start` and begins with the six bytes of `key`. */
type Cursor = { readonly blocks: Blocks; block: Buffer; start: number; key: number }

/** The records of all runs in order, 800 KB at a time. */
async function* merge(runs: readonly Blocks[]): AsyncGenerator<Buffer> {
  const cursors: Cursor[] = []
  for (const blocks of runs) {
    const block = (await blocks.next()).value!
    cursors.push({ blocks, block, start: 0, key: block.readUIntBE(0, 6) })
  }
  cursors.sort(compare)
  const stage = Buffer.alloc(8192 * recordBytes)
  let filled = 0
  while (cursors.length > 0) {
    if (filled === stage.byteLength) yield stage
    filled %= stage.byteLength
    const cursor = cursors[0]
    filled += cursor.block.copy(stage, filled, cursor.start, cursor.start + recordBytes)
    cursor.start += recordBytes
    if (cursor.start === cursor.block.byteLength) {
      const { value } = await cursor.blocks.next()
      if (value === undefined) {
        cursors.shift()
        continue
      }
      cursor.block = value
      cursor.start = 0
    }
    cursor.key = cursor.block.readUIntBE(cursor.start, 6)
    let next = 1
    while (next < cursors.length && compare(cursors[next], cursor) < 0) cursors[next - 1] = cursors[next++]
    cursors[next - 1] = cursor
  }
  yield stage.subarray(0, filled)
}

function compare(left: Cursor, right: Cursor): number {
  return left.key - right.key || compareRecords(left.block, left.start, right.block, right.start)
}

if (import.meta.main) {
  const [input, output, mebibytes = '256'] = process.argv.slice(2)
  if (output === undefined) throw new Error('usage: external-sort.ts INPUT OUTPUT [MEBIBYTES OF MEMORY]')
  const stats = await externalSort(input, output, Number(mebibytes) * 2 ** 20)
  console.log({ ...stats, peakResidentMebibytes: process.resourceUsage().maxRSS / 1024 })
}
