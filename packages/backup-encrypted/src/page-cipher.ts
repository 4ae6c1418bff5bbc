/**
 * AES-256-GCM for pages. A page is named by its number, which is its nonce: it is used for one page only under a key. So a page
 * opens only under the number that it was sealed for, and with the tag that was made then.
 */
export interface PageCipher {
  /** Who does the work, for statistics. */
  readonly kind: 'openssl' | 'node:crypto'
  /** How much longer a page takes than to be copied, at least: what the event loop is spared by. */
  readonly workFactor: number
  /** Seals a page into `target`, as long, and puts its tag into `tag`. */
  seal(number: number, page: Uint8Array, target: Uint8Array, tag: Uint8Array): void
  /** Opens a page where it lies. False when it is not the page of this number and tag; what lies there then is no data. */
  open(number: number, page: Uint8Array, tag: Uint8Array): boolean
  /** Forgets the key. */
  erase(): void
}

export const tagBytes = 16
export const nonceBytes = 12

/** Writes a number as the 96 bits of a nonce, the highest first. */
export function writeNonce(nonce: DataView, number: number): void {
  nonce.setUint32(4, Math.floor(number / 2 ** 32))
  nonce.setUint32(8, number % 2 ** 32)
}
