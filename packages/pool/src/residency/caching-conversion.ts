import { cachings, type PageProvider } from '../providers/provider.ts'
import type { BufferState } from './buffer-state.ts'
import type { ResidentSet } from './resident-set.ts'

/**
 * Gives new chunks the caching of their buffer (T24). Chunks from the system are gathered, and converted in one call when
 * an idle chunk that has the caching already or one of another provider comes in between, or at the end: as many calls as
 * there are runs.
 */
export class CachingConversion {
  readonly #residents: ResidentSet
  readonly #buffer: BufferState
  readonly #converted = new Set<number>()
  #pending: number[] = []

  constructor(residents: ResidentSet, buffer: BufferState) {
    this.#residents = residents
    this.#buffer = buffer
  }

  add(chunk: number, converted: boolean): void {
    if (converted) {
      this.#converted.add(chunk)
      this.flush()
      return
    }
    // After a change of providers, chunks of one call may come from several.
    const [other] = this.#pending
    if (other !== undefined && this.#providerOf(other) !== this.#providerOf(chunk)) this.flush()
    this.#pending.push(chunk)
  }

  /** Converts what was gathered. Throws what the provider throws; then `isConverted` tells the two kinds apart (T25). */
  flush(): void {
    if (this.#pending.length === 0) return
    const { chunks, pages } = this.#residents
    const { slabs } = pages
    const runs = this.#pending.map((chunk) => slabs.run(chunks.frameOf(chunk), chunks.pageCount(chunk)))
    this.#providerOf(this.#pending[0]!).setCaching!(runs, cachings[this.#buffer.caching]!)
    for (const chunk of this.#pending) this.#converted.add(chunk)
    this.#pending = []
  }

  isConverted(chunk: number): boolean {
    return this.#converted.has(chunk)
  }

  #providerOf(chunk: number): PageProvider {
    return this.#residents.pages.slabs.providerOf(this.#residents.chunks.frameOf(chunk))
  }
}
