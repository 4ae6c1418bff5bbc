import { ResponseHead } from './response-head.ts'

/**
 * Reads HTTP/1.1 responses from what a socket delivers, one after the other on the same connection.
 *
 *   head ──▶ (1xx: head again)
 *     ├─ content-length ──▶ fixed ────────────▶ done
 *     ├─ chunked ─▶ size ─▶ chunk ─▶ … ─▶ trailers ─▶ done
 *     ├─ no body ─────────────────────────────▶ done
 *     └─ neither ─▶ until the connection closes ─▶ done
 */

export interface ResponseEvents {
  /** The service has seen the head of the request and wants its body. */
  onContinue?(): void
  /** The head of the final response; the parser's own, which the next response changes. */
  onHead(head: ResponseHead): void
  /** The next bytes of the body: `bytes` from `from` to `end`, good until this returns. */
  onBody(bytes: Buffer, from: number, end: number): void
  onDone(): void
}

/** Lines between chunks longer than this are refused. */
const maxLineBytes = 64 * 1024
const nothing = Buffer.alloc(0)

type State = 'head' | 'fixed' | 'size' | 'chunk' | 'chunkEnd' | 'trailers' | 'untilClose' | 'done'

export class ResponseParser {
  /** Whether the connection may carry another request afterwards. */
  keepAlive = true
  readonly head = new ResponseHead()
  #state: State = 'head'
  #left = 0
  #line: Buffer = nothing
  readonly #events: ResponseEvents

  constructor(events: ResponseEvents) {
    this.#events = events
  }

  /** Begins with the next response of the same connection. */
  reset(): void {
    this.keepAlive = true
    this.#state = 'head'
    this.#left = 0
    this.#line = nothing
  }

  get isDone(): boolean {
    return this.#state === 'done'
  }

  /** Bytes that certainly belong to the body and can be read into the place they are for; 0 when that is not known. */
  get bodyBytesAhead(): number {
    return this.#state === 'fixed' ? this.#left : 0
  }

  /** So many bytes of the body were read into place, without `push`. */
  filled(bytes: number): void {
    this.#left -= bytes
    if (this.#left === 0) this.#done()
  }

  /** The connection was closed by the other side. Returns whether the response is whole. */
  closed(): boolean {
    this.keepAlive = false
    if (this.#state === 'untilClose') this.#done()
    return this.#state === 'done'
  }

  /** Takes what came: `bytes` up to `end`. Throws when it is no HTTP. */
  push(bytes: Buffer, end = bytes.length): void {
    for (let from = 0; from < end; ) {
      if (this.#state === 'done') throw new Error('bytes after the end of the response')
      from = this.#step(bytes, from, end)
    }
  }

  /** Takes some of the bytes; returns where the rest begins. */
  #step(bytes: Buffer, from: number, end: number): number {
    switch (this.#state) {
      case 'head': {
        const next = this.head.gather(bytes, from, end)
        if (next < 0) return end
        this.#begin()
        return next
      }
      case 'fixed':
      case 'chunk': {
        const next = Math.min(end, from + this.#left)
        this.#left -= next - from
        const isEnd = this.#left === 0
        if (isEnd && this.#state === 'chunk') this.#state = 'chunkEnd'
        this.#events.onBody(bytes, from, next)
        if (isEnd && this.#state === 'fixed') this.#done()
        return next
      }
      case 'untilClose':
        this.#events.onBody(bytes, from, end)
        return end
      default:
        return this.#gatherLine(bytes.subarray(from, end), from, end)
    }
  }

  /** Gathers a line between chunks, whose end may be cut in two by the network. */
  #gatherLine(bytes: Buffer, from: number, end: number): number {
    const before = this.#line.length
    const all = before === 0 ? bytes : Buffer.concat([this.#line, bytes])
    const lineEnd = all.indexOf('\r\n', Math.max(0, before - 1), 'latin1')
    if (lineEnd < 0) {
      if (all.length > maxLineBytes) throw new Error('a line between chunks is too long')
      // Copied, since the socket's buffer is filled anew.
      this.#line = Buffer.from(all)
      return end
    }
    this.#line = nothing
    this.#chunkLine(all.toString('latin1', 0, lineEnd))
    return from + lineEnd + 2 - before
  }

  /** The head is there: what follows it? */
  #begin(): void {
    const { status, keepAlive, transferEncoding, contentLength } = this.head
    if (status === 100) this.#events.onContinue?.()
    if (status < 200) return
    this.keepAlive = keepAlive
    if (transferEncoding !== undefined) {
      if (transferEncoding !== 'chunked')
        throw new Error(`transfer-encoding ${transferEncoding} is not known`)
      this.#state = 'size'
    } else if (status === 204 || status === 304) {
      this.#state = 'done'
    } else if (contentLength !== undefined) {
      if (Number.isNaN(contentLength)) throw new Error('content-length is no number')
      this.#left = contentLength
      this.#state = contentLength === 0 ? 'done' : 'fixed'
    } else {
      this.keepAlive = false
      this.#state = 'untilClose'
    }
    const isDone = this.#state === 'done'
    this.#events.onHead(this.head)
    if (isDone) this.#events.onDone()
  }

  #chunkLine(line: string): void {
    if (this.#state === 'chunkEnd') {
      if (line !== '') throw new Error('a chunk is longer than it said')
      this.#state = 'size'
    } else if (this.#state === 'trailers') {
      if (line === '') this.#done()
    } else {
      const size = /^\s*([0-9a-fA-F]+)\s*(;.*)?$/.exec(line)
      if (size === null) throw new Error(`chunk size ${JSON.stringify(line.slice(0, 20))} is no number`)
      this.#left = Number.parseInt(size[1], 16)
      this.#state = this.#left === 0 ? 'trailers' : 'chunk'
    }
  }

  #done(): void {
    this.#state = 'done'
    this.#events.onDone()
  }
}
