import { type Chunks, dirty, piece } from '../table/chunks.ts'
import type { PageTable } from '../table/page-table.ts'
import type { EvictionOrder } from './eviction-order.ts'

/** Where a chunk is known that becomes pieces. */
interface Whereabouts {
  readonly chunks: Chunks
  readonly table: PageTable
  readonly order: EvictionOrder
}

/** Pages of a chunk, from one to before the other, and the flags that their pieces have. */
export interface PagesOfChunk {
  readonly from: number
  readonly to: number
  readonly flags: number
}

/**
 * Pages of a chunk that is about to be forgotten become smaller chunks in its place in its list, stored as the table says: for the
 * resident set alone. Returns these.
 */
export function makePieces(
  { chunks, table, order }: Whereabouts,
  whole: number,
  { from, to, flags }: PagesOfChunk,
): number[] {
  const pieces: number[] = []
  const first = chunks.firstPageOf(whole)
  const frame = chunks.frameOf(whole)
  for (let index = from; index < to; ) {
    // The largest aligned piece that begins here: at most the lowest bit of the index that is set.
    const aligned = index === 0 ? to : index & -index
    const pieceOrder = 31 - Math.clz32(Math.min(aligned, to - index))
    const memory = { order: pieceOrder, frame: frame + index, flags: flags | piece }
    const made = chunks.add(chunks.ownerOf(whole), first + index, memory)
    chunks.removePin(made)
    if ((flags & dirty) === 0) chunks.storeAsIn(table, made)
    chunks.moveTo(made, chunks.listOf(whole))
    table.setChunk(first + index, 1 << pieceOrder, made)
    order.splitOff(made, whole)
    pieces.push(made)
    index += 1 << pieceOrder
  }
  return pieces
}
