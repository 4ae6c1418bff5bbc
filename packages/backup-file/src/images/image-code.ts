import { ByteReader, ByteWriter, type HandleRun, HandleRuns } from '@spillway/core'
import { sumBytes } from './store-file.ts'

/** Where a block of metadata lies, and how to tell that it is the one that was meant. */
export interface Reference {
  /** Slots, as handles. */
  readonly runs: readonly HandleRun[]
  readonly lengthBytes: number
  readonly sum: Uint8Array
}

/** Bytes of metadata: themselves where they are few, so that they lie in the node, else where they lie. */
export type Piece = Uint8Array | Reference

/** Most bytes that lie in the node. */
export const mostInlineBytes = 64

/** What the lowest nodes have of each block of the body of an image. */
export interface BlockEntry {
  /** The bytes of the block. */
  readonly body: Piece
  /** The pages that it keeps: no bytes for none. */
  readonly pages: Piece
}

/** Pages that a block of an image keeps, and the sum of each, in order: words of 32 bits, the lowest byte first. */
export interface KeptPages {
  readonly keeps: HandleRuns
  readonly sums: Uint8Array
}

/** Entries, or references, of one node. */
export const nodeEntries = 64

export function isReference(piece: Piece): piece is Reference {
  return 'runs' in piece
}

export function encodePages(keeps: HandleRuns, sums: Int32Array): Uint8Array {
  const writer = new ByteWriter()
  if (keeps.length === 0) return writer.bytes
  writer.number(keeps.length)
  writer.number(keeps.counts === undefined ? 0 : 1)
  if (keeps.counts !== undefined) for (const count of keeps.counts) writer.number(count)
  writer.column(keeps.firsts)
  for (const sum of sums) writer.word(sum)
  return writer.bytes
}

/** Views of the bytes, but for the runs. Throws `RangeError` for what `encodePages` did not make. */
export function decodePages(bytes: Uint8Array): KeptPages {
  if (bytes.byteLength === 0) return { keeps: HandleRuns.of([]), sums: bytes }
  const reader = new ByteReader(bytes)
  const length = reader.number()
  const counts = reader.number() === 0 ? undefined : Float64Array.from({ length }, () => reader.number())
  const keeps = new HandleRuns(reader.column(length), counts)
  return { keeps, sums: reader.raw(keeps.handleCount * 4) }
}

/** A node above blocks. */
export function encodeEntries(entries: readonly BlockEntry[]): Uint8Array {
  const writer = new ByteWriter()
  writer.number(entries.length)
  for (const { body, pages } of entries) {
    writePiece(writer, body)
    writePiece(writer, pages)
  }
  return writer.bytes
}

/** Throws `RangeError` for what `encodeEntries` did not make. */
export function decodeEntries(block: Uint8Array): BlockEntry[] {
  const reader = new ByteReader(block)
  return Array.from({ length: reader.number() }, () => ({
    body: readPiece(reader),
    pages: readPiece(reader),
  }))
}

/** A node above nodes. */
export function encodeReferences(references: readonly Reference[]): Uint8Array {
  const writer = new ByteWriter()
  writer.number(references.length)
  for (const reference of references) writeReference(writer, reference)
  return writer.bytes
}

/** Throws `RangeError` for what `encodeReferences` did not make. */
export function decodeReferences(block: Uint8Array): Reference[] {
  const reader = new ByteReader(block)
  return Array.from({ length: reader.number() }, () => readReference(reader))
}

/** What a reference begins with that lies elsewhere: longer than anything that lies in the node. */
const elsewhere = mostInlineBytes + 1

function writePiece(writer: ByteWriter, piece: Piece): void {
  if (isReference(piece)) {
    writer.number(elsewhere)
    writeReference(writer, piece)
  } else {
    writer.number(piece.byteLength)
    writer.raw(piece)
  }
}

function readPiece(reader: ByteReader): Piece {
  const length = reader.number()
  if (length > elsewhere) throw new RangeError(`${length} bytes in a node`)
  return length === elsewhere ? readReference(reader) : reader.raw(length).slice()
}

export function writeReference(writer: ByteWriter, { runs, lengthBytes, sum }: Reference): void {
  writer.number(runs.length)
  for (const { first, count } of runs) {
    writer.number(first)
    writer.number(count)
  }
  writer.number(lengthBytes)
  writer.raw(sum)
}

export function readReference(reader: ByteReader): Reference {
  const length = reader.number()
  const runs = Array.from({ length }, () => ({ first: reader.number(), count: reader.number() }))
  return { runs, lengthBytes: reader.number(), sum: reader.raw(sumBytes).slice() }
}
