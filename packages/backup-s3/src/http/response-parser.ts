/**
 * Reads HTTP/1.1 responses from what a socket delivers, one after the other on the same connection.
 *
 *   head ──▶ (1xx: head again)
 *     ├─ content-length ──▶ fixed ────────────▶ done
 *     ├─ chunked ─▶ size ─▶ chunk ─▶ … ─▶ trailers ─▶ done
 *     ├─ no body ─────────────────────────────▶ done
 *     └─ neither ─▶ until the connection closes ─▶ done
 */

export interface ParsedHead {
  readonly status: number
  readonly headers: Record<string, string>
}

export interface ResponseEvents {
  /** The service has seen the head of the request and wants its body. */
  onContinue?(): void
  /** The head of the final response. */
  onHead(head: ParsedHead): void
  /** The next bytes of the body, good until this returns. */
  onBody(chunk: Uint8Array): void
  onDone(): void
}

/** Heads longer than this are refused. */
const maxHeadBytes = 64 * 1024

const nothing = Buffer.alloc(0)

type State = 'head' | 'fixed' | 'size' | 'chunk' | 'chunkEnd' | 'trailers' | 'untilClose' | 'done'

export class ResponseParser {
  /** Whether the connection may carry another request afterwards. */
  keepAlive = true
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

  /** Takes what came. Throws when it is no HTTP. */
  push(bytes: Uint8Array): void {
    let rest = bytes
    while (rest.byteLength > 0) {
      if (this.#state === 'done') throw new Error('bytes after the end of the response')
      rest = this.#step(rest)
    }
  }

  #step(bytes: Uint8Array): Uint8Array {
    switch (this.#state) {
      case 'head': {
        const taken = this.#takeUntil(bytes, '\r\n\r\n')
        if (taken.text !== undefined) this.#head(taken.text)
        return taken.rest
      }
      case 'fixed':
      case 'chunk': {
        const count = Math.min(this.#left, bytes.byteLength)
        this.#left -= count
        const chunk = count === bytes.byteLength ? bytes : bytes.subarray(0, count)
        const isEnd = this.#left === 0
        if (isEnd && this.#state === 'chunk') this.#state = 'chunkEnd'
        this.#events.onBody(chunk)
        if (isEnd && this.#state === 'fixed') this.#done()
        return count === bytes.byteLength ? nothing : bytes.subarray(count)
      }
      case 'untilClose':
        this.#events.onBody(bytes)
        return bytes.subarray(bytes.byteLength)
      default: {
        const taken = this.#takeUntil(bytes, '\r\n')
        if (taken.text !== undefined) this.#chunkLine(taken.text)
        return taken.rest
      }
    }
  }

  /** Gathers bytes up to an end mark, which may be cut in two by the network. */
  #takeUntil(bytes: Uint8Array, mark: string): { text: string | undefined; rest: Uint8Array } {
    const before = this.#line.length
    const all = before === 0 ? asBuffer(bytes) : Buffer.concat([this.#line, bytes])
    const end = all.indexOf(mark, Math.max(0, before - mark.length), 'latin1')
    if (end < 0) {
      if (all.length > maxHeadBytes) throw new Error('the head of the response is too long')
      // Copied, since the socket's buffer is filled anew.
      this.#line = Buffer.from(all)
      return { text: undefined, rest: bytes.subarray(bytes.byteLength) }
    }
    this.#line = nothing
    return { text: all.toString('latin1', 0, end), rest: all.subarray(end + mark.length) }
  }

  #head(text: string): void {
    const match = /^HTTP\/1\.([01]) (\d{3})/.exec(text)
    if (match === null) throw new Error(`not an HTTP/1.1 response: ${JSON.stringify(text.slice(0, 40))}`)
    const status = Number(match[2])
    if (status === 100) this.#events.onContinue?.()
    if (status < 200) return
    const headers = headersOf(text)
    const connection = headers['connection']?.toLowerCase() ?? ''
    this.keepAlive = match[1] === '1' ? !connection.includes('close') : connection.includes('keep-alive')
    const encoding = headers['transfer-encoding']?.toLowerCase()
    const length = headers['content-length']
    if (encoding !== undefined) {
      if (encoding !== 'chunked') throw new Error(`transfer-encoding ${encoding} is not known`)
      this.#state = 'size'
    } else if (status === 204 || status === 304) {
      this.#state = 'done'
    } else if (length !== undefined) {
      if (!/^\d+$/.test(length)) throw new Error(`content-length ${length} is no number`)
      this.#left = Number(length)
      this.#state = this.#left === 0 ? 'done' : 'fixed'
    } else {
      this.keepAlive = false
      this.#state = 'untilClose'
    }
    const isDone = this.#state === 'done'
    this.#events.onHead({ status, headers })
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

/** Names as services write them, and in lower case: they are the same in every answer. */
const lowerCaseNames = new Map<string, string>()
const mostNames = 256

function headersOf(text: string): Record<string, string> {
  const headers: Record<string, string> = {}
  for (let end = text.indexOf('\r\n'); end >= 0; ) {
    const start = end + 2
    end = text.indexOf('\r\n', start)
    const stop = end < 0 ? text.length : end
    const colon = text.indexOf(':', start)
    if (colon <= start || colon >= stop) throw new Error('a header line without a colon')
    const written = text.slice(start, colon)
    let name = lowerCaseNames.get(written)
    if (name === undefined) {
      name = written.toLowerCase()
      if (lowerCaseNames.size < mostNames) lowerCaseNames.set(written, name)
    }
    const value = text.slice(colon + 1, stop).trim()
    headers[name] = !Object.hasOwn(headers, name) ? value : `${headers[name]}, ${value}`
  }
  return headers
}

function asBuffer(bytes: Uint8Array): Buffer {
  if (Buffer.isBuffer(bytes)) return bytes
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}
