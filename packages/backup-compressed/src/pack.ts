/** What a unit has become: which pages of its window are in it, and where in the pack its bytes are. */
export interface BuiltUnit {
  /** The how many-th window of the pack. */
  readonly window: number
  /** A bit for each page of the window that is in the unit. */
  readonly pages: number
  readonly startBytes: number
  /** As many as its pages have where it is stored plain. */
  readonly lengthBytes: number
}

export interface PackParts {
  readonly id: number
  readonly pageSizeBytes: number
  readonly unitPages: number
  /** The number of the first page of its first window. */
  readonly firstNumber: number
  readonly windows: number
  readonly units: readonly BuiltUnit[]
  /** Bytes of all units. */
  readonly lengthBytes: number
}

const fields = 4
const [startField, lengthField, pagesField, liveField] = [0, 1, 2, 3]

/**
 * Compressed units, one after the other, in whole pages of the inner backup:
 *
 *   numbers   first … first + 15 │ … │ …             windows of as many pages as a unit has, each with at most one unit
 *   bytes     ├ unit ┤├─ unit ─┤├ unit ┤             a page of the inner backup holds pieces of one or more
 *
 * A page of the inner backup is needed as long as one of the units in it has a live page. 16 bytes for each unit, some 300 for the pack.
 */
export class Pack {
  readonly id: number
  readonly firstNumber: number
  readonly pageCount: number
  /** Pages of a window. */
  readonly unitPages: number
  /** The first of its pages in the inner backup, by the numbers that are used for those. */
  firstInnerPage = 0
  /** Its bytes, while there is no room for them in the inner backup. */
  memory: Uint8Array | undefined
  /** Copies under way that read it. */
  readers = 0
  /** Whether another pack has taken its place; its pages are dropped with the last reader. */
  isReplaced = false
  /** Pages of the inner backup that it still needs. */
  heldPages: number
  readonly #units: Uint32Array
  readonly #pageSizeBytes: number
  /** Units with live pages in each page of the inner backup; made when it is first asked for. */
  #uses: Uint16Array | undefined

  constructor(parts: PackParts) {
    this.id = parts.id
    this.firstNumber = parts.firstNumber
    this.unitPages = parts.unitPages
    this.#pageSizeBytes = parts.pageSizeBytes
    this.pageCount = Math.ceil(parts.lengthBytes / parts.pageSizeBytes)
    this.heldPages = this.pageCount
    this.#units = new Uint32Array(parts.windows * fields)
    for (const { window, pages, startBytes, lengthBytes } of parts.units) {
      this.#units.set([startBytes, lengthBytes, pages, pages], window * fields)
    }
  }

  get metadataBytes(): number {
    return 300 + this.#units.byteLength + (this.#uses?.byteLength ?? 0)
  }

  get windows(): number {
    return this.#units.length / fields
  }

  windowOf(position: number): number {
    return Math.floor(position / this.unitPages)
  }

  startOf(window: number): number {
    return this.#units[window * fields + startField]
  }

  lengthOf(window: number): number {
    return this.#units[window * fields + lengthField]
  }

  /** Bits of the pages that are in the unit of a window. */
  pagesOf(window: number): number {
    return this.#units[window * fields + pagesField]
  }

  /** Bits of those that are live. */
  liveOf(window: number): number {
    return this.#units[window * fields + liveField]
  }

  /** The how many-th page of its unit a page is. */
  placeInUnit(position: number): number {
    const bit = position % this.unitPages
    return countOnes(this.pagesOf(this.windowOf(position)) & ((1 << bit) - 1))
  }

  /** Bytes of a unit before it was compressed. */
  contentBytes(window: number): number {
    return countOnes(this.pagesOf(window)) * this.#pageSizeBytes
  }

  /** Bytes that its live pages need, as if each had an equal share of its unit. */
  get liveBytes(): number {
    let bytes = 0
    for (let window = 0; window < this.windows; window++) {
      const live = this.liveOf(window)
      if (live !== 0) bytes += (this.lengthOf(window) * countOnes(live)) / countOnes(this.pagesOf(window))
    }
    return bytes
  }

  get isDead(): boolean {
    for (let window = 0; window < this.windows; window++) if (this.liveOf(window) !== 0) return false
    return true
  }

  /** Whether a page of the inner backup, from 0, is needed by a live page. */
  uses(innerPage: number): boolean {
    return this.#usesOf()[innerPage] > 0
  }

  /** A page is not live any more. Calls back with each page of the inner backup, from 0, that is not needed any more. */
  release(position: number, onUnused: (innerPage: number) => void): void {
    const uses = this.#usesOf()
    const window = this.windowOf(position)
    const at = window * fields + liveField
    this.#units[at] &= ~(1 << (position % this.unitPages))
    if (this.#units[at] !== 0) return
    this.#eachInnerPage(window, (page) => {
      if (--uses[page] > 0) return
      this.heldPages--
      onUnused(page)
    })
  }

  /** Takes `release` back, before the pages of the inner backup are gone. */
  revive(position: number): void {
    const uses = this.#usesOf()
    const window = this.windowOf(position)
    const at = window * fields + liveField
    const wasDead = this.#units[at] === 0
    this.#units[at] |= 1 << (position % this.unitPages)
    if (!wasDead) return
    this.#eachInnerPage(window, (page) => {
      if (uses[page]++ === 0) this.heldPages++
    })
  }

  #usesOf(): Uint16Array {
    if (this.#uses !== undefined) return this.#uses
    const uses = new Uint16Array(this.pageCount)
    for (let window = 0; window < this.windows; window++) {
      if (this.liveOf(window) !== 0) this.#eachInnerPage(window, (page) => uses[page]++)
    }
    this.#uses = uses
    return uses
  }

  #eachInnerPage(window: number, visit: (page: number) => void): void {
    const start = this.startOf(window)
    const last = Math.floor((start + this.lengthOf(window) - 1) / this.#pageSizeBytes)
    for (let page = Math.floor(start / this.#pageSizeBytes); page <= last; page++) visit(page)
  }
}

export function countOnes(bits: number): number {
  let left = bits >>> 0
  let ones = 0
  for (; left !== 0; ones++) left = (left & (left - 1)) >>> 0
  return ones
}
