import type { NativeModule } from './native.ts'

/**
 * Aligned memory of fixed size that scattered or unaligned pages are gathered in. Large buffers carry whole requests,
 * small ones a single page or a few; there are never more than `count` of a kind, and who finds none waits its turn. The
 * system gives memory for as much of a buffer as was ever used.
 */
export class StagingPool {
  readonly bufferBytes: number
  readonly #count: number
  readonly #native: NativeModule['native']
  readonly #idle: Uint8Array[] = []
  readonly #waiting: ((buffer: Uint8Array) => void)[] = []
  readonly #mappings: { close(): void }[] = []
  #made = 0
  #mostUsedBytes = 0

  constructor(count: number, bufferBytes: number, native: NativeModule['native']) {
    this.bufferBytes = bufferBytes
    this.#count = count
    this.#native = native
  }

  /** Most memory taken from the system so far. */
  get heldBytes(): number {
    return this.#made * this.#mostUsedBytes
  }

  /** A buffer, of which the first `bytes` will be used. */
  take(bytes: number): Uint8Array | Promise<Uint8Array> {
    this.#mostUsedBytes = Math.max(this.#mostUsedBytes, bytes)
    const buffer = this.#idle.pop()
    if (buffer !== undefined) return buffer
    if (this.#made < this.#count) {
      const made = this.#make()
      this.#made++
      return made
    }
    return new Promise((resolve) => this.#waiting.push(resolve))
  }

  give(buffer: Uint8Array): void {
    const next = this.#waiting.shift()
    if (next === undefined) this.#idle.push(buffer)
    else next(buffer)
  }

  /** Gives the memory back; nothing may be out. */
  close(): void {
    for (const mapping of this.#mappings) mapping.close()
    this.#idle.length = 0
    this.#made = 0
  }

  #make(): Uint8Array {
    if (this.#native === undefined) return alignedMemory(this.bufferBytes)
    const mapping = this.#native.Mapping.anonymous(this.bufferBytes)
    this.#mappings.push(mapping)
    return mapping.view(0, this.bufferBytes)
  }
}

/** Memory on a page boundary without help from the system: resizable ArrayBuffers are reserved in whole pages. */
export function alignedMemory(lengthBytes: number): Uint8Array {
  return new Uint8Array(new ArrayBuffer(lengthBytes, { maxByteLength: lengthBytes }), 0, lengthBytes)
}
