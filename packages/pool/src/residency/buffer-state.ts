import type { Caching } from '../providers/provider.ts'
import { cachings } from '../providers/provider.ts'
import { cleanList, dirty, dirtyList, purgeableList, unevictable, unevictableList } from '../table/chunks.ts'
import { PageTable, type PageTableReader } from '../table/page-table.ts'
import type { BackingStore } from './backing-store.ts'
import type { Growth } from './growth.ts'
import type { ImageState } from './image-state.ts'
import { type WritePin, WritePins } from './write-pins.ts'

/**
 * A buffer as the machinery sees it. There may be very many, so each has few fields: what is true or not is a bit, and what
 * few buffers need is made when it is needed.
 */
export class BufferState {
  readonly id: number
  /** Of a buffer that grows, what it has now: appending and truncating change it, and nothing else does. */
  sizeBytes: number
  readonly table: PageTableReader
  store: BackingStore | undefined
  /** Pins that the application holds, and operations that are under way. */
  userPins = 0
  operations = 0
  /** Pages in its chunks that were written to since they were stored. */
  dirtyPages = 0
  /** How it is read; made by the first access that could begin a sequence. */
  accesses: Accesses | undefined
  readonly #label: string | undefined
  #bits: number
  #rare: Rare | undefined

  constructor(made: BufferProperties) {
    this.id = made.id
    this.#label = made.label
    this.sizeBytes = made.sizeBytes
    this.table = new PageTable(made.pageCount, 1 << made.maxOrder)
    this.store = made.store
    if (made.growth !== undefined) {
      this.#rare = new Rare()
      this.#rare.growth = made.growth
    }
    this.#bits = (cachings.indexOf(made.caching) << cachingShift) | (made.deviceMapped ? deviceMappedBit : 0)
  }

  get label(): string {
    return this.#label ?? `#${this.id}`
  }

  /** Whether the application named it. */
  get hasName(): boolean {
    return this.#label !== undefined
  }

  get maxOrder(): number {
    return this.table.blockOrder
  }

  get caching(): number {
    return this.#bits >>> cachingShift
  }

  set caching(caching: number) {
    this.#bits = (this.#bits & (2 ** cachingShift - 1)) | (caching << cachingShift)
  }

