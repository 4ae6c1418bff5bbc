import type { PagedBuffer, Pool } from '@spillway/pool'

/** Records as the sort benchmarks have them; they are ordered as their bytes are. */
export const recordBytes = 100

/** The sorted records of one run, block by block. */
export type Blocks = AsyncGenerator<Buffer, undefined>

/**
 * Writes the records in `memory` in order into a buffer of their own. A block of it is one chunk of memory and holds whole
 * records; the rest of the chunk stays unused.
 */
export async function formRun(pool: Pool, memory: Buffer, blockOrder: number): Promise<Blocks> {
  const length = pool.pageSizeBytes * 2 ** blockOrder
  const perBlock = Math.floor(length / recordBytes)
  const starts = sortedStarts(memory)
  const buffer = await pool.allocate(Math.ceil(starts.length / perBlock) * length, { maxOrder: blockOrder })
  for (let offset = 0, place = 0; offset < buffer.sizeBytes; offset += length) {
    using pin = await buffer.pin({ offset, length, write: true })
    for (let to = 0; to + recordBytes <= length && place < starts.length; to += recordBytes, place++) {
      memory.copy(pin.bytes, to, starts[place], starts[place] + recordBytes)
    }
  }
  return blocksOf(buffer, length, starts.length)
}

/** Where the records begin, in order: sorted natively by four bytes, then by all bytes where those are alike. */
function sortedStarts(memory: Buffer): Uint32Array {
  const keys = new BigUint64Array(memory.byteLength / recordBytes)
  const halves = new Uint32Array(keys.buffer) // on a little-endian machine: where it begins, then its first bytes
  for (let half = 0, start = 0; start < memory.byteLength; start += recordBytes) {
    halves[half++] = start
    halves[half++] = memory.readUInt32BE(start)
  }
  keys.sort()
  const starts = new Uint32Array(keys.length)
  for (let place = 0; place < starts.length; place++) starts[place] = halves[2 * place]
  for (let first = 0, end = 0; first < starts.length; first = end) {
    while (end < starts.length && halves[2 * end + 1] === halves[2 * first + 1]) end++
    if (end > first + 1) starts.subarray(first, end).sort((a, b) => compareRecords(memory, a, memory, b))
  }
  return starts
}

/** Each block is pinned while it is used and the next one on its way. The run is freed at its end. */
async function* blocksOf(buffer: PagedBuffer, length: number, records: number): Blocks {
  const perBlock = Math.floor(length / recordBytes)
  // With many runs under one limit, reading ahead on its own would push out what other runs need next.
  buffer.advise('random')
  for (let offset = 0, left = records; left > 0; offset += length, left -= perBlock) {
    if (offset > 0) buffer.advise('dontneed', { offset: offset - length, length })
    using pin = await buffer.pin({ offset, length })
    if (left > perBlock) buffer.advise('willneed', { offset: offset + length, length })
    yield bufferOf(pin.bytes).subarray(0, Math.min(perBlock, left) * recordBytes)
  }
  await buffer.free()
}

export function compareRecords(left: Buffer, leftStart: number, right: Buffer, rightStart: number): number {
  return left.compare(right, rightStart, rightStart + recordBytes, leftStart, leftStart + recordBytes)
}

export function bufferOf({ buffer, byteOffset, byteLength }: Uint8Array): Buffer {
  return Buffer.from(buffer, byteOffset, byteLength)
}
