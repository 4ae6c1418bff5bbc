import { type CopyResult, type HandleRun, isSpillwayError, yieldToEventLoop } from '@spillway/core'
import type { KeySpace } from '../keys.ts'
import type { Settings } from '../options.ts'
import type { Deletions } from '../ownership/deletions.ts'
import type { Restores } from '../restore/restores.ts'
import type { S3Service } from '../service/service.ts'
import { delay, TokenBucket } from '../service/waiting.ts'
import type { ZeroAdvance } from './checksum.ts'
import { handleOf } from './handles.ts'
import type { PageBits } from './page-bits.ts'
import { SegmentBuilder, sliceBytes } from './segment-builder.ts'
import type { RootPart } from './segment-format.ts'
import type { SegmentSlots } from './segment-slots.ts'
import { type Root, type SegmentObject, type SegmentTable, segmentObject } from './segment-table.ts'
import type { SegmentOwner } from './segment-writer.ts'

/**
 * Gives the space of dropped pages back: the live pages of segments that are half empty or emptier are copied into a
 * new segment, their roots pointed at it, and the old objects deleted. Handles stay what they are.
 *
 *   drop ─▶ too much garbage? ─▶ victims, emptiest first ─▶ read ─▶ one PUT ─▶ move roots ─▶ delete victims
 *
 * A victim has at least as many dropped pages as live ones, so what compaction writes is never more than what was
 * dropped. A copy that fails changes nothing.
 */

interface Move {
  readonly root: Root
  readonly victim: SegmentObject
  readonly base: number
  readonly survivors: PageBits
}

export class Compactor {
  runs = 0
  movedPages = 0
  lastError: Error | undefined
  readonly #parts: CompactorParts
  readonly #budget: TokenBucket | undefined
  readonly #stop = new AbortController()
  #running: Promise<void> | undefined

  constructor(parts: CompactorParts) {
    this.#parts = parts
    const { compaction, segmentBytes } = parts.settings
    if (compaction !== false) this.#budget = new TokenBucket(compaction.bytesPerSecond, segmentBytes)
  }

  /** Looks whether there is something to do; cheap. */
  poke(): void {
    if (this.#running !== undefined || this.#stop.signal.aborted || !this.#isDue()) return
    this.#running = this.#run()
      .catch((error: Error) => {
        this.lastError = error
      })
      .finally(() => {
        this.#running = undefined
      })
  }

  /** Ends what is under way. */
  async close(): Promise<void> {
    this.#stop.abort()
    await this.#running
  }

  #isDue(): boolean {
    const { settings, table } = this.#parts
    if (settings.compaction === false) return false
    const liveBytes = table.livePages * settings.pageSizeBytes
    return table.storedBytes > settings.compaction.maxAmplification * liveBytes + settings.segmentBytes
  }

