import { type HandleRun, isSpillwayError, SpillwayError } from '@spillway/core'
import { type KeySpace, persistentCount } from '../keys.ts'
import { handleOf } from '../segments/handles.ts'
import { PageBits } from '../segments/page-bits.ts'
import { footerLength, readFooter, type SegmentFooter, trailerBytes } from '../segments/segment-format.ts'
import { type Root, type SegmentObject, type SegmentTable, segmentObject } from '../segments/segment-table.ts'
import type { S3Service, StoredObject } from '../service/service.ts'
import { inTurns, Semaphore } from '../service/waiting.ts'
import type { Manifest } from './manifest.ts'
import { decodeManifest } from './manifest-decoding.ts'
import type { EpochSurvey } from './sweep.ts'

/** Requests for footers that are under way at the same time. */
const footersAtOnce = 16
/** Footers that are taken in before the event loop gets a turn; each may name two thousand pages. */
const footersPerTurn = 16

/**
 * Brings the table of a persistent store back.
 *
 *   newest manifest ─▶ table ─▶ segments it does not know, in the order they were written ─▶ table
 *
 * - known to the manifest: as it says, less what is no longer there
 * - of an epoch before the manifest's, or numbered before it and not then under way: was being deleted, is deleted
 * - later: its footer says whose pages it holds; those of a compaction take over the handles of the segments they are
 *   from, whether these are still there or not
 */
export async function attach(
  epochs: readonly EpochSurvey[],
  table: SegmentTable,
  service: S3Service,
  keys: KeySpace,
  pageSizeBytes: number,
  remove: (key: string) => void,
  signal?: AbortSignal,
): Promise<{ highestNumber: number; manifests: readonly string[] }> {
  const manifests = epochs.flatMap(({ manifests: listed }) => listed.map(({ key }) => key)).sort()
  const stored = new Map<string, StoredObject>()
  for (const { segments } of epochs) {
    for await (const some of inTurns(segments)) for (const segment of some) stored.set(segment.key, segment)
  }
  const manifest = await readNewest(manifests, service, signal)
  if (manifest !== undefined && manifest.pageSizeBytes !== pageSizeBytes) {
    throw wrongPageSize(manifest.pageSizeBytes, pageSizeBytes)
  }
  let highestNumber = manifest === undefined ? 0 : manifest.nextNumber - 1
  const known = new Set<string>()
  const missing = new Set<SegmentObject>()
  for await (const objects of inTurns(manifest?.objects ?? [])) {
    for (const object of objects) {
      const key = keys.segment(object.epoch, object.number)
      known.add(key)
      if (stored.has(key)) table.addObject(object)
      else missing.add(object)
    }
  }
  const later: { object: StoredObject; epoch: string; number: number }[] = []
  for await (const objects of inTurns(stored.values())) {
    for (const object of objects) {
      const { epoch, number } = keys.parse(object.key)!
      highestNumber = Math.max(highestNumber, number)
      if (known.has(object.key)) continue
      if (manifest !== undefined && isGarbage(manifest, epoch, number)) remove(object.key)
      else later.push({ object, epoch, number })
    }
  }
  const lost: Root[] = []
  for await (const roots of inTurns(manifest?.roots ?? [])) {
    for (const root of roots) {
      if (missing.has(root.object)) lost.push(root)
      else table.addRoot(root)
    }
  }
  // Ascending numbers are the order of writing: a compaction comes after what it compacted.
  later.sort((left, right) => left.number - right.number)
  const slots = new Semaphore(footersAtOnce)
  const load = ({ object, epoch, number }: (typeof later)[number]) =>
    slots.run(() => loadFooter(service, object.key, object.bytes, epoch, number, undefined, signal))
  const footers = await Promise.all(later.map(load))
  for await (const some of inTurns(footers.entries(), footersPerTurn)) {
    for (const [index, footer] of some) {
      const { object, epoch, number } = later[index]
      const { generation, checksums } = footer
      if (footer.pageSizeBytes !== pageSizeBytes) throw wrongPageSize(footer.pageSizeBytes, pageSizeBytes)
      const pages = checksums.length
      addLater(table, segmentObject(epoch, number, generation, pages, object.bytes, checksums), footer, lost)
    }
  }
  for await (const objects of inTurns(table.objects)) for (const object of objects) table.collect(object)
  return { highestNumber, manifests }
}

