import {
  type Backup,
  isFullError,
  type StagingBuffer,
  type StagingBuffers,
  startTimer,
  stopTimer,
} from '@spillway/core'
import { makePack, padding } from './made-pack.ts'
import type { Pack } from './pack.ts'
import type { Built, PackBuilder, Window } from './pack-builder.ts'
import type { PackReader, UnitRead } from './pack-reader.ts'
import type { Places } from './places.ts'

export interface CompactorParts {
  readonly inner: Backup
  readonly places: Places
  readonly reader: PackReader
  readonly builder: PackBuilder
  readonly staging: StagingBuffers
  readonly bytesPerSecond: number
}

/** Space that may be wasted, as a share of what is needed. */
const wasteAllowed = 0.15
/** Less is not worth reading and storing anything. */
const leastWasteBytes = 64 * 1024
/** Packs that are looked at to choose one. */
const packsLookedAt = 256
const pauseAfterFailureMs = 1000

/**
 * Gives back the space of units that were dropped in part: it reads a pack, stores what is live of it as a new one, and then drops the
 * old one's pages, one pack at a time and at a bounded rate. Where the inner backup has no room for both, the new pack is kept in memory
 * while the old one's pages are dropped, and stored then: one pack at most.
 */
export class Compactor {
  readonly #parts: CompactorParts
  readonly #pageSizeBytes: number
  /** Packs that could not be made smaller, with the bytes that were live then. */
  readonly #settled = new WeakMap<Pack, number>()
  /** The pack that waits in memory for room. */
  #homeless: Pack | undefined
  #step: Promise<unknown> = Promise.resolve()
  #isRunning = false
  #isStopped = false
  #wakeUp: (() => void) | undefined
  #movedBytes = 0
  #failures = 0

  constructor(parts: CompactorParts) {
    this.#parts = parts
    this.#pageSizeBytes = parts.inner.capabilities.pageSizeBytes
  }

  get figures() {
    return {
      compactedBytes: this.#movedBytes,
      compactionErrors: this.#failures,
      bytesInMemory: this.#homeless?.memory?.byteLength ?? 0,
    }
  }

  /** Something was dropped: goes to work, unless it is at it, or there is too little to gain. */
  wake(): void {
    if (this.#isRunning || this.#isStopped || !this.#hasWork()) return
    this.#isRunning = true
    void this.#run()
  }

  /** Makes room for somebody who needs it now. False when there is nothing to be had. */
  async makeRoom(): Promise<boolean> {
    return this.#isStopped ? false : (await this.#inTurn(() => this.#compactOne(1))) > 0
  }

  /** Ends what is under way, and begins nothing any more. */
  async stop(): Promise<void> {
    this.#isStopped = true
    this.#wakeUp?.()
    await this.#step
  }

  #hasWork(): boolean {
    const { places } = this.#parts
    const wasteBytes = places.heldBytes - places.neededBytes
    const mostBytes = Math.max(leastWasteBytes, places.neededBytes * wasteAllowed)
    return wasteBytes > mostBytes || places.refusedHandles > 0 || this.#homeless !== undefined
  }

  async #run(): Promise<void> {
    while (!this.#isStopped && this.#hasWork()) {
      const before = this.#movedBytes
      const freed = await this.#inTurn(() => this.#compactOne(leastWasteBytes))
      const failed = freed === 0 && (this.#parts.places.refusedHandles > 0 || this.#homeless !== undefined)
      if (freed === 0 && !failed) break
      const moved = this.#movedBytes - before
      await this.#pause(failed ? pauseAfterFailureMs : (moved / this.#parts.bytesPerSecond) * 1000)
    }
    this.#isRunning = false
  }

