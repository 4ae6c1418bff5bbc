import type { BufferState } from '../residency/buffer-state.ts'
import type { ChunkReader } from '../table/chunks.ts'
import { busy, dirty, partial } from '../table/chunks.ts'

/** What a byte of a map says of a largest block of a buffer. */
export const mapStates = ['empty', 'stored', 'clean', 'dirty', 'pinned', 'in flight', 'mixed'] as const
export type MapState = (typeof mapStates)[number]

const empty = mapStates.indexOf('empty')
const stored = mapStates.indexOf('stored')
const clean = mapStates.indexOf('clean')
const isDirty = mapStates.indexOf('dirty')
const pinned = mapStates.indexOf('pinned')
const inFlight = mapStates.indexOf('in flight')
const mixed = mapStates.indexOf('mixed')

/** A buffer as `pool.maps()` shows it. */
export interface BufferMap {
  readonly label: string
  readonly sizeBytes: number
  /** Bytes of the buffer that a cell stands for; it shows the first largest block of them. */
  readonly cellBytes: number
  /** Indexes of `mapStates`. */
  readonly cells: Uint8Array
}

/** The states of `count` blocks from `first` on, of which it looks at every `step`-th. */
export function mapOf(
  { table }: BufferState,
  chunks: ChunkReader,
  { first, count, step }: { readonly first: number; readonly count: number; readonly step: number },
): Uint8Array {
  const cells = new Uint8Array(Math.ceil(count / step))
  for (let cell = 0; cell < cells.length; cell++) {
    const page = (first + cell * step) * table.blockPages
    const end = table.blockEnd(page)
    let state = -1
    for (let at = page; at < end && state !== mixed; at += table.foundPages) {
      table.look(at, end)
      const found =
        table.found === 'empty'
          ? empty
          : table.found === 'handle'
            ? stored
            : chunkState(chunks, table.foundChunk)
      state = state === -1 || state === found ? found : mixed
    }
    cells[cell] = state
  }
  return cells
}

function chunkState(chunks: ChunkReader, chunk: number): number {
  if (chunks.has(chunk, busy)) return inFlight
  if (chunks.isPinned(chunk)) return pinned
  if (chunks.has(chunk, partial)) return stored
  return chunks.has(chunk, dirty) ? isDirty : clean
}

/** Maps of buffers, the oldest first, with at most so many cells in all and for each. */
export function bufferMaps(
  buffers: Iterable<BufferState>,
  chunks: ChunkReader,
  limits: { readonly cells: number; readonly cellsPerBuffer: number; readonly pageSizeBytes: number },
): BufferMap[] {
  const maps: BufferMap[] = []
  let left = limits.cells
  for (const buffer of buffers) {
    const { table, label, sizeBytes, pageCount } = buffer
    const count = Math.ceil(pageCount / table.blockPages)
    const step = Math.max(1, Math.ceil(count / limits.cellsPerBuffer))
    left -= Math.ceil(count / step)
    if (left < 0) break
    const cellBytes = step * table.blockPages * limits.pageSizeBytes
    maps.push({ label, sizeBytes, cellBytes, cells: mapOf(buffer, chunks, { first: 0, count, step }) })
  }
  return maps
}
