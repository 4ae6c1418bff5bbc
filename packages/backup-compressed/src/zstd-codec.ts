import { workInTurn } from '@spillway/core'
import type { Zstd } from '@spillway/native'
import type { Codec } from './codec.ts'
import { optionalNative } from './native.ts'
import { zlibCodec } from './zlib-codec.ts'

/** Longer units are compressed in threads: one would hold the event loop for too long. */
const longestAtOnceBytes = 128 * 1024
/** Compressing takes as long as copying so many times as much. */
const workFactor = 8

/**
 * The fastest zstd that works here: the one that the program exports, in the event loop, which has its turn every half millisecond; else
 * that of `node:zlib`. Which one is known when something was compressed.
 */
export class ZstdCodec implements Codec {
  readonly #zlib = zlibCodec()
  #isChosen = false
  #zstd: Zstd | undefined

  get name(): string {
    return this.#zstd === undefined ? this.#zlib.name : 'zstd (native)'
  }

  async compress(source: Uint8Array, target: Uint8Array): Promise<number> {
    if (!this.#isChosen) await this.#choose()
    const zstd = this.#zstd
    if (zstd === undefined || source.byteLength > longestAtOnceBytes) {
      return await this.#zlib.compress(source, target)
    }
    return await workInTurn(workFactor * source.byteLength, () => zstd.compress(source, target))
  }

  decompress(source: Uint8Array, target: Uint8Array): number {
    return (this.#zstd ?? this.#zlib).decompress(source, target)
  }

  close(): void {
    this.#zstd?.close()
  }

  /** Never rejects. Both read what the other wrote, where there is a zstd in `node:zlib`; else there is none to be called. */
  async #choose(): Promise<void> {
    const { native } = await optionalNative.load()
    if (this.#isChosen) return
    this.#isChosen = true
    if (native === undefined || !this.#zlib.name.startsWith('zstd')) return
    try {
      this.#zstd = native.Zstd.create()
    } catch {
      // It exports none.
    }
  }
}
