import type { AesGcm } from '@spillway/native'
import { nonceBytes, type PageCipher, writeNonce } from './page-cipher.ts'

/** Through the OpenSSL of the running program. */
export class OpenSslCipher implements PageCipher {
  readonly kind = 'openssl'
  readonly workFactor = 2
  readonly #cipher: AesGcm
  readonly #nonce = new Uint8Array(nonceBytes)
  readonly #nonceView = new DataView(this.#nonce.buffer)

  constructor(cipher: AesGcm) {
    this.#cipher = cipher
  }

  seal(number: number, page: Uint8Array, target: Uint8Array, tag: Uint8Array): void {
    writeNonce(this.#nonceView, number)
    this.#cipher.seal(this.#nonce, page, target, tag)
  }

  open(number: number, page: Uint8Array, tag: Uint8Array): boolean {
    writeNonce(this.#nonceView, number)
    return this.#cipher.open(this.#nonce, page, page, tag)
  }

  erase(): void {
    this.#cipher.close()
  }
}
