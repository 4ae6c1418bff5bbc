import { SpillwayError } from '@spillway/core'
import type { Medium } from './media/medium.ts'

/** Walks over the spans of one call, and moves what is next between them and a medium: one copy per span and slice. */
export class SpanReader {
  readonly #spans: readonly Uint8Array[]
  #index = 0
  #offsetBytes = 0

  constructor(spans: readonly Uint8Array[]) {
    this.#spans = spans
  }

  /** Stores the next `lengthBytes` at `mediumBytes`. If it throws, they are next again. */
  write(medium: Pick<Medium, 'write'>, mediumBytes: number, lengthBytes: number): void {
    const index = this.#index
    const offsetBytes = this.#offsetBytes
    try {
      this.#each(lengthBytes, (span, start, length, done) => {
        medium.write(mediumBytes + done, span, start, length)
      })
    } catch (failure) {
      this.#index = index
      this.#offsetBytes = offsetBytes
      throw failure
    }
  }

  /** Fills the next `lengthBytes` from `mediumBytes`. */
  read(medium: Pick<Medium, 'read'>, mediumBytes: number, lengthBytes: number): void {
    this.#each(lengthBytes, (span, start, length, done) => {
      medium.read(mediumBytes + done, span, start, length)
    })
  }

  #each(
    lengthBytes: number,
    move: (span: Uint8Array, start: number, length: number, done: number) => void,
  ): void {
    let done = 0
    while (done < lengthBytes) {
      const span = this.#spans[this.#index]
      const left = span === undefined ? 0 : span.byteLength - this.#offsetBytes
      if (left <= 0) throw new SpillwayError('EFAULT', 'the memory was detached or resized during the call')
      const length = Math.min(left, lengthBytes - done)
      move(span!, this.#offsetBytes, length, done)
      done += length
      this.#offsetBytes += length
      if (this.#offsetBytes === span!.byteLength) {
        this.#index++
        this.#offsetBytes = 0
      }
    }
  }
}
