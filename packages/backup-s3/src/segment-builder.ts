import { createHash, type Hash } from 'node:crypto'
import { crc32 } from 'node:zlib'
import { appendPage, pageSeed, segmentSeed, type ZeroAdvance } from './checksum.ts'
import { footerBytes, type RootPart, writeFooter } from './segment-format.ts'

/** What is worth doing at one go before the event loop gets a turn: about half a millisecond. */
export const sliceBytes = 512 * 1024

/** A finished object, ready to be sent. */
export interface BuiltSegment {
  readonly body: Buffer
  readonly checksums: Uint32Array
  /** CRC-32 of the whole body. */
  readonly checksum: number
  /** SHA-256 of the whole body in hex; undefined when it is not wanted. */
  readonly sha256: string | undefined
  /** Tells this upload from any other. */
  readonly identity: string
}

/** A segment that is being filled, in one buffer of the pool. Every byte is copied, summed and hashed while it is hot. */
export class SegmentBuilder {
  readonly epoch: string
  readonly number: number
  readonly generation: number
  readonly capacityPages: number
  readonly buffer: Buffer
  pages = 0
  readonly #pageSizeBytes: number
  readonly #zeros: ZeroAdvance
  readonly #seed: number
  readonly #checksums: Uint32Array
  readonly #hash: Hash | undefined
  #checksum = 0

  constructor(
    place: { epoch: string; number: number; generation: number },
    buffer: Buffer,
    settings: { pageSizeBytes: number; pagesPerSegment: number; payloadSigning: 'sha256' | 'unsigned' },
    zeros: ZeroAdvance,
  ) {
    this.epoch = place.epoch
    this.number = place.number
    this.generation = place.generation
    this.buffer = buffer
    this.capacityPages = settings.pagesPerSegment
    this.#pageSizeBytes = settings.pageSizeBytes
    this.#zeros = zeros
    this.#seed = segmentSeed(place.epoch, place.number, place.generation)
    this.#checksums = new Uint32Array(settings.pagesPerSegment)
    this.#hash = settings.payloadSigning === 'sha256' ? createHash('sha256') : undefined
  }

  get freePages(): number {
    return this.capacityPages - this.pages
  }

  /** Adds whole pages, at most a slice and at most what is free. */
  add(bytes: Uint8Array): void {
    this.buffer.set(bytes, this.pages * this.#pageSizeBytes)
    this.addInPlace(bytes.byteLength / this.#pageSizeBytes)
  }

  /** Takes pages in that lie in the buffer already, after those that were added. */
  addInPlace(pages: number): void {
    const size = this.#pageSizeBytes
    const start = this.pages * size
    this.#hash?.update(this.buffer.subarray(start, start + pages * size))
    let running = this.#checksum
    for (let slot = this.pages; slot < this.pages + pages; slot++) {
      const seed = pageSeed(this.#seed, slot)
      const checksum = crc32(this.buffer.subarray(slot * size, (slot + 1) * size), seed)
      this.#checksums[slot] = checksum
      running = appendPage(running, checksum, seed, this.#zeros)
    }
    this.#checksum = running
    this.pages += pages
  }

  /** Writes the footer. Without `roots` the pages get handles of this segment's own number. */
  finish(roots?: readonly RootPart[]): BuiltSegment {
    const checksums = this.#checksums.slice(0, this.pages)
    const pagesBytes = this.pages * this.#pageSizeBytes
    const parts = roots ?? [{ number: this.number, pages: this.pages }]
    const end = pagesBytes + footerBytes(this.pages, parts)
    const footer = this.buffer.subarray(pagesBytes, end)
    writeFooter(footer, this.epoch, {
      number: this.number,
      generation: this.generation,
      pageSizeBytes: this.#pageSizeBytes,
      checksums,
      roots: parts,
    })
    const checksum = crc32(footer, this.#checksum)
    return {
      body: this.buffer.subarray(0, end),
      checksums,
      checksum,
      sha256: this.#hash?.update(footer).digest('hex'),
      identity: `${this.number}-${this.generation}-${checksum}-${end}`,
    }
  }
}
