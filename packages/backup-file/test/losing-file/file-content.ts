const blockBytes = 4096

/** The bytes of a file that may have holes. Copies share the blocks that neither has changed since. */
export class FileContent {
  readonly #blocks: Map<number, Uint8Array>
  /** Blocks that no copy shares. */
  readonly #own = new Set<number>()
  #lengthBytes: number

  constructor(blocks: ReadonlyMap<number, Uint8Array> = new Map(), lengthBytes = 0) {
    this.#blocks = new Map(blocks)
    this.#lengthBytes = lengthBytes
  }

  get lengthBytes(): number {
    return this.#lengthBytes
  }

  copy(): FileContent {
    this.#own.clear()
    return new FileContent(this.#blocks, this.#lengthBytes)
  }

  /** Fills `into` as far as the file goes, and gives how many bytes those are. */
  read(into: Uint8Array, offsetBytes: number): number {
    const readBytes = Math.max(0, Math.min(into.byteLength, this.#lengthBytes - offsetBytes))
    eachBlock(offsetBytes, readBytes, (block, from, to, at) => {
      const found = this.#blocks.get(block)
      if (found === undefined) into.fill(0, at, at + to - from)
      else into.set(found.subarray(from, to), at)
    })
    return readBytes
  }

  write(bytes: Uint8Array, offsetBytes: number): void {
    eachBlock(offsetBytes, bytes.byteLength, (block, from, to, at) => {
      this.#change(block).set(bytes.subarray(at, at + to - from), from)
    })
    this.#lengthBytes = Math.max(this.#lengthBytes, offsetBytes + bytes.byteLength)
  }

  /** Zeros in place of what was there; the length stays. */
  punch(offsetBytes: number, lengthBytes: number): void {
    eachBlock(offsetBytes, lengthBytes, (block, from, to) => {
      if (to - from === blockBytes) this.#blocks.delete(block)
      else if (this.#blocks.has(block)) this.#change(block).fill(0, from, to)
    })
  }

  truncate(lengthBytes: number): void {
    if (lengthBytes < this.#lengthBytes) this.punch(lengthBytes, this.#lengthBytes - lengthBytes)
    this.#lengthBytes = lengthBytes
  }

  #change(block: number): Uint8Array {
    const found = this.#blocks.get(block)
    if (found !== undefined && this.#own.has(block)) return found
    const changed = new Uint8Array(blockBytes)
    if (found !== undefined) changed.set(found)
    this.#blocks.set(block, changed)
    this.#own.add(block)
    return changed
  }
}

function eachBlock(
  offsetBytes: number,
  lengthBytes: number,
  visit: (block: number, from: number, to: number, at: number) => void,
): void {
  for (let at = 0; at < lengthBytes; ) {
    const from = (offsetBytes + at) % blockBytes
    const to = Math.min(blockBytes, from + lengthBytes - at)
    visit(Math.floor((offsetBytes + at) / blockBytes), from, to, at)
    at += to - from
  }
}
