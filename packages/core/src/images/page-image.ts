import { SpillwayError } from '../errors.ts'
import { countOnes } from '../slots/bits.ts'
import { maxHandle } from '../tagging.ts'
import { assertPageSize } from '../validation.ts'
import { ByteReader, ByteWriter, checksum } from './byte-code.ts'

/**
 * The body of an image of a buffer, in blocks, so that a save writes only what changed:
 *
 *   block 0   what the buffer is
 *   block n   where its pages from (n − 1) × 512 on are stored; no bytes where none of them is
 *               by run     page, count and handle of each run
 *               by page    a bit for each page that is stored, and their handles: shorter where runs are short
 *
 * Each block that has bytes begins with a mark, the version, and its number, and ends with a checksum.
 */
export interface PageImage extends ImageHead {
  /** Stored pages in rising order; pages in none of the runs are empty. */
  readonly runs: readonly PageRun[]
}

/** What a buffer is. */
export interface ImageHead {
  readonly pageSizeBytes: number
  /** Size of the buffer. */
  readonly sizeBytes: number
  readonly label: string
}

/** Pages `page`, `page + 1`, … of a buffer, stored under `handle`, `handle + 1`, … */
export interface PageRun {
  readonly page: number
  readonly handle: number
  readonly count: number
}

/** Pages that a block of an image describes. */
export const imageBlockPages = 512

const mark = 0x53
const version = 1
const byRun = 0
const byPage = 1
const bitsBytes = imageBlockPages / 8
/** What a page takes by page, and a run by run, about. */
const pageEntryBytes = 6
const runEntryBytes = 8

/** Told where the pages of a block are stored. A `RangeError` that it throws counts as damage of the block. */
export interface PageReceiver {
  /** Adjacent pages with adjacent handles. */
  run(page: number, handle: number, count: number): void
  /** Pages from `firstPage` on, in each the handle of one; 0 for one that is empty. It is the receiver's to keep. */
  pages(firstPage: number, handles: Float64Array): void
}

/** Blocks of the image of a buffer of so many pages, the head included. */
export function imageBlockCount(pages: number): number {
  return 1 + Math.ceil(pages / imageBlockPages)
}

/** The blocks of an image in order. A run may lie in several. */
export function encodeImage(image: PageImage): Uint8Array[] {
  const pages = Math.ceil(image.sizeBytes / image.pageSizeBytes)
  const parts: PageRun[][] = Array.from({ length: imageBlockCount(pages) - 1 }, () => [])
  for (const { page, handle, count } of image.runs) {
    for (let done = 0; done < count; ) {
      const at = page + done
      const length = Math.min(imageBlockPages - (at % imageBlockPages), count - done)
      parts[Math.floor(at / imageBlockPages)].push({ page: at, handle: handle + done, count: length })
      done += length
    }
  }
  return [encodeImageHead(image), ...parts.map((runs, index) => encodeImageBlock(index + 1, runs))]
}

/** Block 0 of an image. */
export function encodeImageHead({ pageSizeBytes, sizeBytes, label }: ImageHead): Uint8Array {
  return encoded(0, (writer) => {
    writer.number(pageSizeBytes)
    writer.number(sizeBytes)
    writer.text(label)
  })
}

/** Block `index`, 1 or more, of an image, with the runs of its pages in rising order. */
export function encodeImageBlock(index: number, runs: readonly PageRun[]): Uint8Array {
  if (runs.length === 0) return new Uint8Array(0)
  const start = (index - 1) * imageBlockPages
  const pages = runs.reduce((sum, { count }) => sum + count, 0)
  const isByPage = bitsBytes + pages * pageEntryBytes < runs.length * runEntryBytes
  return encoded(index, (writer) => {
    writer.number(isByPage ? byPage : byRun)
    if (isByPage) writePages(writer, runs, start, pages)
    else writeRuns(writer, runs, start)
  })
}

function writeRuns(writer: ByteWriter, runs: readonly PageRun[], start: number): void {
  writer.number(runs.length)
  let page = start
  let handle = 0
  for (const run of runs) {
    writer.number(run.page - page)
    writer.number(run.count)
    writer.difference(run.handle - handle)
    page = run.page + run.count
    handle = run.handle + run.count
  }
}

function writePages(writer: ByteWriter, runs: readonly PageRun[], start: number, pages: number): void {
  const bits = new Uint8Array(bitsBytes)
  const handles = new Float64Array(pages)
  let next = 0
  for (const { page, handle, count } of runs) {
    for (let done = 0; done < count; done++) {
      const at = page + done - start
      bits[at >>> 3] |= 1 << (at & 7)
      handles[next++] = handle + done
    }
  }
  writer.raw(bits)
  writer.column(handles)
}

