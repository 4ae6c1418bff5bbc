import { crc32 } from 'node:zlib'
import { SpillwayError } from '@spillway/core'
import { PageBits } from './page-bits.ts'
import { type Root, type SegmentObject, type SegmentTable, segmentObject } from './segment-table.ts'

/**
 * The table of a persistent store, written at opening, at closing and now and then between. Checksums are not in it:
 * they are read from a segment's footer when it is first used. What was written after the last manifest is found by
 * listing, since segments describe themselves; only drops since then are forgotten.
 *
 *   JSON length u32 │ JSON │ live bits of every root, survivors of every moved root │ CRC-32 u32
 */

interface ManifestHead {
  readonly format: 1
  readonly epoch: string
  readonly pageSizeBytes: number
  /** The number that the next segment would have had … */
  readonly nextNumber: number
  /** … and the smaller ones that were still being written. */
  readonly underway: readonly number[]
  /** epoch, number, generation, pages, bytes */
  readonly objects: readonly (readonly [string, number, number, number, number])[]
  /** number, index of its object, base, words of live bits, words of survivors */
  readonly roots: readonly (readonly [number, number, number, number, number])[]
}

export interface Manifest {
  readonly epoch: string
  readonly pageSizeBytes: number
  readonly nextNumber: number
  readonly underway: ReadonlySet<number>
  readonly objects: readonly SegmentObject[]
  readonly roots: readonly Root[]
}

export function encodeManifest(
  table: SegmentTable,
  about: { epoch: string; pageSizeBytes: number; nextNumber: number; underway: readonly number[] },
): Buffer {
  const objects = [...table.objects]
  const index = new Map(objects.map((object, position) => [object, position]))
  const roots = [...table.roots.values()].filter(({ object }) => index.has(object))
  const head: ManifestHead = {
    format: 1,
    ...about,
    objects: objects.map(({ epoch, number, generation, pages, bytes }) => [
      epoch,
      number,
      generation,
      pages,
      bytes,
    ]),
    roots: roots.map(({ number, object, base, live, survivors }) => [
      number,
      index.get(object)!,
      base,
      live.words.length,
      survivors?.words.length ?? 0,
    ]),
  }
  const json = Buffer.from(JSON.stringify(head))
  const length = Buffer.alloc(4)
  length.writeUInt32LE(json.length)
  const parts: Buffer[] = [length, json]
  for (const { live, survivors } of roots) {
    for (const bits of [live, survivors]) {
      if (bits !== undefined)
        parts.push(Buffer.from(bits.words.buffer, bits.words.byteOffset, bits.words.byteLength))
    }
  }
  let checksum = 0
  for (const part of parts) checksum = crc32(part, checksum)
  const end = Buffer.alloc(4)
  end.writeUInt32LE(checksum)
  return Buffer.concat([...parts, end])
}

/** Throws `EBADMSG` for anything but a whole manifest. */
export function decodeManifest(body: Buffer, key: string): Manifest {
  const content = body.subarray(0, Math.max(0, body.length - 4))
  if (body.length < 8 || crc32(content) !== body.readUInt32LE(body.length - 4)) {
    throw new SpillwayError('EBADMSG', `the manifest ${key} does not match its checksum`)
  }
  const jsonEnd = 4 + body.readUInt32LE(0)
  const head = JSON.parse(body.toString('utf8', 4, jsonEnd)) as ManifestHead
  const objects = head.objects.map(([epoch, number, generation, pages, bytes]) =>
    segmentObject(epoch, number, generation, pages, bytes, undefined),
  )
  let offset = jsonEnd
  const bits = (words: number) => {
    const copy = new Uint32Array(words)
    new Uint8Array(copy.buffer).set(body.subarray(offset, offset + words * 4))
    offset += words * 4
    return new PageBits(0, copy)
  }
  const roots = head.roots.map(([number, object, base, liveWords, survivorWords]): Root => {
    const live = bits(liveWords)
    const survivors = survivorWords === 0 ? undefined : bits(survivorWords)
    return { number, live, livePages: live.count(), object: objects[object], base, survivors }
  })
  return { ...head, underway: new Set(head.underway), objects, roots }
}
