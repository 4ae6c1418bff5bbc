import {
  type Backup,
  type BackupPagesOptions,
  type CopyDone,
  type HandleRun,
  innerError,
  isFullError,
  SpanCursor,
  type StagingBuffer,
  type StagingBuffers,
  type Stopped,
  systemError,
  type TransferOptions,
  workInTurn,
} from '@spillway/core'
import type { Compactor } from './compactor.ts'
import { fillWith, isSameFilled, looksRandom, Trials, wordOf } from './content.ts'
import { makePack, padding } from './made-pack.ts'
import type { Pack } from './pack.ts'
import type { Built, PackBuilder, Window } from './pack-builder.ts'
import {
  innerPagesOf,
  type PackReader,
  type ReadFailure,
  type UnitRead,
  unpackingBytes,
} from './pack-reader.ts'
import type { Places } from './places.ts'

export interface CompressedPagesParts {
  readonly backup: string
  readonly inner: Backup
  readonly unitPages: number
  readonly places: Places
  readonly builder: PackBuilder
  readonly reader: PackReader
  readonly compactor: Compactor
  readonly staging: StagingBuffers
}

/** Fewer pages are not worth a pack of their own. */
const leastPackPages = 4

/** What is to become of the pages of a call, by their positions in it. */
interface Plan {
  readonly windows: Window[]
  readonly raw: Positions
  readonly filled: number[]
}

/**
 * Stores and reads pages that are compressed where that saves space:
 *
 *   pages ──┬─ one word all over ──▶ its word
 *           ├─ looks random ───────▶ raw, from where they lie
 *           └─ else ── compress ──┬─ shrinks ──▶ pack
 *                                 └─ does not ─▶ raw
 */
export class CompressedPages {
  readonly #parts: CompressedPagesParts
  readonly #pageSizeBytes: number
  readonly #trials = new Trials()

  constructor(parts: CompressedPagesParts) {
    this.#parts = parts
    this.#pageSizeBytes = parts.inner.capabilities.pageSizeBytes
  }

