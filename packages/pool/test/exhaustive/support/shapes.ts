import { Random } from '../../support/random.ts'

/**
 * - `empty`    never written
 * - `dirty`    in memory only
 * - `stored`   in the backup only
 * - `clean`    in both
 * - `partial`  a restore of it stopped half way
 */
export type ChunkState = 'empty' | 'dirty' | 'stored' | 'clean' | 'partial'

const states: readonly ChunkState[] = ['empty', 'dirty', 'stored', 'clean', 'partial']

export interface ShapeChunk {
  readonly order: number
  readonly state: ChunkState
}

/** The chunks of a buffer, from its first page to its last. */
export type Shape = readonly ShapeChunk[]

export function pagesOf(shape: Shape): number {
  return shape.reduce((pages, { order }) => pages + 2 ** order, 0)
}

/** All ways to cut 2^order pages into aligned chunks: 1, 2, 5, 26, 677 of them for orders 0 to 4. */
export function partitions(order: number): number[][] {
  if (order === 0) return [[0]]
  const halves = partitions(order - 1)
  return [[order], ...halves.flatMap((left) => halves.map((right) => [...left, ...right]))]
}

/** A buffer of so many pages in as few chunks as there can be: from 1 to 64 pages these have every mix of orders 0 to 6. */
export function fewestChunks(pageCount: number, state: ChunkState): Shape {
  const shape: ShapeChunk[] = []
  for (let order = 6; order >= 0; order--) if ((pageCount & (1 << order)) !== 0) shape.push({ order, state })
  return shape
}

/** A partition with states: all of them where there are at most `most`, else so many that the seed draws. */
export function withStates(partition: readonly number[], most: number, seed: number): Shape[] {
  const total = states.length ** partition.length
  const random = new Random(seed)
  return Array.from({ length: Math.min(total, most) }, (_, index) => {
    let number = total <= most ? index : random.below(2 ** 31)
    return partition.map((order) => {
      const state = states[number % states.length]!
      number = Math.floor(number / states.length)
      // One page cannot be half restored.
      return { order, state: state === 'partial' && order === 0 ? 'clean' : state }
    })
  })
}

export function nameOf(shape: Shape): string {
  return shape.map(({ order, state }) => `${2 ** order} ${state}`).join(', ')
}
