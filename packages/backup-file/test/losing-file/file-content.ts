/** What a disk writes whole or not at all. */
export const sectorBytes = 512

/** Bytes of a file that nobody alters any more: 512, or fewer where the file ends. */
export class Sector {
  readonly bytes: Uint8Array
  #key: string | undefined

  constructor(bytes: Uint8Array) {
    this.bytes = bytes
  }

  /** The bytes, as something that can be the key of a map. */
  get key(): string {
    this.#key ??= Buffer.from(this.bytes.buffer, this.bytes.byteOffset, this.bytes.byteLength).toString(
      'latin1',
    )
    return this.#key
  }
}

const zeros = new Sector(new Uint8Array(sectorBytes))
const beyondEnd = new Sector(new Uint8Array(0))

/** The sectors of bytes that were written: one write goes to the contents of many crash states. */
const sectorsOfWrites = new WeakMap<Uint8Array, readonly Sector[]>()

/** The bytes of a small file that may have holes. Copies share the sectors. */
export class FileContent {
  /** None for a hole. */
  readonly #sectors: (Sector | undefined)[]
  #lengthBytes: number

  constructor(sectors: readonly (Sector | undefined)[] = [], lengthBytes = 0) {
    this.#sectors = sectors.slice()
    this.#lengthBytes = lengthBytes
  }

  get lengthBytes(): number {
    return this.#lengthBytes
  }

  copy(): FileContent {
    return new FileContent(this.#sectors, this.#lengthBytes)
  }

  /** So much of a sector as the file has: 512 bytes, fewer at its end, none beyond. */
  sectorAt(index: number): Sector {
    const leftBytes = this.#lengthBytes - index * sectorBytes
    if (leftBytes <= 0) return beyondEnd
    const sector = this.#sectors[index] ?? zeros
    return leftBytes < sectorBytes ? new Sector(sector.bytes.subarray(0, leftBytes)) : sector
  }

  /** Fills `into` as far as the file goes, and gives how many bytes those are. */
  read(into: Uint8Array, offsetBytes: number): number {
    const readBytes = Math.max(0, Math.min(into.byteLength, this.#lengthBytes - offsetBytes))
    eachSector(offsetBytes, readBytes, (index, from, to, at) => {
      into.set((this.#sectors[index] ?? zeros).bytes.subarray(from, to), at)
    })
    return readBytes
  }

  /** Keeps `bytes`, which must not be altered afterwards. `isThere` says which sectors of them are written; default: all. */
  write(bytes: Uint8Array, offsetBytes: number, isThere?: readonly boolean[]): void {
    const sectors = sectorsOf(bytes)
    for (let index = 0; index < sectors.length; index++) {
      if (isThere === undefined || isThere[index])
        this.#put(sectors[index]!, offsetBytes + index * sectorBytes)
    }
  }

  /** Zeros in place of what was there; the length stays. */
  punch(offsetBytes: number, lengthBytes: number): void {
    eachSector(offsetBytes, lengthBytes, (index, from, to) => {
      if (to - from === sectorBytes) this.#sectors[index] = undefined
      else this.#change(index, (sector) => sector.fill(0, from, to))
    })
  }

  truncate(lengthBytes: number): void {
    if (lengthBytes < this.#lengthBytes) this.punch(lengthBytes, this.#lengthBytes - lengthBytes)
    this.#lengthBytes = lengthBytes
  }

  #put(sector: Sector, offsetBytes: number): void {
    const { bytes } = sector
    if (offsetBytes % sectorBytes === 0 && bytes.byteLength === sectorBytes)
      this.#sectors[offsetBytes / sectorBytes] = sector
    else {
      eachSector(offsetBytes, bytes.byteLength, (index, from, to, at) => {
        this.#change(index, (changed) => changed.set(bytes.subarray(at, at + to - from), from))
      })
    }
    this.#lengthBytes = Math.max(this.#lengthBytes, offsetBytes + bytes.byteLength)
  }

  #change(index: number, change: (bytes: Uint8Array) => void): void {
    const bytes = (this.#sectors[index] ?? zeros).bytes.slice()
    change(bytes)
    this.#sectors[index] = new Sector(bytes)
  }
}

function sectorsOf(bytes: Uint8Array): readonly Sector[] {
  const known = sectorsOfWrites.get(bytes)
  if (known !== undefined) return known
  const sectors: Sector[] = []
  for (let at = 0; at < bytes.byteLength; at += sectorBytes)
    sectors.push(new Sector(bytes.subarray(at, at + sectorBytes)))
  sectorsOfWrites.set(bytes, sectors)
  return sectors
}

function eachSector(
  offsetBytes: number,
  lengthBytes: number,
  visit: (index: number, from: number, to: number, at: number) => void,
): void {
  for (let at = 0; at < lengthBytes; ) {
    const from = (offsetBytes + at) % sectorBytes
    const to = Math.min(sectorBytes, from + lengthBytes - at)
    visit(Math.floor((offsetBytes + at) / sectorBytes), from, to, at)
    at += to - from
  }
}
