import type { BufferState } from '../residency/buffer-state.ts'

/**
 * The buffers that are being read sequentially, so that their readers can share what may be read ahead. The clock is the
 * number of sequential accesses; a reader whose turn did not come for many rounds of all readers does not count any more.
 */
export class ReadStreams {
  /** In the order of the last access. */
  readonly #buffers = new Set<BufferState>()
  #latest: BufferState | undefined
  #tick = 0

  get count(): number {
    return this.#buffers.size
  }

  note(buffer: BufferState): void {
    buffer.streamTick = ++this.#tick
    if (this.#latest === buffer) return
    this.#latest = buffer
    this.#buffers.delete(buffer)
    this.#buffers.add(buffer)
    for (const oldest of this.#buffers) {
      if (this.#tick - oldest.streamTick <= roundsUntilForgotten * this.#buffers.size) break
      this.#buffers.delete(oldest)
    }
  }

  /** It is freed, or read otherwise from now on. */
  end(buffer: BufferState): void {
    this.#buffers.delete(buffer)
    if (this.#latest === buffer) this.#latest = undefined
  }
}

const roundsUntilForgotten = 64
