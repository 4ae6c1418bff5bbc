import type { BufferState } from './buffer-state.ts'

/**
 * The buffers of a pool by their numbers, which only grow: in segments that come and go, so that each of very many costs
 * little more than eight bytes.
 */
export class BufferList {
  size = 0
  readonly #segments = new Map<number, Segment>()

  /** Adds a buffer under its own number. */
  add(buffer: BufferState): void {
    const number = Math.floor(buffer.id / segmentLength)
    let segment = this.#segments.get(number)
    if (segment === undefined) {
      segment = { buffers: new Array(segmentLength).fill(undefined), count: 0 }
      this.#segments.set(number, segment)
    }
    segment.buffers[buffer.id % segmentLength] = buffer
    segment.count++
    this.size++
  }

  /** The buffer of a number, if there is one. */
  get(id: number): BufferState | undefined {
    return this.#segments.get(Math.floor(id / segmentLength))?.buffers[id % segmentLength]
  }

  /** Forgets a buffer that was added. */
  delete(id: number): void {
    const number = Math.floor(id / segmentLength)
    const segment = this.#segments.get(number)
    if (segment?.buffers[id % segmentLength] === undefined) return
    segment.buffers[id % segmentLength] = undefined
    this.size--
    if (--segment.count === 0) this.#segments.delete(number)
  }

  /** All buffers, the oldest first. */
  *values(): Generator<BufferState, void, undefined> {
    for (const { buffers } of this.#segments.values())
      for (const buffer of buffers) if (buffer !== undefined) yield buffer
  }

  /** Bytes of the list itself. */
  get metadataBytes(): number {
    return this.#segments.size * segmentBytes
  }
}

interface Segment {
  readonly buffers: (BufferState | undefined)[]
  count: number
}

/** Small, so that a few buffers that outlive many others keep little memory. */
const segmentLength = 64
/** Its array, itself and its entry in the map. */
const segmentBytes = segmentLength * 8 + 128
