import { mix32 } from '../random.ts'

export const pageSizeBytes = 4096
const wordsPerPage = pageSizeBytes / 4

/**
 * What every page of a buffer must hold: zeros in version 0, else words made of seed, buffer, page and version. Nothing of
 * the content is kept, only a number for each page.
 */
export class ExpectedPages {
  readonly versions: Uint32Array
  readonly #salt: number

  /** @param salt tells buffers apart; another one for each buffer that ever was */
  constructor(pageCount: number, salt: number) {
    this.versions = new Uint32Array(pageCount)
    this.#salt = mix32(salt)
  }

  get pageCount(): number {
    return this.versions.length
  }

  /** Takes pages one version further and writes what they must hold from now on. */
  rewrite(firstPage: number, memory: Uint8Array): void {
    for (let page = 0; page < memory.byteLength / pageSizeBytes; page++) {
      this.versions[firstPage + page]++
      this.#write(firstPage + page, memory.subarray(page * pageSizeBytes, (page + 1) * pageSizeBytes))
    }
  }

  /** Pages that read as zeros were given up, where that may be: they must be zeros from now on. */
  forgetZeros(firstPage: number, memory: Uint8Array): void {
    for (let page = 0; page < memory.byteLength / pageSizeBytes; page++) {
      const found = memory.subarray(page * pageSizeBytes, (page + 1) * pageSizeBytes)
      if (Buffer.compare(found, zeros) === 0) this.versions[firstPage + page] = 0
    }
  }

  /** The content of all pages was given up. */
  clear(): void {
    this.versions.fill(0)
  }

  /** How many bytes differ from what they must be; `memory` may begin and end within pages. */
  countWrong(offsetBytes: number, memory: Uint8Array): number {
    let wrong = 0
    for (let start = 0; start < memory.byteLength; ) {
      const page = Math.floor((offsetBytes + start) / pageSizeBytes)
      const within = (offsetBytes + start) % pageSizeBytes
      const length = Math.min(pageSizeBytes - within, memory.byteLength - start)
      this.#write(page, scratch)
      const found = memory.subarray(start, start + length)
      const expected = scratch.subarray(within, within + length)
      // One comparison of native code for the page that is right; bytes are looked at only where one is wrong.
      if (Buffer.compare(found, expected) !== 0) {
        for (let byte = 0; byte < length; byte++) if (found[byte] !== expected[byte]) wrong++
      }
      start += length
    }
    return wrong
  }

  #write(page: number, memory: Uint8Array): void {
    const version = this.versions[page]
    if (version === 0) {
      memory.fill(0)
      return
    }
    const words = new Uint32Array(memory.buffer, memory.byteOffset, wordsPerPage)
    let word = mix32(this.#salt ^ Math.imul(page + 1, 0x9e3779b1) ^ Math.imul(version, 0x85ebca6b))
    for (let index = 0; index < wordsPerPage; index++) {
      words[index] = word
      word = (Math.imul(word, 0x01000193) + 0x3c6ef35f) | 0
    }
  }
}

const scratch = new Uint8Array(pageSizeBytes)
const zeros = new Uint8Array(pageSizeBytes)