  async store(
    first: number,
    spans: readonly Uint8Array[],
    options: BackupPagesOptions,
  ): Promise<Stopped | undefined> {
    const count = spans.reduce((bytes, span) => bytes + span.byteLength, 0) / this.#pageSizeBytes
    let done = 0
    const rest = () => {
      const cursor = new SpanCursor(spans)
      cursor.take(done * this.#pageSizeBytes)
      return cursor.take((count - done) * this.#pageSizeBytes)
    }
    for (;;) {
      const stopped = await stopOf(this.#storePacked(first + done, count - done, rest(), options))
      if (stopped === undefined) return undefined
      done += stopped.pages
      if (!isFullError(stopped.error)) return { pages: done, error: stopped.error }
      const hasRoom = options.signal?.aborted !== true && (await this.#parts.compactor.makeRoom())
      if (hasRoom) continue
      // The room that is left takes the first pages as they are.
      const { pages, error } = await this.#parts.places.raw.store(first + done, rest(), options)
      return error === undefined ? undefined : { pages: done + pages, error }
    }
  }

  async copyRuns(
    runs: readonly HandleRun[],
    spans: readonly Uint8Array[],
    options: TransferOptions,
  ): Promise<Stopped | undefined> {
    const { reader } = this.#parts
    const wish = this.#sort(runs, new SpanCursor(spans))
    try {
      const raw = await this.#copyRaw(wish.raw, options)
      const packed = wish.units.length > 0 ? await this.#copyPacked(wish.units, options) : undefined
      const failure = earlier(raw, packed)
      return failure === undefined ? undefined : { pages: failure.place, error: failure.error }
    } finally {
      for (const { pack } of wish.units) reader.leave(pack)
    }
  }

  startCopy(first: number, span: Uint8Array, done: CopyDone): boolean {
    const { places } = this.#parts
    const count = span.byteLength / this.#pageSizeBytes
    if (places.raw.has(first)) return places.raw.startCopy(first, span, done)
    const found = places.packOf(first)
    if (found === undefined) return this.#fillNow(first, span, done)
    const { pack, position } = found
    const window = pack.windowOf(position)
    const isOneUnit = pack.windowOf(position + count - 1) === window
    for (let page = 1; page < count; page++) {
      if (!isOneUnit || places.packOf(first + page)?.pack !== pack) return false
    }
    const wanted = Array.from({ length: count }, (_, page) => ({
      placeInUnit: pack.placeInUnit(position + page),
      page: span.subarray(page * this.#pageSizeBytes, (page + 1) * this.#pageSizeBytes),
    }))
    return this.#startUnit({ pack, window, wanted, place: 0, number: first }, done)
  }

  async drop(handles: readonly HandleRun[]): Promise<void> {
    const { places, compactor, backup } = this.#parts
    try {
      await places.drop(handles)
    } catch (failure) {
      throw innerError(failure as Error, { backup })
    }
    compactor.wake()
  }

  /** Stores a prefix; what does not fit beside what was stored before it is as if it had never been. */
  async #storePacked(
    first: number,
    count: number,
    spans: readonly Uint8Array[],
    options: BackupPagesOptions,
  ): Promise<Stopped | undefined> {
    const { places, staging, backup } = this.#parts
    const buffer = await staging.take(options.signal)
    const plan: Plan = { windows: [], raw: new Positions(), filled: [] }
    let kept = 0
    try {
      this.#plan(plan, first, count, new SpanCursor(spans))
      const built = await this.#build(plan, buffer)
      const failure = await this.#put(first, spans, { plan, built }, options)
      kept = failure?.place ?? count
      return failure && { pages: kept, error: innerError(failure.error, { backup, page: kept }) }
    } finally {
      for (const position of plan.filled) if (position >= kept) places.fills.delete(first + position)
      staging.give(buffer)
    }
  }

  /** Decides what becomes of each page, as far as a look tells. */
  #plan(plan: Plan, first: number, count: number, source: SpanCursor): void {
    const { unitPages, places } = this.#parts
    for (let start = 0; start < count; start += unitPages) {
      const content: Uint8Array[] = []
      let pages = 0
      for (let position = start; position < Math.min(count, start + unitPages); position++) {
        const page = source.next(this.#pageSizeBytes)
        if (isSameFilled(page) && places.fills.set(first + position, wordOf(page))) {
          plan.filled.push(position)
          continue
        }
        pages |= 1 << (position - start)
        content.push(page)
      }
      if (content.length === 0) continue
      const isTrial = count >= leastPackPages && looksRandom(content)
      const window = { window: start / unitPages, pages, content, isTrial }
      if (count < leastPackPages || (isTrial && !this.#trials.isDue())) plan.raw.addWindow(window, unitPages)
      else plan.windows.push(window)
    }
  }

  /** The pack of what shrinks, where it saves a page at least; the other windows become raw. */
  async #build(plan: Plan, { memory }: StagingBuffer): Promise<Built | undefined> {
    const { builder, unitPages } = this.#parts
    if (plan.windows.length === 0) return undefined
    const built = await builder.build(plan.windows, memory, false)
    const shrunk = new Set(built.units.map(({ window }) => window))
    for (const { window, isTrial } of plan.windows) if (isTrial) this.#trials.ended(shrunk.has(window))
    const isWorthIt = builder.savedPages(built) > 0
    for (const window of plan.windows)
      if (!isWorthIt || !shrunk.has(window.window)) plan.raw.addWindow(window, unitPages)
    if (!isWorthIt) return undefined
    const end = built.bytes.byteOffset + built.bytes.byteLength - memory.byteOffset
    const pagesEnd = end + padding(built.bytes.byteLength, this.#pageSizeBytes)
    memory.fill(0, end, pagesEnd)
    return built
  }

  /** Puts pack and raw pages into the inner backup, and keeps those before the first that it did not take. */
  async #put(
    first: number,
    spans: readonly Uint8Array[],
    { plan, built }: { plan: Plan; built: Built | undefined },
    options: BackupPagesOptions,
  ): Promise<ReadFailure | undefined> {
    const { places } = this.#parts
    const raw = plan.raw.runs()
    const [rawFailure, packed] = await Promise.all([
      this.#putRaw(first, raw, spans, options),
      built && this.#putPack(first, built, options),
    ])
    const failure = earlier(rawFailure?.failure, packed?.failure)
    const kept = failure?.place ?? Number.POSITIVE_INFINITY
    if (rawFailure !== undefined || failure !== undefined) {
      const stored = rawFailure?.stored ?? Number.POSITIVE_INFINITY
      await places.discard(runsAt(first, raw, kept, stored), places.raw)
    }
    if (packed?.pack !== undefined) await this.#keepPack(packed.pack, kept)
    return failure
  }

  async #putRaw(
    first: number,
    raw: readonly HandleRun[],
    spans: readonly Uint8Array[],
    options: BackupPagesOptions,
  ): Promise<{ stored: number; failure: ReadFailure } | undefined> {
    if (raw.length === 0) return undefined
    const runs = raw.map((run) => ({ first: first + run.first, count: run.count }))
    const { pages, error } = await stored(
      this.#parts.places.raw.storeRuns(runs, this.#spansAt(raw, spans), options),
    )
    return error === undefined ? undefined : { stored: pages, failure: { place: nth(raw, pages), error } }
  }

  async #putPack(
    first: number,
    { units, bytes }: Built,
    options: BackupPagesOptions,
  ): Promise<{ pack?: Pack; failure?: ReadFailure }> {
    const { places, unitPages } = this.#parts
    const windows = units[units.length - 1].window + 1
    const { pack, memory } = makePack(places, {
      firstNumber: first,
      windows,
      units,
      bytes,
      unitPages,
      pageSizeBytes: this.#pageSizeBytes,
    })
    const { pages, error } = await stored(places.packPages.store(pack.firstInnerPage, [memory], options))
    if (error === undefined) return { pack }
    if (pages > 0) await places.discard([{ first: pack.firstInnerPage, count: pages }])
    const [{ window, pages: bits }] = units
    return { failure: { place: window * unitPages + lowestBit(bits), error } }
  }

  /** Lets a pack in, less the pages from `kept` on. */
  async #keepPack(pack: Pack, kept: number): Promise<void> {
    const { places } = this.#parts
    const unused: HandleRun[] = []
    for (const number of [...places.numbersIn(pack)]) {
      const position = number - pack.firstNumber
      if (position < kept) continue
      pack.release(position, (page) => unused.push({ first: pack.firstInnerPage + page, count: 1 }))
    }
    if (!pack.isDead) places.install(pack)
    await places.discard(unused)
  }

  #spansAt(runs: readonly HandleRun[], spans: readonly Uint8Array[]): Uint8Array[] {
    const cursor = new SpanCursor(spans)
    const chosen: Uint8Array[] = []
    let at = 0
    for (const { first, count } of runs) {
      if (first > at) cursor.take((first - at) * this.#pageSizeBytes)
      chosen.push(...cursor.take(count * this.#pageSizeBytes))
      at = first + count
    }
    return chosen
  }

  /** Fills what is same-filled, and sorts the rest by what has to be read for it. Each unit's pack is entered. */
  #sort(runs: readonly HandleRun[], target: SpanCursor): { raw: RawRead; units: UnitRead[] } {
    const { places, reader } = this.#parts
    const raw: RawRead = { runs: [], spans: [], places: [] }
    const units: UnitRead[] = []
    let place = 0
    for (const { first, count } of runs) {
      for (let number = first; number < first + count; number++, place++) {
        const page = target.next(this.#pageSizeBytes)
        const word = places.fills.wordOf(number)
        const found = word === undefined ? places.packOf(number) : undefined
        if (word !== undefined) fillWith(page, word)
        else if (found === undefined) addRaw(raw, number, place, page)
        else if (addPacked(units, { number, place, page, ...found })) reader.enter(found.pack)
      }
    }
    return { raw, units }
  }

  async #copyRaw(raw: RawRead, options: TransferOptions): Promise<ReadFailure | undefined> {
    if (raw.runs.length === 0) return undefined
    const stopped = await this.#parts.places.raw.copy(raw.runs, raw.spans, options)
    return stopped && { place: raw.places[stopped.pages], error: stopped.error }
  }

  async #copyPacked(units: readonly UnitRead[], options: TransferOptions): Promise<ReadFailure | undefined> {
    const { staging, reader, backup } = this.#parts
    let buffer: StagingBuffer
    try {
      buffer = await staging.take(options.signal)
    } catch (failure) {
      const [{ place }] = units
      return { place, error: innerError(failure as Error, { backup, page: place }) }
    }
    try {
      return await reader.read(units, buffer.memory, options)
    } finally {
      staging.give(buffer)
    }
  }

  #fillNow(first: number, span: Uint8Array, done: CopyDone): boolean {
    const { fills } = this.#parts.places
    const count = span.byteLength / this.#pageSizeBytes
    for (let page = 0; page < count; page++) {
      const word = fills.wordOf(first + page)
      if (word === undefined) return false
      fillWith(span.subarray(page * this.#pageSizeBytes, (page + 1) * this.#pageSizeBytes), word)
    }
    done(count)
    return true
  }

  /** Starts reading one unit; false where there is no staging memory at once, or the inner backup cannot begin. */
  #startUnit(read: UnitRead, done: CopyDone): boolean {
    const { staging, places, reader } = this.#parts
    const { pack, window } = read
    if (pack.memory !== undefined) return false
    const buffer = staging.takeNow()
    if (buffer === undefined) return false
    const { memory } = buffer
    const { first, count } = innerPagesOf(pack, window, this.#pageSizeBytes)
    const start = pack.startOf(window) % this.#pageSizeBytes
    const bytes = memory.subarray(start, start + pack.lengthOf(window))
    const end = (copied: number, error: Error | undefined): void => {
      const unpack = (): void => {
        const failure = this.#unpackNow(read, bytes, memory.subarray(memory.byteLength / 2))
        finish(failure === undefined ? read.wanted.length : 0, failure)
      }
      // Many copies may end in one turn of the event loop.
      if (error !== undefined || copied < count) finish(0, error)
      else void workInTurn(unpackingBytes(read), unpack)
    }
    const finish = (pages: number, failure: Error | undefined): void => {
      leave()
      done(pages, failure)
    }
    const leave = (): void => {
      staging.give(buffer)
      reader.leave(pack)
    }
    reader.enter(pack)
    const began = places.packPages.startCopy(first, memory.subarray(0, count * this.#pageSizeBytes), end)
    if (!began) leave()
    return began
  }

  #unpackNow(read: UnitRead, bytes: Uint8Array, scratch: Uint8Array): Error | undefined {
    const { reader, backup } = this.#parts
    try {
      reader.unpack(read, bytes, scratch)
      return undefined
    } catch (failure) {
      const told = systemError(failure, 'cannot decompress', { backup })
      return innerError(told, { backup, page: 0, handle: read.number })
    }
  }
}

/** Raw pages to be read: in runs of numbers, and the places in the call that they are for. */
interface RawRead {
  readonly runs: HandleRun[]
  readonly spans: Uint8Array[]
  readonly places: number[]
}

/** Positions of single pages, by runs. */
class Positions {
  readonly #positions: number[] = []

  addWindow({ window, pages }: Window, unitPages: number): void {
    for (let bit = 0; bit < unitPages; bit++) {
      if (((pages >>> bit) & 1) === 1) this.#positions.push(window * unitPages + bit)
    }
  }

  runs(): HandleRun[] {
    const runs: HandleRun[] = []
    for (const position of this.#positions.sort((one, other) => one - other)) append(runs, position)
    return runs
  }
}

/** Adds a number to runs that end before it. */
function append(runs: HandleRun[], number: number): void {
  const last = runs.at(-1)
  if (last !== undefined && last.first + last.count === number)
    runs[runs.length - 1] = { ...last, count: last.count + 1 }
  else runs.push({ first: number, count: 1 })
}

function addRaw(raw: RawRead, number: number, place: number, page: Uint8Array): void {
  append(raw.runs, number)
  raw.places.push(place)
  const last = raw.spans.at(-1)
  const goesOn = last?.buffer === page.buffer && last.byteOffset + last.byteLength === page.byteOffset
  if (last === undefined || !goesOn) raw.spans.push(page)
  else
    raw.spans[raw.spans.length - 1] = new Uint8Array(
      last.buffer,
      last.byteOffset,
      last.byteLength + page.byteLength,
    )
}

/** True when a unit was added, and not only a page to the last one. */
function addPacked(
  units: UnitRead[],
  wish: { number: number; place: number; page: Uint8Array; pack: Pack; position: number },
): boolean {
  const { number, place, page, pack, position } = wish
  const window = pack.windowOf(position)
  const wanted = { placeInUnit: pack.placeInUnit(position), page }
  const last = units.at(-1)
  if (last !== undefined && last.pack === pack && last.window === window) {
    last.wanted.push(wanted)
    return false
  }
  units.push({ pack, window, wanted: [wanted], place, number })
  return true
}

/** A call of an inner backup that was refused has stored nothing. */
async function stored(
  call: Promise<{ pages: number; error?: Error }>,
): Promise<{ pages: number; error?: Error }> {
  try {
    return await call
  } catch (failure) {
    return { pages: 0, error: failure instanceof Error ? failure : new Error(String(failure)) }
  }
}

/** What stopped a step: that it threw as well, before its first page. */
async function stopOf(step: Promise<Stopped | undefined>): Promise<Stopped | undefined> {
  try {
    return await step
  } catch (failure) {
    return { pages: 0, error: systemError(failure, 'cannot store pages') }
  }
}

function earlier(one: ReadFailure | undefined, other: ReadFailure | undefined): ReadFailure | undefined {
  if (one === undefined || other === undefined) return one ?? other
  return one.place <= other.place ? one : other
}

/** The position of the `index`th page of the runs. */
function nth(runs: readonly HandleRun[], index: number): number {
  let before = 0
  for (const { first, count } of runs) {
    if (index < before + count) return first + index - before
    before += count
  }
  return Number.POSITIVE_INFINITY
}

/** Numbers of the first `stored` positions, of those from `kept` on. */
function runsAt(first: number, positions: readonly HandleRun[], kept: number, stored: number): HandleRun[] {
  const runs: HandleRun[] = []
  let before = 0
  for (const run of positions) {
    const end = Math.min(run.first + run.count, run.first + stored - before)
    for (let position = Math.max(run.first, kept); position < end; position++) append(runs, first + position)
    before += run.count
  }
  return runs
}

function lowestBit(bits: number): number {
  return 31 - Math.clz32(bits & -bits)
}