  async #run(): Promise<void> {
    while (this.#isDue() && !this.#stop.signal.aborted) {
      const victims = this.#victims()
      if (victims.length === 0) return
      const { slots } = this.#parts
      // Writers come first: without a slot to spare compaction waits for the next drop.
      const slot = slots.inUse < slots.count - 1 ? slots.tryTake() : undefined
      if (slot === undefined) return
      for (const victim of victims) victim.readers++
      try {
        await this.#compact(victims, slots.memoryOf(slot))
      } finally {
        slots.give(slot)
        for (const victim of victims) this.#parts.table.release(victim)
      }
    }
  }

  /** Half empty segments, emptiest first, as many as fill one. */
  #victims(): SegmentObject[] {
    const { table, settings } = this.#parts
    const candidates: SegmentObject[] = []
    for (const object of table.objects) {
      if (!object.unmovable && object.livePages > 0 && object.livePages * 2 <= object.pages)
        candidates.push(object)
    }
    candidates.sort((left, right) => left.livePages / left.pages - right.livePages / right.pages)
    const victims: SegmentObject[] = []
    let pages = 0
    for (const candidate of candidates) {
      if (pages + candidate.livePages > settings.pagesPerSegment) break
      pages += candidate.livePages
      victims.push(candidate)
    }
    return victims
  }

  async #compact(victims: readonly SegmentObject[], buffer: Buffer): Promise<void> {
    const { settings, zeros, owner, table, keys, service, deletions } = this.#parts
    const { signal } = this.#stop
    const size = settings.pageSizeBytes
    const estimate = victims.reduce((sum, { livePages }) => sum + livePages, 0)
    await delay(this.#budget!.take(estimate * size), signal, { background: true })
    // What was dropped during the wait needs no copy.
    const moves: Move[] = []
    let pages = 0
    for (const victim of victims) {
      for (const root of victim.roots) {
        moves.push({ root, victim, base: pages, survivors: root.live.copy() })
        pages += root.livePages
      }
    }
    if (pages === 0 || !(await this.#read(moves, buffer, pages))) return
    const number = await owner.takeSegmentNumber(signal)
    const place = { epoch: owner.epoch, number, generation: owner.generation }
    const builder = new SegmentBuilder(place, settings, zeros, buffer)
    const slicePages = Math.max(1, Math.floor(sliceBytes / size))
    while (builder.pages < pages) {
      builder.addInPlace(Math.min(slicePages, pages - builder.pages))
      await yieldToEventLoop()
    }
    const { checksums, ...sums } = builder.finish(moves.map(rootPart))
    const { body } = builder
    const key = keys.segment(place.epoch, place.number)
    deletions.expect(key)
    try {
      await service.upload(key, body, { ...sums, signal })
      await owner.assertOwned()
      deletions.certain(key)
    } catch (error) {
      deletions.removeUncertain(key)
      owner.settled(place.number)
      throw error
    }
    const object = segmentObject(
      place.epoch,
      place.number,
      place.generation,
      pages,
      body.byteLength,
      checksums,
    )
    table.addObject(object)
    for (const { root, base, survivors } of moves) {
      if (table.roots.get(root.number) === root) table.moveRoot(root, object, base, survivors)
    }
    owner.settled(place.number)
    table.collect(object)
    this.runs++
    this.movedPages += pages
  }

  /** Reads the survivors. A segment with a damaged page, or one that is gone, stays where it is from then on. */
  async #read(moves: readonly Move[], buffer: Buffer, pages: number): Promise<boolean> {
    const { restores, settings } = this.#parts
    const handles: HandleRun[] = []
    for (const { root, survivors } of moves) {
      survivors.forEachRun((first, count) => handles.push({ first: handleOf(root.number, first), count }))
    }
    const memory = buffer.subarray(0, pages * settings.pageSizeBytes)
    const { copied, error } = await new Promise<CopyResult>((resolve) => {
      restores.copy(handles, [memory], { signal: this.#stop.signal }, resolve)
    })
    if (error === undefined) return true
    // An outage passes: the next drop looks again. What is damaged or gone stays so.
    if (!isSpillwayError(error) || (error.code !== 'EBADMSG' && error.code !== 'ENOENT')) throw error
    this.lastError = error
    const damaged = moves.findLast(({ base }) => base <= copied)!
    damaged.victim.unmovable = true
    return false
  }
}

export interface CompactorParts {
  readonly settings: Settings
  readonly restores: Restores
  readonly service: S3Service
  readonly table: SegmentTable
  readonly keys: KeySpace
  readonly slots: SegmentSlots
  readonly zeros: ZeroAdvance
  readonly deletions: Deletions
  readonly owner: SegmentOwner
}

function rootPart({ root, survivors }: Move): RootPart {
  const places = new Uint32Array(survivors.count())
  let next = 0
  survivors.forEachRun((first, count) => {
    for (let page = first; page < first + count; page++) places[next++] = page
  })
  return { number: root.number, pages: places.length, places }
}
