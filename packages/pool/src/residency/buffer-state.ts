import type { Caching } from '../providers/provider.ts'
import { cachings } from '../providers/provider.ts'
import { cleanList, dirty, dirtyList, purgeableList, unevictable, unevictableList } from '../table/chunks.ts'
import { PageTable, type PageTableReader } from '../table/page-table.ts'
import type { BackingStore } from './backing-store.ts'
import type { ImageState } from './image-state.ts'
import { WritePins } from './write-pins.ts'

/** A buffer as the machinery sees it. */
export class BufferState {
  readonly id: number
  readonly label: string
  readonly sizeBytes: number
  readonly table: PageTableReader
  readonly maxOrder: number
  store: BackingStore | undefined
  caching: number
  /** Its chunks are mapped for a device while they are held. */
  readonly deviceMapped: boolean
  /** Pins that the application holds, and operations that are under way. */
  userPins = 0
  operations = 0
  /** Pages in its chunks that were written to since they were stored. */
  dirtyPages = 0
  /** Nothing new begins; set by `free` and `close`. */
  closing = false
  purgeable = false
  /** Content was given up since the application was last told. */
  purged = false
  /** Chunks are no larger than an access: `advise('random')`. */
  random = false
  /** It is read from front to back: `advise('sequential')`. */
  sequential = false
  /** Where the last access ended, and how many in a row began where the one before had ended. */
  nextOffset = 0
  streak = 0
  /** Where the last two accesses began, the older one second. */
  lastOffset = 0
  beforeLastOffset = 0
  /** When it was last read sequentially, on the clock of `ReadStreams`. */
  streamTick = 0
  /** A readahead is under way. */
  readahead = false
  /** Pages that the backup could not give, while others of their chunks were wanted: they have chunks of their own. */
  damagedPages: Set<number> | undefined
  /** Who made it, in debug mode. */
  madeAt: string | undefined
  /** What images know of it, once it was saved or loaded. */
  images: ImageState | undefined
  /** Pins of the application that write. */
  readonly writePins = new WritePins()
  /** Whether the application named it. */
  readonly hasName: boolean
  /** Resolved when `operations` falls to 0. */
  idle: PromiseWithResolvers<void> | undefined

  constructor(made: BufferProperties) {
    this.id = made.id
    this.label = made.label
    this.hasName = made.hasName
    this.sizeBytes = made.sizeBytes
    this.table = new PageTable(made.pageCount, 1 << made.maxOrder)
    this.maxOrder = made.maxOrder
    this.store = made.store
    this.caching = cachings.indexOf(made.caching)
    this.deviceMapped = made.deviceMapped
  }

  /** The list that a chunk with these flags is on while nobody pins it. */
  listWhenFree(flags: number): number {
    if (this.purgeable) return purgeableList
    if ((flags & dirty) === 0) return cleanList
    return this.store !== undefined && (flags & unevictable) === 0 ? dirtyList : unevictableList
  }

  /** Pages that the backup could not give are written over, given up, or came after all. */
  heal(first: number, count: number): void {
    if (this.damagedPages === undefined) return
    for (const page of this.damagedPages)
      if (page >= first && page < first + count) this.damagedPages.delete(page)
  }
}

/** What a buffer is from the start. */
export interface BufferProperties {
  readonly id: number
  readonly label: string
  readonly hasName: boolean
  readonly sizeBytes: number
  readonly pageCount: number
  readonly maxOrder: number
  readonly store: BackingStore | undefined
  readonly caching: Caching
  readonly deviceMapped: boolean
}
