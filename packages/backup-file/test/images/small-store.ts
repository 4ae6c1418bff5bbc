import { type HandleRun, type HandleRuns, ImageTable, PageHolds, SpillwayError } from '@spillway/core'
import { FileImages, type ImagePlace, referencesOf } from '../../src/images/file-images.ts'
import { type FoundImages, findImages, type NoteSums } from '../../src/images/find-images.ts'
import { encodeRoot, rootOffset } from '../../src/images/root.ts'
import { offsetOf, type StoreFile, type StoreLayout } from '../../src/images/store-file.ts'
import type { LosingFile } from '../losing-file/losing-file.ts'

export const pageBytes = 1024

export const layout: StoreLayout = {
  rootOffsetsBytes: [4096, 16384],
  rootBytes: 12288,
  dataOffsetBytes: 32768,
  pageSizeBytes: pageBytes,
  slotRange: 512,
}

const key = new TextEncoder().encode('a store of the tests')

/** A store on a losing file: images over slots of which the lowest that is free is always used next, so that nothing old is left for long. */
export class SmallStore {
  /** Called while a sync is under way: others store and drop pages then. */
  duringSync: (() => Promise<void>) | undefined
  readonly images: ImageTable<ImagePlace>
  readonly rootTorn: boolean
  readonly #file: LosingFile
  readonly #slots: SmallSlots
  readonly #holds: PageHolds
  readonly #sums: Map<number, number>
  readonly #words = new Uint32Array(pageBytes / 4)

  private constructor(
    file: LosingFile,
    io: StoreFile,
    slots: SmallSlots,
    found: FoundImages & { readonly sums: Map<number, number> },
  ) {
    this.#sums = found.sums
    this.#file = file
    this.#slots = slots
    this.#holds = new PageHolds((handle) => handle % layout.slotRange)
    this.rootTorn = found.rootTorn
    const kept = new Map()
    for (const [name, { revision, place, keeps }] of found.images) {
      slots.adopt(referencesOf(place).flatMap(({ runs }) => runs))
      for (const runs of keeps) {
        slots.adopt([...runs])
        this.#holds.keep(runs)
      }
      kept.set(name, { revision, place, keeps })
    }
    const sync = async () => {
      await Promise.all([io.sync(), this.duringSync?.()])
    }
    const parts = {
      backup: 'small',
      file: { ...io, sync },
      layout,
      key,
      slots: {
        take: async (count: number) => slots.take(count),
        giveBack: (runs: readonly HandleRun[]) => slots.giveBack(runs),
        forgetDamaged: async () => {},
        sumsOf: (runs: HandleRuns) => Int32Array.from(handlesOf(runs), (handle) => this.#sums.get(handle)!),
        get generation() {
          return slots.generation
        },
      },
    }
    const pages = {
      firstNotLive: (runs: HandleRuns) => handlesOf(runs).find((handle) => !slots.isLive(handle)),
      hold: (runs: HandleRuns) => this.#holds.holdKept(runs),
      keep: (runs: HandleRuns) => this.#holds.keep(runs),
      unkeep: (runs: HandleRuns) => slots.giveBack(this.#holds.unkeep(runs)),
    }
    this.images = new ImageTable('small', pages, new FileImages(parts, found.root), kept)
  }

  static async create(file: LosingFile): Promise<void> {
    const root = { sequence: 0, generation: 0, images: new Map(), damaged: new Map() }
    await file.write(encodeRoot(root, key, layout), rootOffset(root, layout))
    await file.sync()
  }

  static async open(file: LosingFile, capacitySlots = layout.slotRange - 1): Promise<SmallStore> {
    const io = ioOf(file)
    const sums = new Map<number, number>()
    const noteSums: NoteSums = ({ keeps, sums: bytes }) => {
      const view = new DataView(bytes.buffer, bytes.byteOffset)
      for (const [index, handle] of handlesOf(keeps).entries())
        sums.set(handle, view.getInt32(index * 4, true))
    }
    const found = await findImages(io, layout, key, { noteSums })
    const slots = new SmallSlots(capacitySlots, found.root.generation)
    return new SmallStore(file, io, slots, { ...found, sums })
  }

  get usedSlots(): number {
    return this.#slots.usedSlots
  }

  /** Stores pages, each of them filled with its word; one write for each run of slots. */
  async store(words: readonly number[]): Promise<HandleRun[]> {
    const runs = this.#slots.take(words.length)
    let at = 0
    for (const { first, count } of runs) {
      const bytes = new Uint32Array((count * pageBytes) / 4)
      for (let page = 0; page < count; page++) {
        bytes.fill(words[at]!, (page * pageBytes) / 4, ((page + 1) * pageBytes) / 4)
        this.#sums.set(first + page, words[at]!)
        at++
      }
      await this.#file.write(new Uint8Array(bytes.buffer), offsetOf(first, layout))
    }
    this.#holds.hold(runs)
    return runs
  }

  drop(runs: readonly HandleRun[]): void {
    this.#slots.giveBack(this.#holds.drop(runs).released)
  }

  /** The word that all of a page has; `undefined` when it is not what its sum says. */
  async wordOf(handle: number): Promise<number | undefined> {
    const words = this.#words
    await this.#file.read(new Uint8Array(words.buffer), offsetOf(handle, layout))
    const sum = this.#sums.get(handle)
    for (let index = 0; index < words.length; index++) if (words[index] !== sum) return undefined
    return sum
  }
}

/** The lowest free slots first, each under a generation of its own. */
class SmallSlots {
  generation: number
  readonly #live: (number | undefined)[]

  constructor(capacitySlots: number, generation: number) {
    this.generation = generation
    this.#live = Array<number | undefined>(capacitySlots).fill(undefined)
  }

  get usedSlots(): number {
    return this.#live.filter((handle) => handle !== undefined).length
  }

  isLive(handle: number): boolean {
    return this.#live[handle % layout.slotRange] === handle
  }

  take(count: number): HandleRun[] {
    const runs: { first: number; count: number }[] = []
    const free = [...this.#live.entries()].filter(([, handle]) => handle === undefined).slice(0, count)
    if (free.length < count) throw new SpillwayError('ENOSPC', 'the small store is full')
    this.generation++
    for (const [slot] of free) {
      const handle = this.generation * layout.slotRange + slot
      this.#live[slot] = handle
      const last = runs.at(-1)
      if (last !== undefined && last.first + last.count === handle) last.count++
      else runs.push({ first: handle, count: 1 })
    }
    return runs
  }

  adopt(runs: readonly HandleRun[]): void {
    for (const handle of handlesOf(runs)) {
      const slot = handle % layout.slotRange
      if (this.#live[slot] !== undefined && this.#live[slot] !== handle)
        throw new Error(`slot ${slot} is named under ${this.#live[slot]} and ${handle}`)
      this.#live[slot] = handle
    }
  }

  giveBack(runs: readonly HandleRun[]): void {
    for (const handle of handlesOf(runs)) {
      if (!this.isLive(handle)) throw new Error(`handle ${handle} is given back and not live`)
      this.#live[handle % layout.slotRange] = undefined
    }
  }
}

export function handlesOf(runs: Iterable<HandleRun>): number[] {
  return [...runs].flatMap(({ first, count }) => Array.from({ length: count }, (_, page) => first + page))
}

function ioOf(file: LosingFile): StoreFile {
  return {
    read: async (into, offsetBytes) => {
      const readBytes = await file.read(into, offsetBytes)
      into.fill(0, readBytes)
    },
    write: (bytes, offsetBytes) => file.write(bytes, offsetBytes),
    sync: () => file.sync(),
  }
}
