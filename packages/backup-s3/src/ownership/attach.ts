import { type HandleRun, isSpillwayError, SpillwayError, yieldToEventLoop } from '@spillway/core'
import type { KeySpace } from '../keys.ts'
import type { Settings } from '../options.ts'
import { handleOf } from '../segments/handles.ts'
import { PageBits } from '../segments/page-bits.ts'
import type { SegmentFooter } from '../segments/segment-format.ts'
import { type Root, type SegmentObject, type SegmentTable, segmentObject } from '../segments/segment-table.ts'
import type { S3Service, StoredObject } from '../service/service.ts'
import { forEachAtOnce, inTurns } from '../service/waiting.ts'
import { loadFooter, onceMoreIfDamaged } from './footers.ts'
import type { Head } from './head.ts'
import { hasRunOut } from './lease-term.ts'
import type { Manifest } from './manifest.ts'
import { decodeManifest } from './manifest-decoding.ts'

/** Requests for footers, or for segments that a listing lacks, that are under way at the same time. */
const requestsAtOnce = 16
/** Footers that are taken in before the event loop gets a turn; each may name two thousand pages. */
const footersPerTurn = 16
/** Objects that a listing may lack and that are there all the same. With more the listing is not believed. */
const overlookedAtMost = 64

/** How long a process tries its permissions at most. */
const probeMs = 300_000

export interface AttachParts {
  readonly settings: Pick<Settings, 'pageSizeBytes' | 'name'>
  readonly table: SegmentTable
  readonly service: S3Service
  readonly keys: KeySpace
  /** Deletes an object, once a manifest without it counts. */
  readonly remove: (key: string, bytes: number) => void
  readonly signal?: AbortSignal | undefined
}

export interface Attached {
  /** The greatest segment number that was found; 0: none. */
  readonly highestNumber: number
  /** The manifest that was read, without the prefix; null: there was none that could be. */
  readonly manifest: string | null
  /** Segments that could not be read; they are left where they are. */
  readonly damaged: readonly number[]
  /** Why the first of them could not be, or the newest manifest; or that segments are gone that it names. */
  readonly error: Error | undefined
}

/** A segment in the bucket. */
interface Listed {
  readonly object: StoredObject
  readonly epoch: string
  readonly number: number
}

/**
 * Brings the table of a persistent store back, for the one who owns it.
 *
 *   head ─▶ newest manifest ─▶ table ─▶ segments it does not know, in the order they were written ─▶ table
 *             └─ damaged ─▶ its parent ─▶ …
 *
 * - known to the manifest: as it says, less what is no longer there. What the listing lacks is asked for by its key:
 *   after a manifest that is damaged its parent names what was dropped and deleted since
 * - numbered before the manifest's next, and not then under way: is garbage, whoever wrote it and whenever it came
 * - later: its footer says whose pages it holds; those of a compaction take over the handles of the segments they are
 *   from, whether these are still there or not
 * - cannot be read: costs its own pages, and is left where it is
 */
export async function attach(head: Head, parts: AttachParts): Promise<Attached> {
  const { table, keys, remove } = parts
  const found = await readNewest(head, parts)
  const { manifest } = found
  const stored = new Map<string, Listed>()
  for await (const object of parts.service.list(keys.storesPrefix, { signal: parts.signal })) {
    const parsed = keys.parse(object.key)
    if (parsed?.kind === 'segment') stored.set(object.key, { object, ...parsed })
    else if (parsed?.kind === 'manifest' && object.key !== `${keys.prefix}${found.key}`)
      remove(object.key, object.bytes)
  }
  await removeOldProbes(parts)
  const { known, lost } = await addKnown(manifest, stored, parts)
  const later: Listed[] = []
  let highestNumber = 0
  for await (const some of inTurns(stored.values())) {
    for (const listed of some) {
      const { object, number } = listed
      highestNumber = Math.max(highestNumber, number)
      if (known.has(object.key)) continue
      if (number < head.emptiedBelow || isGarbage(manifest, number)) remove(object.key, object.bytes)
      else later.push(listed)
    }
  }
  const { damaged, error } = await addLater(later, lost, manifest, parts)
  for await (const objects of inTurns(table.objects)) for (const object of objects) table.collect(object)
  // Of what an older manifest names some was dropped since.
  const gone = found.error === undefined ? goneError(lost, found.key, parts) : undefined
  return { highestNumber, manifest: found.key, damaged, error: found.error ?? gone ?? error }
}

/** Removes what processes left that died while they tried their permissions. */
async function removeOldProbes({ service, keys, remove, signal }: AttachParts): Promise<void> {
  let serviceNowMs: number | undefined
  const onDate = (time: number) => {
    serviceNowMs ??= time
  }
  for await (const { key, bytes, lastModified } of service.list(keys.storeLeasesPrefix, { signal, onDate })) {
    if (hasRunOut(lastModified, probeMs, serviceNowMs)) remove(key, bytes)
  }
}

/** The newest manifest that can be read, of the two that a head names. */
async function readNewest(
  head: Head,
  { service, keys, settings, signal }: AttachParts,
): Promise<{ manifest: Manifest | undefined; key: string | null; error: Error | undefined }> {
  let first: Error | undefined
  for (const name of [head.manifest, head.parent]) {
    if (name === null) continue
    const key = `${keys.prefix}${name}`
    try {
      const manifest = await onceMoreIfDamaged(async () => {
        const object = await service.read(key, { signal })
        if (object === undefined) throw new SpillwayError('EBADMSG', `the manifest ${key} is gone`)
        return decodeManifest(object.body, key)
      })
      if (manifest.pageSizeBytes !== settings.pageSizeBytes)
        throw wrongPageSize(manifest.pageSizeBytes, settings.pageSizeBytes)
      return { manifest, key: name, error: first }
    } catch (error) {
      if (!isDamage(error)) throw error
      first ??= error
    }
  }
  return { manifest: undefined, key: null, error: first }
}

