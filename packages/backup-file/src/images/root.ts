import { ByteReader, ByteWriter, SpillwayError } from '@spillway/core'
import { type Reference, readReference, writeReference } from './image-code.ts'
import { isSameSum, keyedSum, type StoreFile, type StoreLayout, sumBytes } from './store-file.ts'

/** What a store has: all that is durable hangs from it. */
export interface Root {
  /** One more than that of the root before it. It is written to place `sequence % 2`. */
  readonly sequence: number
  /** The last generation that slots were given. */
  readonly generation: number
  readonly images: ReadonlyMap<string, ImageEntry>
  /** Images that an opening found damaged, by name: the file had no slots from this one on, so that they name none. */
  readonly damaged: ReadonlyMap<string, number>
}

export interface ImageEntry {
  readonly revision: string
  readonly blockCount: number
  /** The node above all others, and above all blocks; not there for an image without blocks. */
  readonly top: Reference | undefined
}

/** What was found in the places of roots. */
export interface FoundRoot {
  readonly root: Root
  /** As they are in the file. */
  readonly bytes: Uint8Array
  /** Whether the place of the other root has neither a root nor nothing: writing it was not finished, or it was damaged later. */
  readonly isOtherTorn: boolean
}

const blockBytes = 4096
const mark = new TextEncoder().encode('spillway root 2\n')
const headBytes = mark.byteLength + 4 + sumBytes

/**
 * In whole blocks of 4 KiB. Throws `ENOSPC` when it is longer than its place; where there is none for the damaged images, it is without
 * them, and the next opening finds them anew.
 */
export function encodeRoot(root: Root, key: Uint8Array, layout: StoreLayout): Uint8Array {
  const body = encodeBody(root)
  if (lengthOf(body) <= layout.rootBytes) return sealed(body, key)
  const shorter = encodeBody({ ...root, damaged: new Map() })
  if (lengthOf(shorter) <= layout.rootBytes) return sealed(shorter, key)
  throw new SpillwayError('ENOSPC', `there is no space for another of ${root.images.size} images`)
}

function lengthOf(body: Uint8Array): number {
  return Math.ceil((headBytes + body.byteLength) / blockBytes) * blockBytes
}

function sealed(body: Uint8Array, key: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(lengthOf(body))
  bytes.set(mark)
  new DataView(bytes.buffer).setUint32(mark.byteLength, body.byteLength, true)
  bytes.set(keyedSum(key, body), mark.byteLength + 4)
  bytes.set(body, headBytes)
  return bytes
}

function encodeBody(root: Root): Uint8Array {
  const writer = new ByteWriter()
  writer.number(root.sequence)
  writer.number(root.generation)
  writer.number(root.images.size)
  for (const [name, { revision, blockCount, top }] of root.images) {
    writer.text(name)
    writer.text(revision)
    writer.number(blockCount)
    if (top !== undefined) writeReference(writer, top)
  }
  for (const [name, endSlot] of root.damaged) {
    writer.text(name)
    writer.number(endSlot)
  }
  return writer.bytes
}

/** The bytes of a root, and the root; `undefined` where there is none that is whole. */
export function decodeRoot(bytes: Uint8Array, key: Uint8Array): Root | undefined {
  const body = bytes.subarray(headBytes, headBytes + bodyLengthOf(bytes))
  const sum = bytes.subarray(mark.byteLength + 4, headBytes)
  if (!isSameSum(bytes.subarray(0, mark.byteLength), mark) || !isSameSum(keyedSum(key, body), sum))
    return undefined
  const reader = new ByteReader(body)
  const [sequence, generation] = [reader.number(), reader.number()]
  const images = new Map<string, ImageEntry>()
  for (let left = reader.number(); left > 0; left--) {
    const [name, revision, blockCount] = [reader.text(), reader.text(), reader.number()]
    images.set(name, { revision, blockCount, top: blockCount > 0 ? readReference(reader) : undefined })
  }
  const damaged = new Map<string, number>()
  while (reader.left > 0) damaged.set(reader.text(), reader.number())
  return { sequence, generation, images, damaged }
}

/** The newest whole root. Rejects with `EBADMSG` when there is none. */
export async function findRoot(file: StoreFile, layout: StoreLayout, key: Uint8Array): Promise<FoundRoot> {
  const places = await Promise.all(
    layout.rootOffsetsBytes.map((offset) => readPlace(file, offset, layout.rootBytes)),
  )
  const roots = places.map((bytes, place) => {
    const root = decodeRoot(bytes, key)
    return root?.sequence === undefined || root.sequence % 2 !== place ? undefined : root
  })
  const [even, odd] = roots
  const newest = (even?.sequence ?? -1) > (odd?.sequence ?? -1) ? 0 : 1
  const root = roots[newest]
  if (root === undefined) throw new SpillwayError('EBADMSG', 'neither root of the store is whole')
  const other = 1 - newest
  const isOtherTorn = roots[other] === undefined && places[other]!.some((byte) => byte !== 0)
  return { root, bytes: places[newest]!, isOtherTorn }
}

export function rootOffset({ sequence }: Root, { rootOffsetsBytes }: StoreLayout): number {
  return rootOffsetsBytes[sequence % 2]!
}

/** So much of a place as its first block says there is. */
async function readPlace(file: StoreFile, offsetBytes: number, rootBytes: number): Promise<Uint8Array> {
  const block = new Uint8Array(blockBytes)
  await file.read(block, offsetBytes)
  const length = Math.ceil((headBytes + bodyLengthOf(block)) / blockBytes) * blockBytes
  if (length <= blockBytes || length > rootBytes) return block
  const bytes = new Uint8Array(length)
  await file.read(bytes, offsetBytes)
  return bytes
}

function bodyLengthOf(bytes: Uint8Array): number {
  return new DataView(bytes.buffer, bytes.byteOffset).getUint32(mark.byteLength, true)
}
