import { createCipheriv, createDecipheriv } from 'node:crypto'
import { nonceBytes, type PageCipher, tagBytes, writeNonce } from './page-cipher.ts'

const algorithm = 'aes-256-gcm'
const withTag = { authTagLength: tagBytes }

/** Through `node:crypto`, which makes several objects for each page. */
export class CryptoCipher implements PageCipher {
  readonly kind = 'node:crypto'
  readonly workFactor = 6
  readonly #key: Uint8Array
  readonly #nonce = new Uint8Array(nonceBytes)
  readonly #nonceView = new DataView(this.#nonce.buffer)

  constructor(key: Uint8Array) {
    this.#key = key.slice()
  }

  seal(number: number, page: Uint8Array, target: Uint8Array, tag: Uint8Array): void {
    writeNonce(this.#nonceView, number)
    const cipher = createCipheriv(algorithm, this.#key, this.#nonce, withTag)
    target.set(cipher.update(page))
    cipher.final()
    tag.set(cipher.getAuthTag())
  }

  open(number: number, page: Uint8Array, tag: Uint8Array): boolean {
    writeNonce(this.#nonceView, number)
    const decipher = createDecipheriv(algorithm, this.#key, this.#nonce, withTag)
    decipher.setAuthTag(tag)
    const opened = decipher.update(page)
    try {
      decipher.final()
    } catch {
      return false
    }
    page.set(opened)
    return true
  }

  erase(): void {
    this.#key.fill(0)
  }
}
