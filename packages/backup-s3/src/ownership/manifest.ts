import { createHash } from 'node:crypto'
// Not by name: a Node without it has to get as far as the message that it is too old.
import * as zlib from 'node:zlib'
import { yieldToEventLoop } from '@spillway/core'
import { sliceBytes } from '../segments/segment-builder.ts'
import type { Root, SegmentObject, SegmentTable } from '../segments/segment-table.ts'

/**
 * The table of a persistent store, written at opening, at closing and now and then between, and named by the head. Never
 * changed. Checksums are not in it: they are read from a segment's footer when it is first used. What was written after
 * the last manifest is found by listing, since segments describe themselves; only drops since then are forgotten.
 *
 *   JSON length u32 │ JSON │ live bits of every root, survivors of every moved root │ CRC-32 u32
 */

export interface ManifestHead {
  readonly format: 1
  readonly epoch: string
  readonly pageSizeBytes: number
  /** The number that the next segment would have had … */
  readonly nextNumber: number
  /** … and the smaller ones that were still being written. */
  readonly underway: readonly number[]
  /** Numbers of segments that could not be read: left where they are, and tried again at the next opening. */
  readonly damaged?: readonly number[]
}

/** An object: epoch, number, generation, pages, bytes. */
export type ObjectEntry = readonly [string, number, number, number, number]
/** A root: number, index of its object, base, words of live bits, words of survivors. */
export type RootEntry = readonly [number, number, number, number, number]

/** What the JSON consists of: the head, less its last brace, and the two lists. */
export const objectsMark = ',"objects":['
export const rootsMark = '],"roots":['
export const jsonEnd = ']}'

export interface Manifest {
  readonly epoch: string
  readonly pageSizeBytes: number
  readonly nextNumber: number
  readonly underway: ReadonlySet<number>
  readonly damaged: ReadonlySet<number>
  readonly objects: readonly SegmentObject[]
  readonly roots: readonly Root[]
}

export interface EncodedManifest {
  readonly body: Buffer
  /** CRC-32 of the whole body. */
  readonly checksum: number
  /** SHA-256 of the whole body in hex. */
  readonly sha256: string
}

/** Roots that are described before the event loop gets a turn. */
const rootsPerSlice = 512

/**
 * Describes the table as it is when this is called, a slice at a time. What goes on meanwhile does no harm: pages that
 * are dropped may be in it or not, and what lies in segments from `nextNumber` on, or in those under way, is left out,
 * as these speak for themselves. A root that is moved there is in it at its old place, or not at all.
 */
export async function encodeManifest(
  table: SegmentTable,
  about: Omit<ManifestHead, 'format'>,
): Promise<EncodedManifest> {
  const underway = new Set(about.underway)
  const objects: SegmentObject[] = []
  const rootTexts = new SlicedText()
  const bits: Buffer[] = []
  let words: Buffer[] = []
  let wordBytes = 0
  for (const { number, object, base, live, survivors } of table.roots.values()) {
    if (object.number >= about.nextNumber || underway.has(object.number)) continue
    if (objects[object.manifestPlace] !== object) object.manifestPlace = objects.push(object) - 1
    rootTexts.add(
      `[${number},${object.manifestPlace},${base},${live.words.length},${survivors?.words.length ?? 0}]`,
    )
    for (const set of survivors === undefined ? [live] : [live, survivors]) {
      words.push(Buffer.from(set.words.buffer, set.words.byteOffset, set.words.byteLength))
      wordBytes += set.words.byteLength
    }
    if (rootTexts.waiting < rootsPerSlice && wordBytes < sliceBytes) continue
    // Copied before the event loop turns: afterwards they may have changed.
    bits.push(Buffer.concat(words, wordBytes))
    words = []
    wordBytes = 0
    rootTexts.cut()
    await yieldToEventLoop()
  }
  bits.push(Buffer.concat(words, wordBytes))
  const objectTexts = new SlicedText()
  for (const { epoch, number, generation, pages, bytes } of objects) {
    objectTexts.add(`[${JSON.stringify(epoch)},${number},${generation},${pages},${bytes}]`)
    if (objectTexts.waiting < rootsPerSlice) continue
    objectTexts.cut()
    await yieldToEventLoop()
  }
  const start = JSON.stringify({ format: 1, ...about }).slice(0, -1)
  const json = [
    Buffer.from(start + objectsMark),
    ...objectTexts.finish(),
    Buffer.from(rootsMark),
    ...rootTexts.finish(),
    Buffer.from(jsonEnd),
  ]
  const length = Buffer.alloc(4)
  length.writeUInt32LE(json.reduce((sum, part) => sum + part.length, 0))
  return assemble([length, ...json, ...bits])
}

/** Elements of a JSON array, gathered into buffers. */
class SlicedText {
  /** Elements since the last cut. */
  waiting = 0
  #text = ''
  readonly #parts: Buffer[] = []

  add(element: string): void {
    this.#text += this.waiting === 0 && this.#parts.length === 0 ? element : `,${element}`
    this.waiting++
  }

  cut(): void {
    if (this.waiting > 0) this.#parts.push(Buffer.from(this.#text))
    this.#text = ''
    this.waiting = 0
  }

  finish(): readonly Buffer[] {
    this.cut()
    return this.#parts
  }
}

/** Joins the parts, with their CRC-32 behind them, and sums the whole up. */
async function assemble(parts: readonly Buffer[]): Promise<EncodedManifest> {
  const bytes = parts.reduce((sum, part) => sum + part.length, 0)
  // A turn of its own: getting this much memory can set off a collection.
  await yieldToEventLoop()
  const body = Buffer.allocUnsafeSlow(bytes + 4)
  await yieldToEventLoop()
  const hash = createHash('sha256')
  let checksum = 0
  let offset = 0
  let turnAt = sliceBytes
  for (const part of parts) {
    body.set(part, offset)
    checksum = zlib.crc32(part, checksum)
    hash.update(part)
    offset += part.length
    if (offset < turnAt) continue
    turnAt = offset + sliceBytes
    await yieldToEventLoop()
  }
  const end = body.subarray(bytes)
  end.writeUInt32LE(checksum)
  return { body, checksum: zlib.crc32(end, checksum), sha256: hash.update(end).digest('hex') }
}
