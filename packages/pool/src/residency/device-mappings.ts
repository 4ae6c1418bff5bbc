import { SpillwayError } from '@spillway/core'
import type { Pages } from '../memory/pages.ts'
import type { Chunks } from '../table/chunks.ts'
import type { BufferState } from './buffer-state.ts'

/** Where a device sees chunks (T26). Only chunks of buffers that ask for it are here. */
export class DeviceMappings {
  readonly #pages: Pages
  readonly #chunks: Chunks
  readonly #addresses = new Map<number, number>()

  constructor(pages: Pages, chunks: Chunks) {
    this.#pages = pages
    this.#chunks = chunks
  }

  isMapped(chunk: number): boolean {
    return this.#addresses.has(chunk)
  }

  /** Address of the first page of a chunk that is mapped. */
  addressOf(chunk: number): number {
    return this.#addresses.get(chunk)!
  }

  /** Maps a held chunk for the device, once (T26). Throws `EFAULT` when the provider cannot. */
  map(buffer: BufferState, chunk: number): void {
    if (this.#addresses.has(chunk)) return
    const { slabs } = this.#pages
    const frame = this.#chunks.frameOf(chunk)
    try {
      this.#addresses.set(
        chunk,
        slabs.providerOf(frame).map!(slabs.run(frame, this.#chunks.pageCount(chunk))),
      )
    } catch (failure) {
      throw new SpillwayError(
        'EFAULT',
        `memory of buffer ${buffer.label} could not be mapped for the device`,
        {
          buffer: buffer.label,
          page: this.#chunks.firstPageOf(chunk),
          cause: failure,
        },
      )
    }
  }

  /** Ends the mapping of a chunk, if it has one (I4). A provider that fails at it is told of, and is not asked again. */
  unmap(chunk: number): void {
    const address = this.#addresses.get(chunk)
    if (address === undefined) return
    this.#addresses.delete(chunk)
    const { slabs } = this.#pages
    const frame = this.#chunks.frameOf(chunk)
    const provider = slabs.providerOf(frame)
    try {
      provider.unmap!(slabs.run(frame, this.#chunks.pageCount(chunk)), address)
    } catch (failure) {
      this.#pages.noteProviderFailure(provider, 'end a mapping', failure)
    }
  }
}
