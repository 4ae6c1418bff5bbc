import { createHash, type Hash } from 'node:crypto'
// Not by name: a Node without it has to get as far as the message that it is too old.
import * as zlib from 'node:zlib'
import { UploadBody } from '../http/upload-body.ts'
import { appendPage, pageSeed, segmentSeed, type ZeroAdvance } from './checksum.ts'
import { footerBytes, type RootPart, writeFooter } from './segment-format.ts'

/** What is worth doing at one go before the event loop gets a turn: about half a millisecond. */
export const sliceBytes = 512 * 1024
/** What is hashed and summed before the next: it is still in the processor's cache for the second. */
const warmBytes = 64 * 1024

/** What is known of a segment when its body is whole. */
export interface SegmentSums {
  readonly checksums: Uint32Array
  /** CRC-32 of the whole body. */
  readonly checksum: number
  /** SHA-256 of the whole body in hex; undefined when it is not wanted. */
  readonly sha256: string | undefined
  /** Tells this upload from any other. */
  readonly identity: string
}

/**
 * A segment that is being filled. Without memory of its own it keeps the pieces that it is given, which nobody changes
 * before the segment was sent; with memory it copies them there. Every byte is hashed and summed once, while it is warm.
 */
export class SegmentBuilder {
  readonly epoch: string
  readonly number: number
  readonly generation: number
  readonly capacityPages: number
  readonly body = new UploadBody()
  pages = 0
  readonly #memory: Buffer | undefined
  readonly #pageSizeBytes: number
  readonly #zeros: ZeroAdvance
  readonly #seed: number
  readonly #checksums: Uint32Array
  readonly #hash: Hash | undefined
  #checksum = 0

  constructor(
    place: { epoch: string; number: number; generation: number },
    settings: { pageSizeBytes: number; pagesPerSegment: number; payloadSigning: 'sha256' | 'unsigned' },
    zeros: ZeroAdvance,
    memory?: Buffer,
  ) {
    this.epoch = place.epoch
    this.number = place.number
    this.generation = place.generation
    this.capacityPages = settings.pagesPerSegment
    this.#pageSizeBytes = settings.pageSizeBytes
    this.#zeros = zeros
    this.#memory = memory
    this.#seed = segmentSeed(place.epoch, place.number, place.generation)
    this.#checksums = new Uint32Array(settings.pagesPerSegment)
    this.#hash = settings.payloadSigning === 'sha256' ? createHash('sha256') : undefined
  }

  get freePages(): number {
    return this.capacityPages - this.pages
  }

  /** Adds whole pages, at most a slice and at most what is free. */
  add(bytes: Uint8Array): void {
    if (this.#memory !== undefined) {
      this.#memory.set(bytes, this.pages * this.#pageSizeBytes)
      this.addInPlace(bytes.byteLength / this.#pageSizeBytes)
    } else {
      this.#sum(bytes)
      this.body.add(bytes)
    }
  }

  /** Takes pages in that lie in the segment's own memory already, after those that were added. */
  addInPlace(pages: number): void {
    const size = this.#pageSizeBytes
    this.#sum(this.#memory!.subarray(this.pages * size, (this.pages + pages) * size))
  }

  #sum({ buffer, byteOffset, byteLength }: Uint8Array): void {
    const size = this.#pageSizeBytes
    const pagesAtOnce = Math.max(1, Math.floor(warmBytes / size))
    for (let offset = 0; offset < byteLength; ) {
      const pages = Math.min(pagesAtOnce, (byteLength - offset) / size)
      this.#hash?.update(new Uint8Array(buffer, byteOffset + offset, pages * size))
      let running = this.#checksum
      for (const end = this.pages + pages; this.pages < end; this.pages++, offset += size) {
        const seed = pageSeed(this.#seed, this.pages)
        const checksum = zlib.crc32(new Uint8Array(buffer, byteOffset + offset, size), seed)
        this.#checksums[this.pages] = checksum
        running = appendPage(running, checksum, seed, this.#zeros)
      }
      this.#checksum = running
    }
  }

  /** Adds the footer. Without `roots` the pages get handles of this segment's own number. */
  finish(roots?: readonly RootPart[]): SegmentSums {
    const checksums = this.#checksums.slice(0, this.pages)
    const pagesBytes = this.pages * this.#pageSizeBytes
    const parts = roots ?? [{ number: this.number, pages: this.pages }]
    const end = pagesBytes + footerBytes(this.pages, parts)
    const footer = this.#memory?.subarray(pagesBytes, end) ?? Buffer.allocUnsafe(end - pagesBytes)
    writeFooter(footer, this.epoch, {
      number: this.number,
      generation: this.generation,
      pageSizeBytes: this.#pageSizeBytes,
      checksums,
      roots: parts,
    })
    this.body.add(this.#memory?.subarray(0, end) ?? footer)
    const checksum = zlib.crc32(footer, this.#checksum)
    return {
      checksums,
      checksum,
      sha256: this.#hash?.update(footer).digest('hex'),
      identity: `${this.number}-${this.generation}-${checksum}-${end}`,
    }
  }
}
