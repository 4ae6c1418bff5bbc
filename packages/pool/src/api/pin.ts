import { SpillwayError } from '@spillway/core'
import { DebugSpans, unwatchPin, type Watched, watchPin } from '../diagnostics/debug.ts'
import type { BufferState } from '../residency/buffer-state.ts'

/** What a pin needs of its pool. */
export interface PinOwner {
  readonly debug: boolean
  spans(chunks: readonly number[], offsetBytes: number, length: number): Uint8Array[]
  deviceAddresses(chunks: readonly number[], offsetBytes: number): number[]
  /** Chunks that an operation pinned are the application's from now on. */
  beginPin(buffer: BufferState, chunks: number[], pinned: PinnedBytes): void
  /** Throws where a pin cannot end now; nothing has happened then. */
  assertPinCanEnd(): void
  endPin(buffer: BufferState, chunks: number[], pinned: PinnedBytes): void
}

/** What is pinned: bytes of a buffer, and whether to write to them. */
export interface PinnedRange {
  readonly offset: number
  readonly length: number
  readonly write: boolean
  /** Where the application asked for it, in debug mode. */
  readonly madeAt?: string | undefined
}

/** What the pool remembers of a pin as long as it is held. */
export interface PinnedBytes {
  readonly offsetBytes: number
  readonly length: number
  readonly write: boolean
}

/** A class of typed arrays. */
export interface NumbersType<Numbers> {
  readonly name: string
  readonly BYTES_PER_ELEMENT: number
  new (buffer: ArrayBufferLike, byteOffset: number, length: number): Numbers
}

/** Throws `TypeError` for what is no class of typed arrays. */
export function assertNumbersType(type: NumbersType<unknown>): void {
  if (typeof type === 'function' && type.BYTES_PER_ELEMENT > 0) return
  const given = typeof type === 'string' ? JSON.stringify(type) : String(type)
  throw new TypeError(`typed takes a class of typed arrays, such as Float64Array; it was given ${given}`)
}

/**
 * A range that is resident until it is released: `using pin = await buffer.pin({ offset, length })`. The memory is the
 * pool's own, so nothing is copied; a view must not be used after the release (`new Pool({ debug: true })` finds who does).
 */
export class Pin implements Disposable {
  readonly offsetBytes: number
  readonly length: number
  readonly write: boolean
  readonly #owner: PinOwner
  readonly #buffer: BufferState
  readonly #chunks: number[]
  readonly #pinned: PinnedBytes
  #spans: readonly Uint8Array[] | undefined
  #debugSpans: DebugSpans | undefined
  #watch: Watched | undefined
  #released = false

  /** @internal */
  constructor(
    owner: PinOwner,
    buffer: BufferState,
    chunks: number[],
    { offset, length, write, madeAt }: PinnedRange,
  ) {
    this.#owner = owner
    this.#buffer = buffer
    this.#chunks = chunks
    this.offsetBytes = offset
    this.length = length
    this.write = write
    // A pin that the pool holds itself is never collected, and nobody would be told that it leaked.
    this.#pinned = owner.debug ? { offsetBytes: offset, length, write } : this
    owner.beginPin(buffer, chunks, this.#pinned)
    if (owner.debug) {
      this.#watch = { label: buffer.label, closing: false, madeAt }
      watchPin(this, this.#watch)
    }
  }

  /** The memory of the range in order, one view for each chunk. Throws `EBADF` after the release. */
  get spans(): readonly Uint8Array[] {
    this.#assertHeld()
    this.#spans ??= this.#makeSpans()
    return this.#spans
  }

  /** The memory of a range that lies in one chunk. Throws `EINVAL` when it lies in several, `EBADF` after the release. */
  get bytes(): Uint8Array {
    const { spans } = this
    if (spans.length > 1) {
      throw new SpillwayError(
        'EINVAL',
        `the range is in ${spans.length} pieces of memory; use spans, or pin within one chunk`,
        { buffer: this.#buffer.label },
      )
    }
    return spans[0] ?? new Uint8Array(0)
  }

  /**
   * The range as numbers of another type: `pin.typed(Float64Array)`. Throws `EINVAL` when it lies in several pieces, and
   * `RangeError` when its offset or length do not suit the type.
   */
  typed<Numbers>(type: NumbersType<Numbers>): Numbers {
    assertNumbersType(type)
    const { bytes } = this
    const size = type.BYTES_PER_ELEMENT
    if (bytes.byteOffset % size !== 0 || bytes.byteLength % size !== 0) {
      throw new RangeError(
        `offset ${this.offsetBytes} and length ${this.length} must be multiples of ${size} for ${type.name}`,
      )
    }
    return new type(bytes.buffer, bytes.byteOffset, bytes.byteLength / size)
  }

  /**
   * Where the device sees the memory, one address for each span; page `i` of a span is at its address plus `i` pages
   * (T26). Only for buffers allocated with `deviceMapped`. Throws `EBADF` after the release.
   */
  get deviceAddresses(): readonly number[] {
    this.#assertHeld()
    return this.#owner.deviceAddresses(this.#chunks, this.offsetBytes)
  }

  get released(): boolean {
    return this.#released
  }

  /**
   * Lets the range go. Throws `EBADF` when it was released before. In debug mode the views are detached, and `EINVAL` is
   * thrown when a read-only pin was written through.
   */
  release(): void {
    this.#assertHeld()
    this.#owner.assertPinCanEnd()
    this.#released = true
    this.#spans = undefined
    try {
      this.#debugSpans?.end(this.write, this.#buffer.label)
    } finally {
      if (this.#watch !== undefined) unwatchPin(this.#watch)
      this.#owner.endPin(this.#buffer, this.#chunks, this.#pinned)
    }
  }

  /** Lets the range go; after `release` it does nothing. */
  [Symbol.dispose](): void {
    if (!this.#released) this.release()
  }

  #makeSpans(): readonly Uint8Array[] {
    const spans = this.#owner.spans(this.#chunks, this.offsetBytes, this.length)
    if (!this.#owner.debug) return spans
    this.#debugSpans = new DebugSpans(spans)
    return this.#debugSpans.spans
  }

  #assertHeld(): void {
    if (!this.#released) return
    throw new SpillwayError('EBADF', `the pin of buffer ${this.#buffer.label} is released`, {
      buffer: this.#buffer.label,
    })
  }
}
