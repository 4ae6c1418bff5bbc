// Not by name: a Node without it has to get as far as the message that it is too old.
import * as zlib from 'node:zlib'
import { SpillwayError, yieldToEventLoop } from '@spillway/core'
import { PageBits } from '../segments/page-bits.ts'
import { sliceBytes } from '../segments/segment-builder.ts'
import { type Root, type SegmentObject, segmentObject } from '../segments/segment-table.ts'
import {
  jsonEnd,
  type Manifest,
  type ManifestHead,
  type ObjectEntry,
  objectsMark,
  type RootEntry,
  rootsMark,
} from './manifest.ts'

/** JSON that is parsed before the event loop gets a turn: some hundred entries. */
const parsedBytes = 16 * 1024
/** What separates two entries of a list; no entry has it inside. */
const betweenEntries = '],['

/**
 * Reads a manifest, a slice at a time: that of a large store has a hundred thousand entries.
 * Rejects with `EBADMSG` for anything but a whole one, `ENOTSUP` for a newer format.
 */
export async function decodeManifest(body: Buffer, key: string): Promise<Manifest> {
  const broken = () => new SpillwayError('EBADMSG', `the manifest ${key} does not match its checksum`)
  const end = body.length - 4
  if (end < 4 || (await checksumOf(body.subarray(0, end))) !== body.readUInt32LE(end)) throw broken()
  const textEnd = 4 + body.readUInt32LE(0)
  const objectsAt = body.indexOf(objectsMark)
  const rootsAt = body.indexOf(rootsMark, objectsAt)
  if (objectsAt < 0 || rootsAt < 0) throw broken()
  const head = JSON.parse(`${body.toString('utf8', 4, objectsAt)}}`) as ManifestHead
  if ((head.format as number) !== 1) {
    throw new SpillwayError('ENOTSUP', `the manifest ${key} has format ${head.format}; this version knows 1`)
  }
  const objects: SegmentObject[] = []
  const objectList = body.subarray(objectsAt + objectsMark.length, rootsAt)
  for await (const entries of slicesOf<ObjectEntry>(objectList)) {
    for (const [epoch, number, generation, pages, bytes] of entries)
      objects.push(segmentObject(epoch, number, generation, pages, bytes, undefined))
  }
  let offset = textEnd
  const bits = (words: number) => {
    const copy = new Uint32Array(words)
    new Uint8Array(copy.buffer).set(body.subarray(offset, offset + words * 4))
    offset += words * 4
    return new PageBits(0, copy)
  }
  const roots: Root[] = []
  const rootList = body.subarray(rootsAt + rootsMark.length, textEnd - jsonEnd.length)
  for await (const entries of slicesOf<RootEntry>(rootList)) {
    for (const [number, object, base, liveWords, survivorWords] of entries) {
      const live = bits(liveWords)
      const survivors = survivorWords === 0 ? undefined : bits(survivorWords)
      roots.push({ number, live, livePages: live.count(), object: objects[object], base, survivors })
    }
  }
  return { ...head, underway: new Set(head.underway), damaged: new Set(head.damaged), objects, roots }
}

async function checksumOf(content: Buffer): Promise<number> {
  let checksum = 0
  for (let start = 0; start < content.length; start += sliceBytes) {
    checksum = zlib.crc32(content.subarray(start, start + sliceBytes), checksum)
    await yieldToEventLoop()
  }
  return checksum
}

/** Entries of a list, without its brackets, some at a time; the event loop turns after each. */
async function* slicesOf<Entry>(list: Buffer): AsyncGenerator<readonly Entry[]> {
  for (let start = 0; start < list.length; ) {
    const cut = list.indexOf(betweenEntries, start + parsedBytes)
    const end = cut < 0 ? list.length : cut + 1
    yield JSON.parse(`[${list.toString('utf8', start, end)}]`)
    start = end + 1
    await yieldToEventLoop()
  }
}