/**
 * The image that blocks describe. Throws `EBADMSG` when one is damaged or out of place, `ENOTSUP` for a version that this build does
 * not know.
 */
export function decodeImage(body: readonly Uint8Array[]): PageImage {
  const head = decodeImageHead(body)
  const runs: PageRun[] = []
  const run = (page: number, handle: number, count: number) => {
    const last = runs.at(-1)
    const goesOn =
      last !== undefined && last.page + last.count === page && last.handle + last.count === handle
    if (goesOn) runs[runs.length - 1] = { ...last, count: last.count + count }
    else runs.push({ page, handle, count })
  }
  const pages = (firstPage: number, handles: Float64Array) => {
    for (const [index, handle] of handles.entries()) if (handle !== 0) run(firstPage + index, handle, 1)
  }
  for (let index = 1; index < body.length; index++) decodeImageBlock(index, body[index], { run, pages })
  return { ...head, runs }
}

/** What the buffer of an image is; errors as of `decodeImage`. */
export function decodeImageHead(body: readonly Uint8Array[]): ImageHead {
  const head = decoded(0, body[0] ?? new Uint8Array(0), (reader) => ({
    pageSizeBytes: reader.number(),
    sizeBytes: reader.number(),
    label: reader.text(),
  }))
  try {
    assertPageSize(head.pageSizeBytes)
  } catch (cause) {
    throw damaged(0, cause)
  }
  const pages = Math.ceil(head.sizeBytes / head.pageSizeBytes)
  if (imageBlockCount(pages) === body.length) return head
  throw damaged(0, new RangeError(`${body.length} blocks for ${head.sizeBytes} bytes`))
}

/** Tells where the pages of block `index`, 1 or more, are, in order; errors as of `decodeImage`. */
export function decodeImageBlock(index: number, bytes: Uint8Array, receiver: PageReceiver): void {
  if (bytes.byteLength === 0) return
  const start = (index - 1) * imageBlockPages
  decoded(index, bytes, (reader) => {
    const kind = reader.number()
    if (kind === byRun) readRuns(reader, start, receiver)
    else if (kind === byPage) receiver.pages(start, readPages(reader))
    else throw new RangeError(`a block of kind ${kind}`)
  })
}

function readRuns(reader: ByteReader, start: number, receiver: PageReceiver): void {
  const runs = reader.number()
  let page = start
  let handle = 0
  for (let run = 0; run < runs; run++) {
    page += reader.number()
    const count = reader.number()
    handle += reader.difference()
    if (count < 1 || page + count > start + imageBlockPages) throw new RangeError(`page ${page + count}`)
    if (handle < 1 || handle + count - 1 > maxHandle) throw new RangeError(`handle ${handle}`)
    receiver.run(page, handle, count)
    page += count
    handle += count
  }
}

function readPages(reader: ByteReader): Float64Array {
  const bits = reader.raw(bitsBytes)
  const handles = reader.column(bits.reduce((sum, byte) => sum + countOnes(byte), 0))
  const byPage = new Float64Array(imageBlockPages)
  let next = 0
  for (let page = 0; page < imageBlockPages; page++) {
    if ((bits[page >>> 3] & (1 << (page & 7))) === 0) continue
    const handle = handles[next++]
    if (handle < 1 || handle > maxHandle) throw new RangeError(`handle ${handle}`)
    byPage[page] = handle
  }
  return byPage
}

function encoded(index: number, write: (writer: ByteWriter) => void): Uint8Array {
  const writer = new ByteWriter()
  writer.number(mark)
  writer.number(version)
  writer.number(index)
  write(writer)
  writer.word(checksum(writer.bytes))
  return writer.bytes
}

function decoded<Result>(index: number, bytes: Uint8Array, read: (reader: ByteReader) => Result): Result {
  const end = bytes.byteLength - 4
  if (end < 3 || new ByteReader(bytes, end).word() !== checksum(bytes.subarray(0, end)))
    throw damaged(index, undefined)
  try {
    const reader = new ByteReader(bytes.subarray(0, end))
    if (reader.number() !== mark) throw new RangeError('no mark')
    const found = reader.number()
    if (found > version)
      throw new SpillwayError('ENOTSUP', `block ${index} of the image has version ${found}`)
    if (reader.number() !== index) throw new RangeError('another block')
    return read(reader)
  } catch (cause) {
    if (cause instanceof SpillwayError) throw cause
    throw damaged(index, cause)
  }
}

function damaged(index: number, cause: unknown): SpillwayError {
  return new SpillwayError('EBADMSG', `block ${index} of the image is damaged`, { cause })
}