/** Takes in what the manifest says; returns the keys of its objects, and the roots whose object is gone, by number. */
async function addKnown(
  manifest: Manifest | undefined,
  stored: ReadonlyMap<string, Listed>,
  parts: AttachParts,
): Promise<{ known: ReadonlySet<string>; lost: ReadonlyMap<number, Root> }> {
  const { table, keys } = parts
  const known = new Set<string>()
  const unlisted: SegmentObject[] = []
  for await (const objects of inTurns(manifest?.objects ?? [])) {
    for (const object of objects) {
      const key = keys.segment(object.epoch, object.number)
      known.add(key)
      if (stored.has(key)) table.addObject(object)
      else unlisted.push(object)
    }
  }
  const gone = await addOverlooked(unlisted, parts)
  const lost = new Map<number, Root>()
  await yieldToEventLoop()
  for await (const roots of inTurns(manifest?.roots ?? [])) {
    for (const root of roots) {
      if (gone.has(root.object)) lost.set(root.number, root)
      else table.addRoot(root)
    }
  }
  return { known, lost }
}

/** Takes in objects that the listing lacks and that are there; returns those that are gone. */
async function addOverlooked(
  unlisted: readonly SegmentObject[],
  { table, service, keys, settings, signal }: AttachParts,
): Promise<ReadonlySet<SegmentObject>> {
  const gone = new Set<SegmentObject>()
  let overlooked = 0
  await forEachAtOnce(unlisted, { atOnce: requestsAtOnce, signal }, async (object, scope) => {
    const there = await service.head(keys.segment(object.epoch, object.number), { ...scope, free: true })
    if (there === undefined) {
      gone.add(object)
      return
    }
    table.addObject(object)
    if (++overlooked <= overlookedAtMost) return
    // What was written since the manifest shows in a listing only, and would be garbage to whoever comes next.
    const text = `the list of the store lacks more than ${overlookedAtMost} objects that are there; it is not believed`
    throw new SpillwayError('EIO', text, { backup: settings.name })
  })
  return gone
}

/** Takes in segments that no manifest knows. */
async function addLater(
  later: Listed[],
  lost: ReadonlyMap<number, Root>,
  manifest: Manifest | undefined,
  { table, service, settings, signal }: AttachParts,
): Promise<{ damaged: readonly number[]; error: Error | undefined }> {
  // Ascending numbers are the order of writing: a compaction comes after what it compacted.
  later.sort((left, right) => left.number - right.number)
  const damaged: number[] = []
  let error: Error | undefined
  const footers = new Map<Listed, SegmentFooter>()
  await forEachAtOnce(later, { atOnce: requestsAtOnce, signal }, async (listed, scope) => {
    const { object, epoch, number } = listed
    const place = { key: object.key, objectBytes: object.bytes, epoch, number, signal: scope.signal }
    try {
      footers.set(listed, await loadFooter(service, place))
    } catch (failure) {
      if (!isDamage(failure)) throw failure
      error ??= failure
    }
  })
  for await (const some of inTurns(later, footersPerTurn)) {
    for (const listed of some) {
      const { object, epoch, number } = listed
      const footer = footers.get(listed)
      const isOther = footer !== undefined && footer.pageSizeBytes !== settings.pageSizeBytes
      if (isOther && manifest === undefined) throw wrongPageSize(footer.pageSizeBytes, settings.pageSizeBytes)
      if (footer === undefined || isOther || table.roots.has(number)) {
        damaged.push(number)
        continue
      }
      const { generation, checksums } = footer
      const pages = checksums.length
      const added = segmentObject(epoch, number, generation, pages, object.bytes, checksums)
      takeOver(table, added, footer, lost)
    }
  }
  return { damaged, error }
}

function takeOver(
  table: SegmentTable,
  object: SegmentObject,
  footer: SegmentFooter,
  lost: ReadonlyMap<number, Root>,
): void {
  table.addObject(object)
  // Not to be taken for empty before all its roots are there.
  object.readers++
  let base = 0
  for (const { number, pages, places } of footer.roots) {
    const survivors = places === undefined ? PageBits.full(pages) : new PageBits(places[pages - 1] + 1)
    for (const place of places ?? []) survivors.setRun(place, 1)
    const moved = number === object.number ? undefined : survivors
    const known = lost.get(number)
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

function isGarbage(manifest: Manifest | undefined, number: number): boolean {
  if (manifest === undefined || number >= manifest.nextNumber) return false
  return !manifest.underway.has(number) && !manifest.damaged.has(number)
}

/** Whether an object cannot be read though the service answered: it is damaged, or not there any more. */
function isDamage(error: unknown): error is SpillwayError {
  return isSpillwayError(error) && (error.code === 'EBADMSG' || error.code === 'ENOENT')
}

/** What is told of roots that are lost, and not found in the copy of a compaction either; undefined: there are none. */
function goneError(
  lost: ReadonlyMap<number, Root>,
  manifest: string | null,
  { keys, settings, table }: AttachParts,
): SpillwayError | undefined {
  const gone = [...lost.values()].filter(({ number }) => !table.roots.has(number))
  if (gone.length === 0) return undefined
  const { epoch, number } = gone[0].object
  const text = `the pages of ${gone.length} segments that ${manifest} names are lost: ${keys.segment(epoch, number)} is gone`
  return new SpillwayError('ENOENT', text, { backup: settings.name })
}

function wrongPageSize(stored: number, asked: number): SpillwayError {
  return new SpillwayError('EINVAL', `the store has pages of ${stored} bytes; pageSizeBytes is ${asked}`)
}
