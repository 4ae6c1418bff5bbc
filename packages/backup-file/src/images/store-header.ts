import { SpillwayError } from '@spillway/core'
import { encodeHeaderBlock, headerBytes, headerSum, headerText } from '../header-block.ts'
import { dataOffsetBytes } from '../layout.ts'
import type { StoreLayout } from './store-file.ts'

/** Begins otherwise than scratch files do, so that who knows only those takes a store for a stranger's file, and leaves it. */
const anyVersion = 'spillway image store '
const version = '2'
const magic = `${anyVersion}${version}\n`

/** First block of a store, written once: what stays the same as long as it is there. */
export interface StoreHeader {
  /** Random name of this store. */
  readonly instance: string
  readonly pageSizeBytes: number
  readonly dataOffsetBytes: number
  /** Slots there are, those of metadata included: handles are made of it. */
  readonly slots: number
  /** How many of them pages leave to metadata. */
  readonly metadataSlots: number
  /** Of the sums of pages. */
  readonly salt: number
}

export function encodeStoreHeader(header: StoreHeader): Uint8Array {
  return encodeHeaderBlock(magic, header)
}

/** Whether a block begins a store, of whichever version and however damaged. */
export function isStoreHeader(block: Uint8Array): boolean {
  return headerText(block).startsWith(anyVersion)
}

/** Throws `EEXIST` for a block that begins no store, `ENOTSUP` for a version that is not known, `EBADMSG` for a damaged header. */
export function decodeStoreHeader(block: Uint8Array, path: string): StoreHeader {
  const text = headerText(block)
  if (!text.startsWith(anyVersion)) {
    throw new SpillwayError('EEXIST', `${path} exists and is not a store of images; it was left as it is`)
  }
  const [found, sum, body = ''] = text.slice(anyVersion.length).split('\n')
  if (found !== version && /^\d{1,6}$/.test(found!)) {
    throw new SpillwayError(
      'ENOTSUP',
      `${path} is a store of version ${found}; this build knows version ${version}`,
    )
  }
  if (found === version && sum === headerSum(body)) return JSON.parse(body) as StoreHeader
  throw new SpillwayError('EBADMSG', `${path} begins like a store of images, but its header is damaged`)
}

/** Slots for so many pages and what metadata of their images takes, two of each image at a time, and some for small ones. */
export function slotsFor(pages: number): Pick<StoreHeader, 'slots' | 'metadataSlots'> {
  const metadataSlots = 64 + Math.ceil(pages / 64)
  return { slots: pages + metadataSlots, metadataSlots }
}

export function keyOf({ instance }: StoreHeader): Uint8Array {
  return new TextEncoder().encode(instance)
}

export function layoutOf(header: StoreHeader): StoreLayout {
  const rootOffset = dataOffsetBytes / 2
  return {
    rootOffsetsBytes: [headerBytes, rootOffset],
    rootBytes: rootOffset - headerBytes,
    dataOffsetBytes: header.dataOffsetBytes,
    pageSizeBytes: header.pageSizeBytes,
    slotRange: 2 ** Math.ceil(Math.log2(header.slots + 1)),
  }
}
