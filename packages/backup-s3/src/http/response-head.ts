/** The head of a response. It is read in memory of its own, so that what is not asked for costs nothing. */

/** Heads longer than this are refused. */
const maxHeadBytes = 64 * 1024
const endMark = Buffer.from('\r\n\r\n')
/** Up to the digits of the status: `HTTP/1.1 `. */
const statusAt = 9
const [lineFeed, carriageReturn, colonByte, space, tab, zero] = [10, 13, 58, 32, 9, 48]

export class ResponseHead {
  status = 0
  /** NaN where what is there is no number. */
  contentLength: number | undefined
  contentRange: string | undefined
  date: string | undefined
  /** Whether the connection may carry another request, as far as the head says. */
  keepAlive = true
  /** In lower case. */
  transferEncoding: string | undefined
  #memory = Buffer.allocUnsafeSlow(1024)
  #length = 0
  #isWhole = false
  #headers: Record<string, string> | undefined
  #dateBytes: Buffer = Buffer.alloc(0)
  #dateText = ''

  /** Forgets what came. */
  reset(): void {
    this.#length = 0
    this.#isWhole = false
  }

  /**
   * Takes bytes, from `from` to `stop`, up to the empty line after the head, which may be cut in two by the network. Returns
   * where in `bytes` the head has ended, or −1 while it goes on. Throws when it is no HTTP.
   */
  gather(bytes: Buffer, from: number, stop: number): number {
    if (this.#isWhole) this.reset()
    const before = this.#length
    if (before === 0) {
      const end = bytes.indexOf(endMark, from)
      if (end >= 0 && end + endMark.length <= stop && end - from <= maxHeadBytes) {
        this.#append(bytes, from, end)
        this.#read()
        return end + endMark.length
      }
    }
    this.#append(bytes, from, stop)
    const end = this.#memory.subarray(0, this.#length).indexOf(endMark, Math.max(0, before - endMark.length))
    if ((end < 0 ? this.#length : end) > maxHeadBytes) throw new Error('the head of the response is too long')
    if (end < 0) return -1
    this.#length = end
    this.#read()
    return from + end + endMark.length - before
  }

  /** All headers, by their names in lower case. To be asked for before the next response comes. */
  get headers(): Record<string, string> {
    this.#headers ??= headersOf(this.#memory.toString('latin1', 0, this.#length))
    return this.#headers
  }

  #append(bytes: Buffer, from: number, end: number): void {
    const length = this.#length + end - from
    if (length > this.#memory.length) {
      const larger = Buffer.allocUnsafeSlow(2 * length)
      this.#memory.copy(larger, 0, 0, this.#length)
      this.#memory = larger
    }
    bytes.copy(this.#memory, this.#length, from, end)
    this.#length = length
  }

  #read(): void {
    this.#isWhole = true
    this.#headers = undefined
    this.status = this.#readStatus()
    if (!this.#readWanted()) this.#readAll()
  }

  #readStatus(): number {
    const start = this.#memory.toString('latin1', 0, Math.min(this.#length, statusAt + 3))
    if (/^HTTP\/1\.[01] \d{3}/.test(start)) return Number(start.slice(statusAt))
    throw new Error(`not an HTTP/1.1 response: ${JSON.stringify(start)}`)
  }

  /** Reads the few headers that every response is asked for. False: something is not as usual. */
  #readWanted(): boolean {
    const memory = this.#memory
    this.keepAlive = memory[statusAt - 2] === zero + 1
    this.contentLength = undefined
    this.contentRange = undefined
    this.transferEncoding = undefined
    let date: string | undefined
    for (let end = this.#lineEnd(0); end < this.#length; ) {
      const start = end + 2
      end = this.#lineEnd(start)
      const colon = memory.indexOf(colonByte, start)
      if (colon <= start || colon >= end) return false
      const nameBytes = colon - start
      if (nameBytes === 4 && this.#isName(start, 'date')) {
        if (date !== undefined) return false
        date = this.#dateOf(colon + 1, end)
      } else if (nameBytes === 13 && this.#isName(start, 'content-range')) {
        if (this.contentRange !== undefined) return false
        this.contentRange = this.#text(colon + 1, end)
      } else if (nameBytes === 14 && this.#isName(start, 'content-length')) {
        if (this.contentLength !== undefined) return false
        this.contentLength = this.#numberOf(colon + 1, end)
        if (this.contentLength === undefined) return false
      } else if (
        (nameBytes === 10 && this.#isName(start, 'connection')) ||
        (nameBytes === 17 && this.#isName(start, 'transfer-encoding'))
      ) {
        if (nameBytes === 17 || this.#text(colon + 1, end) !== 'keep-alive') return false
      }
    }
    this.date = date
    return this.keepAlive
  }

  #readAll(): void {
    const { headers } = this
    const connection = headers['connection']?.toLowerCase() ?? ''
    const isHttp11 = this.#memory[statusAt - 2] === zero + 1
    this.keepAlive = isHttp11 ? !connection.includes('close') : connection.includes('keep-alive')
    this.transferEncoding = headers['transfer-encoding']?.toLowerCase()
    this.contentRange = headers['content-range']
    this.date = headers['date']
    const length = headers['content-length']
    if (length === undefined) this.contentLength = undefined
    else this.contentLength = /^\d+$/.test(length) ? Number(length) : Number.NaN
  }

  /** Where the line ends that begins there. */
  #lineEnd(start: number): number {
    for (let at = start; ; at++) {
      at = this.#memory.indexOf(lineFeed, at)
      if (at < 0 || at > this.#length) return this.#length
      if (at > start && this.#memory[at - 1] === carriageReturn) return at - 1
    }
  }

  #isName(start: number, name: string): boolean {
    for (let index = 0; index < name.length; index++) {
      // Letters differ from their capitals in this bit, which a hyphen has, too.
      if ((this.#memory[start + index] | 0x20) !== name.charCodeAt(index)) return false
    }
    return true
  }

  #text(from: number, end: number): string {
    let [first, last] = [from, end]
    while (first < last && isBlank(this.#memory[first])) first++
    while (last > first && isBlank(this.#memory[last - 1])) last--
    return this.#memory.toString('latin1', first, last)
  }

  #numberOf(from: number, end: number): number | undefined {
    let first = from
    while (first < end && isBlank(this.#memory[first])) first++
    if (first === end || end - first > 15) return undefined
    let number = 0
    for (let at = first; at < end; at++) {
      const digit = this.#memory[at] - zero
      if (digit < 0 || digit > 9) return undefined
      number = number * 10 + digit
    }
    return number
  }

  /** The same string as long as the bytes are the same: many answers come in a second. */
  #dateOf(from: number, end: number): string {
    if (this.#dateBytes.compare(this.#memory, from, end) !== 0) {
      this.#dateBytes = Buffer.from(this.#memory.subarray(from, end))
      this.#dateText = this.#text(from, end)
    }
    return this.#dateText
  }
}

function isBlank(byte: number): boolean {
  return byte === space || byte === tab
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
