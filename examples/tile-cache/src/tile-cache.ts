import { isSpillwayError } from '@spillway/core'
import type { PagedBuffer, Pool } from '@spillway/pool'

/** A place in a pyramid of tiles: zoom, column and row. */
export interface Place {
  readonly z: number
  readonly x: number
  readonly y: number
}

export interface TileCacheOptions {
  /** Its limit is the memory for tiles, its backup has those that do not fit. */
  readonly pool: Pool
  /** Of all tiles together, in memory or not, in bytes: the ones that were asked for least recently go first. */
  readonly capacityBytes: number
  readonly render: (place: Place) => Promise<Uint8Array>
}

interface Tile {
  readonly buffer: Promise<PagedBuffer>
  /** What it takes, whole pages; 0 while it is rendered. */
  sizeBytes: number
  /** Who needs it; the cache itself is one of them. */
  users: number
}

/** Tiles by their place. Each is rendered when it is asked for first, once for all who ask meanwhile, and again when it was forgotten. */
export class TileCache {
  readonly #options: TileCacheOptions
  /** The least recently used first. */
  readonly #tiles = new Map<string, Tile>()
  usedBytes = 0

  constructor(options: TileCacheOptions) {
    this.#options = options
  }

  get count(): number {
    return this.#tiles.size
  }

  /** Rejects with what `render`, or the pool, said; the next call for the tile renders it then. */
  async get(place: Place): Promise<Uint8Array> {
    const name = `${place.z}/${place.x}/${place.y}`
    const tile = this.#tiles.get(name) ?? this.#render(place, name)
    this.#tiles.delete(name)
    this.#tiles.set(name, tile)
    tile.users++
    try {
      const buffer = await tile.buffer
      const bytes = new Uint8Array(buffer.sizeBytes)
      await buffer.read(0, bytes)
      return bytes
    } catch (failure) {
      if (this.#tiles.get(name) === tile) this.#forget(name, tile)
      throw failure
    } finally {
      this.#giveBack(tile)
    }
  }

  #render(place: Place, label: string): Tile {
    const buffer = this.#options.render(place).then((bytes) => this.#store(tile, bytes, label))
    const tile: Tile = { buffer, sizeBytes: 0, users: 1 }
    return tile
  }

  async #store(tile: Tile, bytes: Uint8Array, label: string): Promise<PagedBuffer> {
    const { pool, capacityBytes } = this.#options
    tile.sizeBytes = Math.ceil(bytes.byteLength / pool.pageSizeBytes) * pool.pageSizeBytes
    this.usedBytes += tile.sizeBytes
    this.#forgetDownTo(capacityBytes)
    const allocate = () => pool.allocate(bytes.byteLength, { from: bytes, label })
    return allocate().catch((failure) => {
      if (!isSpillwayError(failure) || failure.code !== 'ENOMEM') throw failure
      // The backup is full before the capacity is used up. That took a while to be sure of: make room for more than one.
      this.#forgetDownTo((this.usedBytes * 7) / 8)
      return allocate()
    })
  }

  #forgetDownTo(usedBytes: number): void {
    for (const [name, tile] of this.#tiles) {
      if (this.usedBytes <= usedBytes) return
      this.#forget(name, tile)
    }
  }

  #forget(name: string, tile: Tile): void {
    this.#tiles.delete(name)
    this.#giveBack(tile)
  }

  #giveBack(tile: Tile): void {
    if (--tile.users > 0) return
    this.usedBytes -= tile.sizeBytes
    tile.buffer.then(
      (buffer) => buffer.free(),
      () => {}, // who asked for it was told
    )
  }
}
