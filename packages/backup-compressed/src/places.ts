import { type Backup, type HandleRun, InnerPages, pace, RunMap, smallCallBytes } from '@spillway/core'
import { FillTable } from './fill-table.ts'
import type { Pack } from './pack.ts'

export interface PlacesParts {
  /** Names the outer backup in errors. */
  readonly backup: string
  readonly inner: Backup
  /** Pages of a pack before they are compressed, at most. */
  readonly packPages: number
}

/**
 * Where each live page is, by its number. The one place that changes what is where:
 *
 *   same-filled   only its word is kept
 *   raw           a page of the inner backup
 *   packed        in a unit of a pack, whose bytes are in pages of the inner backup
 */
export class Places {
  readonly fills = new FillTable()
  /** Raw pages, by their own numbers. */
  readonly raw: InnerPages
  /** Pages that packs are in, numbered as they are made. */
  readonly packPages: InnerPages
  readonly #inner: Backup
  readonly #packPagesEach: number
  readonly #packs = new Map<number, Pack>()
  /** Number of a packed page → `pack id × pages of a pack + position in it`. */
  readonly #packed = new RunMap()
  /** Handles of the inner backup that it would not drop, to be dropped later. */
  #refused: HandleRun[] = []
  #nextPack = 0
  #nextInnerPage = 1
  #heldPages = 0
  #liveBytes = 0
  #turn: Promise<unknown> = Promise.resolve()

  constructor(parts: PlacesParts) {
    this.#inner = parts.inner
    this.#packPagesEach = parts.packPages
    this.raw = new InnerPages(parts.backup, parts.inner)
    this.packPages = new InnerPages(parts.backup, parts.inner)
  }

  get packs(): Iterable<Pack> {
    return this.#packs.values()
  }

  /** Pages that the inner backup would not drop when they were not needed any more. */
  get refusedHandles(): number {
    return this.#refused.reduce((pages, { count }) => pages + count, 0)
  }

  /** Bytes of the inner backup that packs take. */
  get heldBytes(): number {
    return this.#heldPages * this.#inner.capabilities.pageSizeBytes
  }

  /** Bytes of them that live pages need. */
  get neededBytes(): number {
    return this.#liveBytes
  }

