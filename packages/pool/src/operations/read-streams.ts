import type { Accesses } from '../residency/buffer-state.ts'

/**
 * The buffers that are being read sequentially, so that their readers can share what may be read ahead. The clock is the
 * number of sequential accesses; a reader whose turn did not come for many rounds of all readers does not count any more.
 */
export class ReadStreams {
  /** In the order of the last access. */
  readonly #readers = new Set<Accesses>()
  #latest: Accesses | undefined
  #tick = 0

  get count(): number {
    return this.#readers.size
  }

  note(reader: Accesses): void {
    reader.streamTick = ++this.#tick
    if (this.#latest === reader) return
    this.#latest = reader
    this.#readers.delete(reader)
    this.#readers.add(reader)
    for (const oldest of this.#readers) {
      if (this.#tick - oldest.streamTick <= roundsUntilForgotten * this.#readers.size) break
      this.#readers.delete(oldest)
    }
  }

  /** It is freed, or read otherwise from now on. */
  end(reader: Accesses): void {
    this.#readers.delete(reader)
    if (this.#latest === reader) this.#latest = undefined
  }
}

const roundsUntilForgotten = 64