function addLater(
  table: SegmentTable,
  object: SegmentObject,
  footer: SegmentFooter,
  lost: readonly Root[],
): void {
  table.addObject(object)
  // Not to be taken for empty before all its roots are there.
  object.readers++
  let base = 0
  for (const { number, pages, places } of footer.roots) {
    const survivors = places === undefined ? PageBits.full(pages) : new PageBits(places[pages - 1] + 1)
    for (const place of places ?? []) survivors.setRun(place, 1)
    const moved = number === object.number ? undefined : survivors
    const known = lost.find((candidate) => candidate.number === number)
    if (known !== undefined && !table.roots.has(number)) table.addRoot({ ...known, object, base })
    const root = table.roots.get(number)
    if (root === undefined || moved === undefined) {
      table.addRoot({ number, live: survivors.copy(), livePages: pages, object, base, survivors: moved })
    } else {
      // Pages that the manifest holds for live and the copy has not were dropped before the copy was made.
      const dropped: HandleRun[] = []
      const gone = root.live.copy()
      gone.subtract(survivors)
      gone.forEachRun((first, count) => dropped.push({ first: handleOf(number, first), count }))
      table.drop(dropped)
      if (table.roots.has(number)) table.moveRoot(root, object, base, survivors)
    }
    base += pages
  }
  table.release(object)
}

function isGarbage(manifest: Manifest, epoch: string, number: number): boolean {
  const order = persistentCount(epoch)! - persistentCount(manifest.epoch)!
  if (order !== 0) return order < 0
  return number < manifest.nextNumber && !manifest.underway.has(number)
}

async function readNewest(
  manifests: readonly string[],
  service: S3Service,
  signal: AbortSignal | undefined,
): Promise<Manifest | undefined> {
  const key = manifests.at(-1)
  if (key === undefined) return undefined
  return onceMoreIfDamaged(async () => {
    const object = await service.read(key, { signal })
    if (object === undefined) throw new SpillwayError('ENOENT', `the manifest ${key} vanished`)
    return decodeManifest(object.body, key)
  })
}

/** Reads the footer of a segment: one request, two when it was compacted from many. */
export async function loadFooter(
  service: S3Service,
  key: string,
  objectBytes: number,
  epoch: string,
  number: number,
  expectedBytes = Math.ceil(objectBytes / 1024) + trailerBytes + 16,
  signal?: AbortSignal,
): Promise<SegmentFooter> {
  const read = async (bytes: number) => {
    const wanted = Math.min(bytes, objectBytes)
    const object = await service.read(key, { offset: objectBytes - wanted, bytes: wanted, signal })
    if (object === undefined) throw new SpillwayError('ENOENT', `the segment ${key} is gone`)
    return object.body
  }
  return onceMoreIfDamaged(async () => {
    let tail = await read(expectedBytes)
    const length = footerLength(tail)
    if (length !== undefined && length > tail.length) tail = await read(length)
    return readFooter(tail, epoch, number)
  })
}

/** What came damaged is asked for once more: the wire may have done it. */
async function onceMoreIfDamaged<T>(read: () => Promise<T>): Promise<T> {
  try {
    return await read()
  } catch (error) {
    if (!isSpillwayError(error) || error.code !== 'EBADMSG') throw error
    return read()
  }
}

function wrongPageSize(stored: number, asked: number): SpillwayError {
  return new SpillwayError('EINVAL', `the store has pages of ${stored} bytes; pageSizeBytes is ${asked}`)
}
