import { SpillwayError } from '@spillway/core'

/** Compresses and decompresses units. Its functions are given memory that is theirs only until they are done. */
export interface Codec {
  /** Names it in errors and statistics. */
  readonly name: string
  /** Compresses all of `source` into `target`: how many bytes it wrote, or 0 where they do not fit. It may take another thread. */
  compress(source: Uint8Array, target: Uint8Array): number | Promise<number>
  /** Makes of what `compress` wrote what it was given, which fills `target`; returns how many bytes it wrote. No promise. */
  decompress(source: Uint8Array, target: Uint8Array): number
  /** Gives back what it holds. */
  close?(): void
}

/** Throws `TypeError` unless it has what a codec needs. */
export function assertCodec(codec: unknown): void {
  const { name, compress, decompress } = (codec ?? {}) as Partial<Codec>
  if (typeof name === 'string' && typeof compress === 'function' && typeof decompress === 'function') return
  throw new TypeError(`codec is ${String(codec)}; it must have name, compress and decompress`)
}

/** A codec that is not trusted: what it throws, and lengths that cannot be, are errors of the backup. */
export class CheckedCodec {
  readonly #codec: Codec
  readonly #backup: string

  constructor(codec: Codec, backup: string) {
    this.#codec = codec
    this.#backup = backup
  }

  get name(): string {
    return this.#codec.name
  }

  /** Bytes written, or 0 where it does not fit. Rejects with `EIO`. */
  async compress(source: Uint8Array, target: Uint8Array): Promise<number> {
    let bytes: number
    try {
      bytes = await this.#codec.compress(source, target)
    } catch (cause) {
      throw this.#failed('failed to compress', cause)
    }
    if (Number.isInteger(bytes) && bytes >= 0 && bytes <= target.byteLength) return bytes
    throw this.#failed(`says that it wrote ${String(bytes)} bytes where ${target.byteLength} have room`)
  }

  /** Fills `target`. Throws `EIO`. */
  decompress(source: Uint8Array, target: Uint8Array): void {
    let bytes: unknown
    try {
      bytes = this.#codec.decompress(source, target)
    } catch (cause) {
      throw this.#failed('failed to decompress', cause)
    }
    if (bytes === target.byteLength) return
    const isPromise = typeof (bytes as Promise<unknown> | undefined)?.then === 'function'
    // Nobody else looks at what becomes of it.
    if (isPromise) (bytes as Promise<unknown>).then(undefined, () => {})
    const what = isPromise ? 'a promise' : `${String(bytes)} bytes`
    throw this.#failed(`gave ${what} where ${target.byteLength} bytes were compressed`)
  }

  close(): void {
    this.#codec.close?.()
  }

  #failed(what: string, cause?: unknown): SpillwayError {
    return new SpillwayError('EIO', `codec ${this.#codec.name} ${what}`, { backup: this.#backup, cause })
  }
}
