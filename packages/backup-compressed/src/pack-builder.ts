import type { CheckedCodec } from './codec.ts'
import { type BuiltUnit, countOnes } from './pack.ts'

/** Pages of a window that are to be one unit. */
export interface Window {
  readonly window: number
  /** A bit for each of its pages that is there. */
  readonly pages: number
  /** These pages, in order. */
  readonly content: readonly Uint8Array[]
  /** Whether it is tried though it looks random. */
  readonly isTrial?: boolean | undefined
}

export interface Built {
  readonly units: readonly BuiltUnit[]
  /** All units, one after the other, in the memory that was given. */
  readonly bytes: Uint8Array
}

/** A unit has to save a sixteenth, or it is not worth decompressing. */
const mostOfContent = 15 / 16

/** Compresses windows, and puts what became of them side by side. */
export class PackBuilder {
  readonly #codec: CheckedCodec
  readonly #pageSizeBytes: number

  constructor(codec: CheckedCodec, pageSizeBytes: number) {
    this.#codec = codec
    this.#pageSizeBytes = pageSizeBytes
  }

  /**
   * Builds in `memory`, of which the first half holds content and the second what it becomes; each is as long as all content.
   * What does not shrink is left out, or is plain where `keepsPlain`. Rejects with `EIO` when the codec fails.
   */
  async build(windows: readonly Window[], memory: Uint8Array, keepsPlain: boolean): Promise<Built> {
    const half = memory.byteLength / 2
    let gathered = 0
    const parts = windows.map(({ window, pages, content }) => {
      const start = gathered
      for (const page of content) {
        memory.set(page, gathered)
        gathered += page.byteLength
      }
      return { window, pages, source: memory.subarray(start, gathered), target: half + start }
    })
    const lengths = await settled(
      parts.map(({ source, target }) => {
        const most = Math.floor(source.byteLength * mostOfContent)
        return this.#codec.compress(source, memory.subarray(target, target + most))
      }),
    )
    const units: BuiltUnit[] = []
    let end = half
    for (const [index, { window, pages, source, target }] of parts.entries()) {
      const isPlain = lengths[index] === 0
      if (isPlain && !keepsPlain) continue
      const lengthBytes = isPlain ? source.byteLength : lengths[index]
      // What is moved comes from further behind: units only become shorter.
      if (isPlain) memory.set(source, end)
      else memory.copyWithin(end, target, target + lengthBytes)
      units.push({ window, pages, startBytes: end - half, lengthBytes })
      end += lengthBytes
    }
    return { units, bytes: memory.subarray(half, end) }
  }

  /** Pages of content in these units, less the pages that they take. */
  savedPages({ units, bytes }: Built): number {
    let pages = 0
    for (const unit of units) pages += countOnes(unit.pages)
    return pages - Math.ceil(bytes.byteLength / this.#pageSizeBytes)
  }
}

/** As `Promise.all`, but nothing is under way any more when it rejects: the memory is used again. */
async function settled<Value>(promises: readonly Promise<Value>[]): Promise<Value[]> {
  const results = await Promise.allSettled(promises)
  return results.map((result) => {
    if (result.status === 'rejected') throw result.reason
    return result.value
  })
}
