import type { FileContent } from './file-content.ts'
import type { LosingFile } from './losing-file.ts'

const cellOffsetBytes = 4096
const recordWords = 256
const recordBytes = recordWords * 4

/**
 * A counter that is one record in two places: written to the journal, synced, written to its cell, synced. Each record is two sectors, so
 * that either can be torn. It is right, and small enough to see that; tests of the losing file take parts of it away.
 */
export class JournalledCounter {
  readonly #file: LosingFile
  #value: number
  #failure: unknown

  constructor(file: LosingFile, value = 0) {
    this.#file = file
    this.#value = value
  }

  /** After a sync that failed, nothing is acknowledged any more, unless `trustsNextSync`. */
  async increment({ trustsNextSync = false } = {}): Promise<number> {
    if (this.#failure !== undefined) throw this.#failure
    const next = record(this.#value + 1)
    try {
      await this.#file.write(next, 0)
      await this.#sync(trustsNextSync)
      await this.#file.write(next, cellOffsetBytes)
      await this.#sync(trustsNextSync)
    } catch (failure) {
      this.#failure = failure
      throw failure
    }
    return ++this.#value
  }

  async #sync(trustsNextSync: boolean): Promise<void> {
    await this.#file.sync().catch((failure: unknown) => {
      if (!trustsNextSync) throw failure
      return this.#file.sync()
    })
  }
}

/** What the counter says after a crash; `undefined` when both records are torn. */
export function recoveredCount(content: FileContent): number | undefined {
  return valueAt(content, 0) ?? valueAt(content, cellOffsetBytes)
}

function record(value: number): Uint8Array {
  return new Uint8Array(new Uint32Array(recordWords).fill(value).buffer)
}

/** A record is whole when all of its words are the same. */
function valueAt(content: FileContent, offsetBytes: number): number | undefined {
  const words = new Uint32Array(recordWords)
  content.read(new Uint8Array(words.buffer, 0, recordBytes), offsetBytes)
  return words.every((word) => word === words[0]) ? words[0] : undefined
}
