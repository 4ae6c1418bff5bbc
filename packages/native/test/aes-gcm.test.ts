import { createCipheriv, createDecipheriv, randomBytes } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import { AesGcm, Mapping } from '../src/index.ts'

const bytes = (length: number) => new Uint8Array(randomBytes(length))

describe('AesGcm', () => {
  it('seals what node:crypto opens, and opens what it sealed, in memory of every kind', () => {
    const key = bytes(32)
    using cipher = AesGcm.create(key)
    using mapping = Mapping.anonymous(65536)
    const shared = new Uint8Array(new SharedArrayBuffer(4096))
    const resizable = new Uint8Array(new ArrayBuffer(4096, { maxByteLength: 8192 }))
    for (const target of [
      bytes(4096),
      bytes(5000).subarray(3, 4099),
      mapping.view(0, 4096),
      shared,
      resizable,
    ]) {
      const nonce = bytes(12)
      const page = bytes(4096)
      const tag = new Uint8Array(16)
      cipher.seal(nonce, page, target, tag)
      const decipher = createDecipheriv('aes-256-gcm', key, nonce)
      decipher.setAuthTag(tag)
      expect(decipher.update(target).equals(page)).toBe(true)
      decipher.final()
      expect(cipher.open(nonce, target, target, tag)).toBe(true)
      expect(Buffer.from(target).equals(page)).toBe(true)
      const other = createCipheriv('aes-256-gcm', key, nonce)
      const sealed = new Uint8Array(other.update(page))
      other.final()
      expect(cipher.open(nonce, sealed, sealed, other.getAuthTag())).toBe(true)
    }
  })

  it('refuses what was changed, and works on after it, as node:crypto does', () => {
    using cipher = AesGcm.create(bytes(32))
    const nonce = bytes(12)
    const page = bytes(4096)
    const sealed = new Uint8Array(4096)
    const tag = new Uint8Array(16)
    cipher.seal(nonce, page, sealed, tag)
    const into = new Uint8Array(4096)
    for (const change of [sealed, tag, nonce]) {
      change[5] ^= 1
      expect(cipher.open(nonce, sealed, into, tag)).toBe(false)
      change[5] ^= 1
    }
    expect(cipher.open(nonce, sealed, into, tag)).toBe(true)
    expect(Buffer.from(into).equals(page)).toBe(true)
    expect(() => randomBytes(16)).not.toThrow()
  })

  it('refuses bad arguments before OpenSSL sees them, and all of them once closed', () => {
    expect(() => AesGcm.create(bytes(31))).toThrow(RangeError)
    expect(() => AesGcm.create('k'.repeat(32) as never)).toThrow(TypeError)
    const cipher = AesGcm.create(bytes(32))
    const [nonce, tag, page] = [bytes(12), bytes(16), bytes(4096)]
    for (const [n, source, target, t] of [
      [bytes(11), page, page, tag],
      [nonce, page, bytes(4095), tag],
      [nonce, page, page, bytes(15)],
      [nonce, bytes(0), bytes(0), tag],
    ]) {
      expect(() => cipher.seal(n, source, target, t)).toThrow(RangeError)
      expect(() => cipher.open(n, source, target, t)).toThrow(RangeError)
    }
    cipher.close()
    cipher.close()
    expect(() => cipher.seal(nonce, page, page, tag)).toThrow(expect.objectContaining({ code: 'EBADF' }))
    expect(() => cipher.open(nonce, page, page, tag)).toThrow(expect.objectContaining({ code: 'EBADF' }))
  })
})