  async #inTurn(work: () => Promise<number>): Promise<number> {
    const result = this.#step.then(work)
    this.#step = result.catch(() => {})
    return await result
  }

  /** Makes one pack smaller that wastes so many bytes at least. Resolves to the pages that came free; never rejects. */
  async #compactOne(leastBytes: number): Promise<number> {
    const { places, reader } = this.#parts
    const refused = places.refusedHandles
    await places.retryRefused()
    const dropped = Math.max(0, refused - places.refusedHandles)
    if (!(await this.#houseHomeless())) return dropped
    const pack = this.#choose(leastBytes)
    if (pack === undefined) return dropped
    const needed = pack.liveBytes
    reader.enter(pack)
    try {
      const freed = await this.#rewrite(pack)
      if (freed <= 0) this.#settled.set(pack, needed)
      return dropped + Math.max(0, freed)
    } catch {
      this.#failures++
      this.#settled.set(pack, needed)
      return dropped
    } finally {
      reader.leave(pack)
    }
  }

  /** The pack that wastes most, of those that are looked at. */
  #choose(leastBytes: number): Pack | undefined {
    let chosen: Pack | undefined
    let mostBytes = Math.max(leastBytes, this.#pageSizeBytes) - 1
    let looked = 0
    for (const pack of this.#parts.places.packs) {
      const needed = pack.liveBytes
      const wasteBytes = pack.heldPages * this.#pageSizeBytes - needed
      if (wasteBytes <= mostBytes || this.#settled.get(pack) === needed || pack === this.#homeless) continue
      chosen = pack
      mostBytes = wasteBytes
      if (++looked >= packsLookedAt) break
    }
    return chosen
  }

  /** Stores the live pages of a pack as another pack. Resolves to the pages that this saves. */
  async #rewrite(pack: Pack): Promise<number> {
    const { staging, places, builder } = this.#parts
    const from = await staging.take()
    const to = await staging.take()
    try {
      const windows = await this.#readLive(pack, from)
      if (windows.length === 0) return 0
      const built = await builder.build(windows, to.memory, true)
      const pages = Math.ceil(built.bytes.byteLength / this.#pageSizeBytes)
      const saved = pack.heldPages - pages
      if (saved <= 0) return 0
      const by = this.#makePack(pack, built)
      this.#movedBytes += (pack.heldPages + pages) * this.#pageSizeBytes
      const { pages: stored, error } = await places.packPages.store(by.pack.firstInnerPage, [by.memory], {})
      if (error === undefined) {
        await this.#replace(pack, by.pack)
        return saved
      }
      if (stored > 0) await places.discard([{ first: by.pack.firstInnerPage, count: stored }])
      if (!isFullError(error)) throw error
      by.pack.memory = by.memory.slice()
      this.#homeless = by.pack
      await this.#replace(pack, by.pack)
      return saved
    } finally {
      staging.give(from)
      staging.give(to)
    }
  }

  /** The pages of each unit that are live, decompressed. */
  async #readLive(pack: Pack, { memory }: StagingBuffer): Promise<Window[]> {
    const windows: Window[] = []
    const units: UnitRead[] = []
    const content = new Uint8Array(memory.byteLength / 2)
    let used = 0
    for (let window = 0; window < pack.windows; window++) {
      const live = pack.liveOf(window)
      if (live === 0) continue
      const wanted: { placeInUnit: number; page: Uint8Array }[] = []
      for (let bit = 0; bit < pack.unitPages; bit++) {
        if (((live >>> bit) & 1) === 0) continue
        const page = content.subarray(used, used + this.#pageSizeBytes)
        wanted.push({ placeInUnit: pack.placeInUnit(window * pack.unitPages + bit), page })
        used += this.#pageSizeBytes
      }
      windows.push({ window, pages: live, content: wanted.map(({ page }) => page) })
      units.push({
        pack,
        window,
        wanted,
        place: units.length,
        number: pack.firstNumber + window * pack.unitPages,
      })
    }
    const failure = await this.#parts.reader.read(units, memory, {})
    if (failure !== undefined) throw failure.error
    return windows
  }

  #makePack(pack: Pack, built: Built): { pack: Pack; memory: Uint8Array } {
    const { bytes } = built
    const missing = padding(bytes.byteLength, this.#pageSizeBytes)
    new Uint8Array(bytes.buffer, bytes.byteOffset + bytes.byteLength, missing).fill(0)
    return makePack(this.#parts.places, {
      ...built,
      firstNumber: pack.firstNumber,
      windows: pack.windows,
      unitPages: pack.unitPages,
      pageSizeBytes: this.#pageSizeBytes,
    })
  }

  /** What was dropped while the new pack was made is not live in it either. */
  async #replace(old: Pack, by: Pack): Promise<void> {
    const { places } = this.#parts
    await places.inTurn(async () => {
      const unused: { first: number; count: number }[] = []
      for (const number of [...places.numbersIn(by)]) {
        if (places.packOf(number)?.pack === old) continue
        by.release(number - by.firstNumber, (page) => {
          if (by.memory === undefined) unused.push({ first: by.firstInnerPage + page, count: 1 })
        })
      }
      places.replace(old, by)
      await places.discard(unused)
    })
  }

  /** Stores the pack that waits in memory. False when there is still no room. */
  async #houseHomeless(): Promise<boolean> {
    const pack = this.#homeless
    if (pack?.memory === undefined) return true
    const { places } = this.#parts
    const first = places.newInnerPages(pack.pageCount)
    try {
      const { pages, error } = await places.packPages.store(first, [pack.memory], {})
      if (error === undefined) {
        await places.inTurn(() => places.rehome(pack, first))
        this.#homeless = undefined
        return true
      }
      if (pages > 0) await places.discard([{ first, count: pages }])
    } catch {
      this.#failures++
    }
    return false
  }

  /** Waits, without keeping the process alive. */
  async #pause(delayMs: number): Promise<void> {
    await new Promise<void>((resolve) => {
      const timer = startTimer(resolve, delayMs)
      timer.unref?.()
      this.#wakeUp = () => {
        stopTimer(timer)
        resolve()
      }
    })
    this.#wakeUp = undefined
  }
}
