import { SpillwayError } from '../errors.ts'
import { maxHandle } from '../tagging.ts'
import { assertPageSize } from '../validation.ts'
import { ByteReader, ByteWriter, checksum } from './byte-code.ts'

/**
 * The body of an image of a buffer, in blocks, so that a save writes only what changed:
 *
 *   block 0   what the buffer is
 *   block n   where its pages from (n − 1) × 512 on are stored; no bytes where none of them is
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
  return encoded(index, (writer) => {
    writer.number(runs.length)
    let page = (index - 1) * imageBlockPages
    let handle = 0
    for (const run of runs) {
      writer.number(run.page - page)
      writer.number(run.count)
      writer.difference(run.handle - handle)
      page = run.page + run.count
      handle = run.handle + run.count
    }
  })
}

/**
 * The image that blocks describe. Throws `EBADMSG` when one is damaged or out of place, `ENOTSUP` for a version that this build does
 * not know.
 */
export function decodeImage(body: readonly Uint8Array[]): PageImage {
  const head = decodeImageHead(body)
  const runs: PageRun[] = []
  for (let index = 1; index < body.length; index++) {
    decodeImageBlock(index, body[index], (page, handle, count) => {
      const last = runs.at(-1)
      const goesOn =
        last !== undefined && last.page + last.count === page && last.handle + last.count === handle
      if (goesOn) runs[runs.length - 1] = { ...last, count: last.count + count }
      else runs.push({ page, handle, count })
    })
  }
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

/** Tells the runs of block `index`, 1 or more, in order; errors as of `decodeImage`. A `RangeError` of `tell` counts as damage. */
export function decodeImageBlock(
  index: number,
  bytes: Uint8Array,
  tell: (page: number, handle: number, count: number) => void,
): void {
  if (bytes.byteLength === 0) return
  const start = (index - 1) * imageBlockPages
  decoded(index, bytes, (reader) => {
    const runs = reader.number()
    let page = start
    let handle = 0
    for (let run = 0; run < runs; run++) {
      page += reader.number()
      const count = reader.number()
      handle += reader.difference()
      if (count < 1 || page + count > start + imageBlockPages) throw new RangeError(`page ${page + count}`)
      if (handle < 1 || handle + count - 1 > maxHandle) throw new RangeError(`handle ${handle}`)
      tell(page, handle, count)
      page += count
      handle += count
    }
  })
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
