// Not by name: a Node without it has to get as far as the message that it is too old.
import * as zlib from 'node:zlib'
import { SpillwayError } from '@spillway/core'
import { segmentSeed } from './checksum.ts'

/**
 * A segment is one object. The pages come first, so a page's offset is its slot times the page size; the footer tells
 * everything that an attaching process has to know, so a segment needs no other object to be understood.
 *
 *   page 0 │ page 1 │ … │ page n−1 │ checksums 4·n │ roots │ trailer 48
 *
 *   root:    number u64, pages u32, listed u32, and when listed: the page's place in that root, u32 each
 *   trailer: magic 8, number u64, generation u32, page size u32, pages u32, roots u32, footer bytes u32, 0 u32,
 *            CRC-32 of the footer before it, bound to epoch and number, u32, 0 u32
 *
 * A root says whose handles the pages carry. A segment that was written by `backupPages` has one root, itself; one
 * that was written by compaction carries the pages of several, each in ascending order (compaction.ts).
 */

const magic = Buffer.from('SPILLWS1', 'latin1')
export const trailerBytes = 48
const rootBytes = 16

/** The pages in a segment that belong to one root. */
export interface RootPart {
  readonly number: number
  readonly pages: number
  /** The places of these pages in the root, ascending; undefined: 0, 1, 2, … */
  readonly places?: Uint32Array | undefined
}

export interface SegmentFooter {
  readonly number: number
  readonly generation: number
  readonly pageSizeBytes: number
  readonly checksums: Uint32Array
  readonly roots: readonly RootPart[]
}

/** Bytes of the footer of a segment. */
export function footerBytes(pages: number, roots: readonly RootPart[]): number {
  let bytes = trailerBytes + 4 * pages
  for (const root of roots) bytes += rootBytes + (root.places === undefined ? 0 : 4 * root.pages)
  return bytes
}

/** The most a footer can take: compaction, every page of another root. */
export function maxFooterBytes(pages: number): number {
  return trailerBytes + pages * (4 + rootBytes + 4)
}

/** Writes the footer into `target` at its beginning and returns its length. */
export function writeFooter(target: Buffer, epoch: string, footer: SegmentFooter): number {
  const pages = footer.checksums.length
  const length = footerBytes(pages, footer.roots)
  let offset = 0
  for (const checksum of footer.checksums) offset = target.writeUInt32LE(checksum, offset)
  for (const root of footer.roots) {
    offset = target.writeBigUInt64LE(BigInt(root.number), offset)
    offset = target.writeUInt32LE(root.pages, offset)
    offset = target.writeUInt32LE(root.places === undefined ? 0 : 1, offset)
    for (const place of root.places ?? []) offset = target.writeUInt32LE(place, offset)
  }
  offset += magic.copy(target, offset)
  offset = target.writeBigUInt64LE(BigInt(footer.number), offset)
  offset = target.writeUInt32LE(footer.generation, offset)
  offset = target.writeUInt32LE(footer.pageSizeBytes, offset)
  offset = target.writeUInt32LE(pages, offset)
  offset = target.writeUInt32LE(footer.roots.length, offset)
  offset = target.writeUInt32LE(length, offset)
  offset = target.writeUInt32LE(0, offset)
  const checksum = zlib.crc32(
    target.subarray(0, offset),
    segmentSeed(epoch, footer.number, footer.generation),
  )
  offset = target.writeUInt32LE(checksum, offset)
  target.writeUInt32LE(0, offset)
  return length
}

/** How many bytes the footer has, from the last bytes of the object; undefined when they are no trailer. */
export function footerLength(tail: Buffer): number | undefined {
  const at = tail.length - trailerBytes
  if (at < 0 || !tail.subarray(at, at + 8).equals(magic)) return undefined
  return tail.readUInt32LE(at + 32)
}

/** Reads a footer from the end of `tail`. Throws `EBADMSG` when it is not the footer of that segment. */
export function readFooter(tail: Buffer, epoch: string, number: number): SegmentFooter {
  const broken = (why: string) =>
    new SpillwayError('EBADMSG', `the footer of segment ${epoch}/${number} ${why}`)
  const length = footerLength(tail)
  if (length === undefined) throw broken('is missing')
  if (length > tail.length || length < trailerBytes) throw broken(`claims ${length} bytes`)
  const footer = tail.subarray(tail.length - length)
  const at = length - trailerBytes
  const found = Number(footer.readBigUInt64LE(at + 8))
  const generation = footer.readUInt32LE(at + 16)
  const checksum = zlib.crc32(footer.subarray(0, at + 40), segmentSeed(epoch, number, generation))
  if (found !== number || footer.readUInt32LE(at + 40) !== checksum)
    throw broken('does not match its checksum')
  const pages = footer.readUInt32LE(at + 24)
  const rootCount = footer.readUInt32LE(at + 28)
  const checksums = new Uint32Array(pages)
  let offset = 0
  for (let slot = 0; slot < pages; slot++, offset += 4) checksums[slot] = footer.readUInt32LE(offset)
  const roots: RootPart[] = []
  for (let index = 0; index < rootCount; index++) {
    const rootNumber = Number(footer.readBigUInt64LE(offset))
    const rootPages = footer.readUInt32LE(offset + 8)
    const listed = footer.readUInt32LE(offset + 12) === 1
    offset += rootBytes
    let places: Uint32Array | undefined
    if (listed) {
      places = new Uint32Array(rootPages)
      for (let page = 0; page < rootPages; page++, offset += 4) places[page] = footer.readUInt32LE(offset)
    }
    roots.push({ number: rootNumber, pages: rootPages, places })
  }
  return { number, generation, pageSizeBytes: footer.readUInt32LE(at + 20), checksums, roots }
}
