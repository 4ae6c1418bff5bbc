import type { MemoryBlock, MemoryRequest, PageProvider, ProviderCapabilities } from '@spillway/pool'

/**
 * Memory of a pool in one `SharedArrayBuffer`: it is taken once and kept, and worker threads see pinned pages in place.
 *
 *   |  block  |  block  |    block, put back: zeroed and free again    |  not yet handed out  |
 */
export class SharedArena implements PageProvider {
  readonly name = 'shared-arena'
  readonly capabilities: ProviderCapabilities = Object.freeze({
    swappable: true,
    movable: true,
    shareable: false, // with other threads, not with other processes
    pageExactRelease: false, // nothing is given to the system before all is
  })
  readonly memory: SharedArrayBuffer
  #handedOutBytes = 0
  /** Blocks that were put back, by their size. */
  readonly #free = new Map<number, MemoryBlock[]>()

  constructor(sizeBytes: number) {
    this.memory = new SharedArrayBuffer(sizeBytes)
  }

  probe(): boolean {
    return typeof SharedArrayBuffer === 'function'
  }

  get(_order: number, { lengthBytes }: MemoryRequest): MemoryBlock | undefined {
    const free = this.#free.get(lengthBytes)?.pop()
    if (free !== undefined) return free
    // The pool then asks for a smaller block, and when there is none makes room in what it has.
    if (this.#handedOutBytes + lengthBytes > this.memory.byteLength) return undefined
    const bytes = new Uint8Array(this.memory, this.#handedOutBytes, lengthBytes)
    this.#handedOutBytes += lengthBytes
    return { bytes }
  }

  put(block: MemoryBlock): void {
    block.bytes.fill(0)
    const { byteLength } = block.bytes
    const free = this.#free.get(byteLength)
    if (free === undefined) this.#free.set(byteLength, [block])
    else free.push(block)
  }
}