  get metadataBytes(): number {
    let bytes = this.#packed.metadataBytes + this.packPages.metadataBytes + this.raw.metadataBytes
    for (const pack of this.#packs.values()) bytes += pack.metadataBytes
    return bytes + this.fills.metadataBytes
  }

  newPackId(): number {
    return this.#nextPack++
  }

  newInnerPages(count: number): number {
    const first = this.#nextInnerPage
    this.#nextInnerPage += count
    return first
  }

  /** The pack of a packed page, and its position there; `undefined` for another page. */
  packOf(number: number): { readonly pack: Pack; readonly position: number } | undefined {
    const target = this.#packed.targetOf(number)
    if (target === undefined) return undefined
    const pack = this.#packs.get(Math.floor(target / this.#packPagesEach))!
    return { pack, position: target % this.#packPagesEach }
  }

  /** Lets the pages that are live in a pack be read from it, in the place of whatever held them. */
  install(pack: Pack): void {
    this.#packs.set(pack.id, pack)
    this.#count(pack, 1)
    const base = pack.id * this.#packPagesEach - pack.firstNumber
    for (const number of this.numbersIn(pack)) this.#packed.set(number, 1, base + number)
  }

  /** The live pages of a pack. */
  *numbersIn(pack: Pack): Generator<number> {
    for (let position = 0; position < pack.windows * pack.unitPages; position++) {
      if (isSet(pack.liveOf(pack.windowOf(position)), position % pack.unitPages))
        yield pack.firstNumber + position
    }
  }

  /** Another pack has what was live in this one. Its pages go when nobody reads them any more. */
  replace(old: Pack, by: Pack): void {
    this.#count(old, -1)
    this.#packs.delete(old.id)
    old.isReplaced = true
    this.install(by)
  }

  /** A pack that was in memory lies in these pages of the inner backup from now on. */
  async rehome(pack: Pack, firstInnerPage: number): Promise<void> {
    const isKnown = this.#packs.has(pack.id)
    if (isKnown) this.#count(pack, -1)
    pack.firstInnerPage = firstInnerPage
    pack.memory = undefined
    if (isKnown) this.#count(pack, 1)
    await this.discard(this.heldBy(pack).flatMap((run) => unusedOf(pack, run, isKnown)))
  }

  /** The inner pages of a pack that are held: to be dropped once it is replaced or dead. */
  heldBy(pack: Pack): HandleRun[] {
    const held: HandleRun[] = []
    for (let page = 0; page < pack.pageCount; page++) {
      const number = pack.firstInnerPage + page
      if (!this.packPages.has(number)) continue
      const last = held.at(-1)
      if (last !== undefined && last.first + last.count === number)
        held[held.length - 1] = { ...last, count: last.count + 1 }
      else held.push({ first: number, count: 1 })
    }
    return held
  }

  /** Runs what changes packs one after the other: what it decides holds until it is done. */
  async inTurn<Result>(work: () => Promise<Result>): Promise<Result> {
    const before = this.#turn
    const result = before.then(work)
    this.#turn = result.catch(() => {})
    return await result
  }

  /** Releases all of these pages, or throws what the inner backup said and has released none. */
  async drop(handles: readonly HandleRun[]): Promise<void> {
    await this.inTurn(async () => {
      const dropping = new Dropping(this)
      for (const { first, count } of handles) {
        for (let done = 0; done < count; done += pagesBetweenTurns) {
          const turn = pace(pagesBetweenTurns * smallCallBytes)
          if (turn !== undefined) await turn
          for (let at = done; at < Math.min(count, done + pagesBetweenTurns); at++) dropping.add(first + at)
        }
      }
      const touched = [...dropping.packs]
      for (const pack of touched) this.#count(pack, -1)
      const unused = dropping.release()
      const inner = [...this.raw.handlesOf(dropping.raw), ...this.packPages.handlesOf(unused)]
      try {
        if (inner.length > 0) await this.#inner.drop(inner)
      } catch (failure) {
        dropping.revive()
        for (const pack of touched) this.#count(pack, 1)
        throw failure
      }
      this.raw.forget(dropping.raw)
      this.packPages.forget(unused)
      for (const { number } of dropping.packed) this.#packed.delete(number, 1)
      for (const number of dropping.fills) this.fills.delete(number)
      for (const pack of touched) {
        if (pack.isDead) this.#packs.delete(pack.id)
        else this.#count(pack, 1)
      }
    })
  }

  /** Drops pages of the inner backup that nobody can name any more. Those that it will not drop now are tried again later. */
  async discard(pages: readonly HandleRun[], kind: InnerPages = this.packPages): Promise<void> {
    const handles = kind.handlesOf(pages)
    kind.forget(pages)
    await this.#discardHandles(handles)
  }

  /** Tries again what was refused before. */
  async retryRefused(): Promise<void> {
    const handles = this.#refused
    this.#refused = []
    await this.#discardHandles(handles)
  }

  async #discardHandles(handles: readonly HandleRun[]): Promise<void> {
    if (handles.length === 0) return
    try {
      await this.#inner.drop(handles)
    } catch {
      for (const run of handles) this.#refused.push(run)
    }
  }

  #count(pack: Pack, sign: 1 | -1): void {
    this.#heldPages += sign * (pack.memory === undefined ? pack.heldPages : 0)
    this.#liveBytes += sign * pack.liveBytes
  }
}

const pagesBetweenTurns = 512

/** Pages that one call of `drop` releases, by kind. */
class Dropping {
  readonly raw: HandleRun[] = []
  readonly fills: number[] = []
  readonly packed: { readonly number: number; readonly pack: Pack; readonly position: number }[] = []
  readonly packs = new Set<Pack>()
  readonly #places: Places

  constructor(places: Places) {
    this.#places = places
  }

  add(number: number): void {
    const found = this.#places.packOf(number)
    if (found !== undefined) {
      this.packed.push({ number, ...found })
      this.packs.add(found.pack)
    } else if (this.#places.raw.has(number)) {
      const last = this.raw.at(-1)
      if (last !== undefined && last.first + last.count === number)
        this.raw[this.raw.length - 1] = { ...last, count: last.count + 1 }
      else this.raw.push({ first: number, count: 1 })
    } else {
      this.fills.push(number)
    }
  }

  /** Pages that packs do not need any more. */
  release(): HandleRun[] {
    const unused: HandleRun[] = []
    for (const { pack, position } of this.packed) {
      pack.release(position, (page) => {
        if (pack.memory === undefined) unused.push({ first: pack.firstInnerPage + page, count: 1 })
      })
    }
    return unused
  }

  revive(): void {
    for (const { pack, position } of this.packed) pack.revive(position)
  }
}

/** Those of held pages that a pack does not need; all of them once it is forgotten. */
function unusedOf(pack: Pack, { first, count }: HandleRun, isKnown: boolean): HandleRun[] {
  const unused: HandleRun[] = []
  for (let page = first; page < first + count; page++) {
    if (!isKnown || !pack.uses(page - pack.firstInnerPage)) unused.push({ first: page, count: 1 })
  }
  return unused
}

function isSet(bits: number, bit: number): boolean {
  return ((bits >>> bit) & 1) === 1
}