  /** Its chunks are mapped for a device while they are held. */
  get deviceMapped(): boolean {
    return (this.#bits & deviceMappedBit) !== 0
  }

  /** Nothing new begins; set by `free` and `close`. */
  get closing(): boolean {
    return (this.#bits & closingBit) !== 0
  }

  set closing(closing: boolean) {
    this.#bits = withBit(this.#bits, closingBit, closing)
  }

  get purgeable(): boolean {
    return (this.#bits & purgeableBit) !== 0
  }

  set purgeable(purgeable: boolean) {
    this.#bits = withBit(this.#bits, purgeableBit, purgeable)
  }

  /** Content was given up since the application was last told. */
  get purged(): boolean {
    return (this.#bits & purgedBit) !== 0
  }

  set purged(purged: boolean) {
    this.#bits = withBit(this.#bits, purgedBit, purged)
  }

  /** Chunks are no larger than an access: `advise('random')`. */
  get random(): boolean {
    return (this.#bits & randomBit) !== 0
  }

  set random(random: boolean) {
    this.#bits = withBit(this.#bits, randomBit, random)
  }

  /** It is read from front to back: `advise('sequential')`. */
  get sequential(): boolean {
    return (this.#bits & sequentialBit) !== 0
  }

  set sequential(sequential: boolean) {
    this.#bits = withBit(this.#bits, sequentialBit, sequential)
  }

  /** A readahead is under way. */
  get readahead(): boolean {
    return (this.#bits & readaheadBit) !== 0
  }

  set readahead(readahead: boolean) {
    this.#bits = withBit(this.#bits, readaheadBit, readahead)
  }

  /** Pages that the backup could not give, while others of their chunks were wanted: they have chunks of their own. */
  get damagedPages(): ReadonlySet<number> | undefined {
    return this.#rare?.damagedPages
  }

  addDamaged(page: number): void {
    this.#rare ??= new Rare()
    this.#rare.damagedPages ??= new Set()
    this.#rare.damagedPages.add(page)
  }

  /** Who made it, in debug mode. */
  get madeAt(): string | undefined {
    return this.#rare?.madeAt
  }

  set madeAt(madeAt: string | undefined) {
    this.#rare ??= new Rare()
    this.#rare.madeAt = madeAt
  }

  /** What images know of it, once it was saved or loaded. */
  get images(): ImageState | undefined {
    return this.#rare?.images
  }

  set images(images: ImageState | undefined) {
    if (images === this.images) return
    this.#rare ??= new Rare()
    this.#rare.images = images
  }

  /** Of a buffer that grows. */
  get growth(): Growth | undefined {
    return this.#rare?.growth
  }

  /** Pages of its bytes. */
  get pageCount(): number {
    return this.growth?.pagesOf(this.sizeBytes) ?? this.table.pageCount
  }

  /** One that grows has pages for so many bytes from now on, in whole blocks: so those that are there stay what they are. */
  reach(bytes: number): void {
    const { growth } = this
    if (growth === undefined) return
    const { blockPages } = this.table
    const pages = Math.ceil(growth.pagesOf(bytes) / blockPages) * blockPages
    ;(this.table as PageTable).reach(Math.min(pages, growth.pagesOf(growth.maxBytes)))
  }

  /** Pins of the application that write. */
  get writePins(): WritePins {
    this.#rare ??= new Rare()
    this.#rare.writePins ??= new WritePins(this.label)
    return this.#rare.writePins
  }

  /** A pin that writes ends. With the last one goes what is kept of them: small buffers are pinned by the hundred thousand. */
  endWritePin(pin: WritePin): void {
    const { writePins } = this
    writePins.end(pin)
    if (writePins.count > 0 || writePins.isShut) return
    this.#rare!.writePins = undefined
    if (this.#rare!.isEmpty) this.#rare = undefined
  }

  /** Whether new pins that write have to wait. */
  get isShutToWriters(): boolean {
    return this.#rare?.writePins?.isShut === true
  }

  /** An operation ended. */
  endOperation(): void {
    if (--this.operations === 0) this.#rare?.idle?.resolve()
  }

  /** Resolves when no operation is under way; undefined when none is. */
  whenIdle(): Promise<void> | undefined {
    if (this.operations === 0) return undefined
    this.#rare ??= new Rare()
    this.#rare.idle ??= Promise.withResolvers<void>()
    return this.#rare.idle.promise
  }

  /** Bytes of what is known of it, for the statistics; chunks are counted elsewhere. */
  get metadataBytes(): number {
    const accesses = this.accesses === undefined ? 0 : accessesBytes
    const growth = this.growth === undefined ? 0 : growthBytes
    return bufferBytes + accesses + growth + this.table.metadataBytes
  }

  /** The list that a chunk with these flags is on while nobody pins it. */
  listWhenFree(flags: number): number {
    if (this.purgeable) return purgeableList
    if ((flags & dirty) === 0) return cleanList
    return this.store !== undefined && (flags & unevictable) === 0 ? dirtyList : unevictableList
  }

  /** Pages that the backup could not give are written over, given up, or came after all. */
  heal(first: number, count: number): void {
    const damaged = this.#rare?.damagedPages
    if (damaged === undefined) return
    for (const page of damaged) if (page >= first && page < first + count) damaged.delete(page)
  }
}

function withBit(bits: number, bit: number, isSet: boolean): number {
  return isSet ? bits | bit : bits & ~bit
}

/** How a buffer is read. */
export class Accesses {
  /** Where the last access ended, and how many in a row began where the one before had ended. */
  nextOffset = 0
  streak = 0
  /** Where the last two accesses began, the older one second. */
  lastOffset = 0
  beforeLastOffset = 0
  /** When it was last read sequentially, on the clock of `ReadStreams`. */
  streamTick = 0
}

/** What few buffers have. */
class Rare {
  damagedPages: Set<number> | undefined
  images: ImageState | undefined
  growth: Growth | undefined
  writePins: WritePins | undefined
  madeAt: string | undefined
  /** Resolved when `operations` falls to 0. */
  idle: PromiseWithResolvers<void> | undefined

  get isEmpty(): boolean {
    return !(this.damagedPages || this.growth || this.images || this.writePins || this.madeAt || this.idle)
  }
}

/**
 * Bytes of what every buffer has: its state, its table, what the application holds, and what watches that it is freed.
 * `many-buffers.test.ts` measures whether that is true.
 */
const bufferBytes = 344
const accessesBytes = 64
const growthBytes = 640

const deviceMappedBit = 1
const closingBit = 2
const purgeableBit = 4
const purgedBit = 8
const randomBit = 16
const sequentialBit = 32
const readaheadBit = 64
const cachingShift = 7

/** What a buffer is from the start. */
export interface BufferProperties {
  readonly id: number
  /** Its number when there is none. */
  readonly label: string | undefined
  readonly sizeBytes: number
  readonly pageCount: number
  /** When it is to grow. */
  readonly growth?: Growth | undefined
  readonly maxOrder: number
  readonly store: BackingStore | undefined
  readonly caching: Caching
  readonly deviceMapped: boolean
}
