import { createHmac, hash } from 'node:crypto'
import { TextBuffer } from '../http/text-buffer.ts'

const blockBytes = 64
const digestBytes = 32

/**
 * The key that signs the requests of a day (AWS Signature Version 4). HMAC is done by two plain hashes over memory that is
 * used again, since `createHmac` costs more than all else that a signature needs:
 *
 *   hash(key ^ 0x5c… | hash(key ^ 0x36… | text))
 */
export class SigningKey {
  #inner = Buffer.alloc(2 * blockBytes)
  readonly #outer = Buffer.alloc(blockBytes + digestBytes)
  #innerView = this.#inner

  constructor(secret: string, day: string, region: string, service: string) {
    const derive = (key: string | Buffer, text: string) => createHmac('sha256', key).update(text).digest()
    const key = derive(derive(derive(derive(`AWS4${secret}`, day), region), service), 'aws4_request')
    for (let index = 0; index < blockBytes; index++) {
      const byte = index < digestBytes ? key[index] : 0
      this.#inner[index] = byte ^ 0x36
      this.#outer[index] = byte ^ 0x5c
    }
  }

  /** Signs what `scope` and the hash of `canonical` amount to; in hex. */
  sign(scope: string, canonical: TextBuffer): string {
    const text = stringToSign.set(scope).add(hash('sha256', canonical.bytes, 'hex')).bytes
    const bytes = blockBytes + text.byteLength
    if (this.#innerView.byteLength !== bytes) {
      if (this.#inner.byteLength < bytes)
        this.#inner = Buffer.concat([this.#inner.subarray(0, blockBytes)], bytes)
      this.#innerView = this.#inner.subarray(0, bytes)
    }
    this.#innerView.set(text, blockBytes)
    this.#outer.write(hash('sha256', this.#innerView, 'binary'), blockBytes, 'latin1')
    return hash('sha256', this.#outer, 'hex')
  }
}

const stringToSign = new TextBuffer('utf8')
