/** What a request is made and read in: memory that is used again, without a string or an object for each. */
import { createHash, createHmac } from 'node:crypto'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { ResponseHead } from '../src/http/response-head.ts'
import { TextBuffer } from '../src/http/text-buffer.ts'
import { SigningKey } from '../src/service/signing-key.ts'

const runs = { numRuns: 300 }

describe('a text buffer', () => {
  it('holds what was put into it, of any length and in both encodings', () => {
    const latin1 = fc
      .string({ unit: 'binary', maxLength: 90 })
      .map((text) => text.replace(/[^\0-\xff]/g, '?'))
    for (const [encoding, piece] of [
      ['utf8', fc.string({ unit: 'grapheme', maxLength: 90 })],
      ['latin1', latin1],
    ] as const) {
      const buffer = new TextBuffer(encoding, 16)
      const holds = (pieces: readonly string[]) => {
        buffer.set('')
        for (const text of pieces) buffer.add(text)
        expect(buffer.bytes.equals(Buffer.from(pieces.join(''), encoding))).toBe(true)
      }
      fc.assert(fc.property(fc.array(piece, { maxLength: 8 }), holds), runs)
    }
  })
})

describe('a signing key', () => {
  it('signs as HMAC does, texts of any length one after the other', () => {
    const chain = ['20261128', 'r', 's3', 'aws4_request']
    const hmac = (key: string | Buffer, text: string) => createHmac('sha256', key).update(text).digest()
    const key = chain.reduce<string | Buffer>(hmac, 'AWS4secret')
    const signing = new SigningKey('secret', '20261128', 'r', 's3')
    const signsAlike = (scope: string, text: string) => {
      const hashed = createHash('sha256').update(text).digest('hex')
      const expected = createHmac('sha256', key)
        .update(scope + hashed)
        .digest('hex')
      expect(signing.sign(scope, new TextBuffer('utf8').set(text))).toBe(expected)
    }
    const text = fc.string({ unit: 'grapheme', maxLength: 300 })
    fc.assert(fc.property(text, text, signsAlike), runs)
  })
})

describe('a response head', () => {
  const line = fc.constantFrom(
    'Date: Sat, 28 Nov 2026 10:00:00 GMT',
    'date:Sat, 28 Nov 2026 10:00:01 GMT ',
    'Content-Length: 4096',
    'content-length:\t 17',
    'content-length: 1x',
    'Content-Range: bytes 0-4095/8388608',
    'connection: keep-alive',
    'Connection: Close',
    'Transfer-Encoding: Chunked',
    'etag: "a:b"',
    'x-empty:',
    'x-odd: a\nb',
  )
  const status = fc.constantFrom('HTTP/1.1 206 Partial', 'HTTP/1.0 200 OK', 'HTTP/1.1 404')

  it('says of what is looked at just what its headers say, however it is cut', () => {
    const head = new ResponseHead()
    const agree = (first: string, lines: readonly string[], sizes: readonly number[]) => {
      const text = Buffer.from(`${[first, ...lines].join('\r\n')}\r\n\r\n`)
      let next = -1
      for (let at = 0, index = 0; at < text.length; index++) {
        const piece = text.subarray(at, at + sizes[index % sizes.length])
        next = head.gather(piece, 0, piece.length)
        at += piece.length
        if (at < text.length) expect(next).toBe(-1)
        else expect(next).toBe(piece.length)
      }
      const { headers } = head
      expect(head.status).toBe(Number(first.slice(9, 12)))
      expect(head.date).toBe(headers['date'])
      expect(head.contentRange).toBe(headers['content-range'])
      expect(head.transferEncoding).toBe(headers['transfer-encoding']?.toLowerCase())
      const length = headers['content-length']
      expect(head.contentLength).toBe(
        length === undefined ? undefined : Number(length.replace(/.*[^\d].*/, 'x')),
      )
      const connection = headers['connection']?.toLowerCase() ?? ''
      const isHttp11 = first.startsWith('HTTP/1.1')
      expect(head.keepAlive).toBe(
        isHttp11 ? !connection.includes('close') : connection.includes('keep-alive'),
      )
    }
    const sizes = fc.array(fc.integer({ min: 1, max: 300 }), { minLength: 1, maxLength: 5 })
    fc.assert(fc.property(status, fc.array(line, { maxLength: 6 }), sizes, agree), runs)
  })

  it('is refused when it is no HTTP, has a line without a colon, or does not end', () => {
    const refusal = (text: string) => () => {
      const bytes = Buffer.from(text)
      new ResponseHead().gather(bytes, 0, bytes.length)
    }
    expect(refusal('SSH-2.0-OpenSSH_9.2\r\n\r\n')).toThrow('not an HTTP/1.1 response')
    expect(refusal('HTTP/1.1 200 OK\r\nnothing\r\n\r\n')).toThrow('without a colon')
    expect(refusal('HTTP/1.1 200 OK\r\n: nothing\r\n\r\n')).toThrow('without a colon')
    expect(refusal(`HTTP/1.1 200 OK\r\na: ${'b'.repeat(70_000)}\r\n\r\n`)).toThrow('too long')
  })

  it('looks at nothing beyond the bytes that came', () => {
    const memory = Buffer.from('HTTP/1.1 200 OK\r\n\r\n')
    const head = new ResponseHead()
    expect(head.gather(memory, 0, memory.length - 2)).toBe(-1)
    expect(head.gather(memory, memory.length - 2, memory.length)).toBe(memory.length)
    expect(head.status).toBe(200)
  })
})
