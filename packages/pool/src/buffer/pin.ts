import { SpillwayError } from '@spillway/core'

/** What a pin needs of its pool; one object for all pins of a buffer. */
export interface PinOwner {
  readonly label: string
  spans(chunks: readonly number[], offsetBytes: number, length: number): Uint8Array[]
  unpin(pin: Pin): void
}

/**
 * A range that is resident until it is released: `using pin = await buffer.pin({ offset, length })`. The memory is the
 * pool's own, so nothing is copied; a view must not be used after the release (`new Pool({ debug: true })` finds who does).
 */
export class Pin implements Disposable {
  readonly offsetBytes: number
  readonly length: number
  readonly write: boolean
  /** @internal */
  readonly chunks: number[]
  readonly #owner: PinOwner
  #spans: readonly Uint8Array[] | undefined
  #released = false

  /** @internal */
  constructor(owner: PinOwner, chunks: number[], offsetBytes: number, length: number, write: boolean) {
    this.#owner = owner
    this.chunks = chunks
    this.offsetBytes = offsetBytes
    this.length = length
    this.write = write
  }

  /** The memory of the range in order, one view for each chunk. Throws `EBADF` after the release. */
  get spans(): readonly Uint8Array[] {
    this.#assertHeld()
    this.#spans ??= this.#owner.spans(this.chunks, this.offsetBytes, this.length)
    return this.#spans
  }

  /** The memory of a range that lies in one chunk. Throws `EINVAL` when it lies in several, `EBADF` after the release. */
  get bytes(): Uint8Array {
    const { spans } = this
    if (spans.length > 1) {
      throw new SpillwayError(
        'EINVAL',
        `the range is in ${spans.length} pieces of memory; use spans, or pin within one chunk`,
        { buffer: this.#owner.label },
      )
    }
    return spans[0] ?? new Uint8Array(0)
  }

  get released(): boolean {
    return this.#released
  }

  /** Lets the range go. Throws `EBADF` when it was released before. */
  release(): void {
    this.#assertHeld()
    this.#released = true
    this.#spans = undefined
    this.#owner.unpin(this)
  }

  /** Lets the range go; after `release` it does nothing. */
  [Symbol.dispose](): void {
    if (!this.#released) this.release()
  }

  #assertHeld(): void {
    if (!this.#released) return
    throw new SpillwayError('EBADF', `the pin of buffer ${this.#owner.label} is released`, {
      buffer: this.#owner.label,
    })
  }
}
