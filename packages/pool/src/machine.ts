import { afterThisCode, type Backup, SpillwayError } from '@spillway/core'
import type { Budget, BudgetPool } from './budget.ts'
import { pace } from './ground/pace.ts'
import type { Pages } from './memory/pages.ts'
import type { PoolMemory } from './memory/pool-memory.ts'
import { Appends } from './operations/appends.ts'
import { Backups } from './operations/backups.ts'
import { Bypass } from './operations/bypass.ts'
import { Discards } from './operations/discards.ts'
import { type ChangeableLimit, LimitChanges } from './operations/limit-changes.ts'
import { ReadWrite } from './operations/read-write.ts'
import { Readahead } from './operations/readahead.ts'
import { Restores } from './operations/restores.ts'
import { Saves } from './operations/save.ts'
import type { ProviderGuard } from './providers/guard.ts'
import type { Caching } from './providers/provider.ts'
import { Background } from './residency/background.ts'
import { BackingStores } from './residency/backing-stores.ts'
import { BufferState } from './residency/buffer-state.ts'
import { walkChunks, whileFreeing } from './residency/chunk-walk.ts'
import { closedBuffer } from './residency/closed.ts'
import { Growth } from './residency/growth.ts'
import { PageOut } from './residency/page-out.ts'
import { Pins } from './residency/pins.ts'
import { PoolLimit } from './residency/pool-limit.ts'
import { Reclaim, type WhenFull } from './residency/reclaim.ts'
import { ResidentSet } from './residency/resident-set.ts'
import type { PoolShare } from './residency/shared-limit.ts'
import type { WritePin } from './residency/write-pins.ts'

/** Everything a machine is made from; all checked by the pool. */
export interface MachineOptions {
  readonly pageSizeBytes: number
  readonly maxOrder: number
  readonly budget: Budget
  readonly memory: PoolMemory
  /** Whether the budget is this pool's alone, and ends with it. */
  readonly ownsBudget: boolean
  /** What the pool may have of its budget; infinite for all of it. */
  readonly capPages: number
  readonly share: PoolShare
  readonly idlePages: number
  readonly whenFull: WhenFull
  readonly splitAlways: boolean
  readonly debug: boolean
  readonly background: boolean
  readonly name: string
}

/** How a buffer is to be made. */
export interface NewBufferOptions {
  readonly label: string | undefined
  readonly maxOrder: number
  readonly caching: Caching
  readonly deviceMapped: boolean
  /** What it may grow to; it does not when there is none. */
  readonly maxBytes?: number | undefined
  /** Where the application asked for it, in debug mode. */
  readonly madeAt?: string | undefined
}

/** What a pin is of, and whether it can be written through. */
interface PinOfBytes extends WritePin {
  readonly write: boolean
}

/** The parts of a pool, put together. What the application sees is `Pool` and `PagedBuffer`. */
export class Machine implements BudgetPool {
  readonly pageSizeBytes: number
  readonly maxOrder: number
  readonly debug: boolean
  readonly memory: PoolMemory
  readonly pages: Pages
  readonly budget: Budget
  readonly limit: PoolLimit
  readonly residents: ResidentSet
  readonly pins: Pins
  readonly pageOut: PageOut
  readonly reclaim: Reclaim
  readonly bypass: Bypass
  readonly readWrite: ReadWrite
  readonly backups: Backups
  readonly saves: Saves
  readonly restores: Restores
  readonly discards: Discards
  readonly appends: Appends
  readonly background: Background
  readonly readahead: Readahead
  readonly capChanges: LimitChanges
  /** Whether the pool has a limit of its own beside that of its budget. */
  #hasCap: boolean
  readonly backingStores: BackingStores
  /** Whether the budget is this pool's alone, and ends with it. */
  readonly ownsBudget: boolean
  #nextBuffer = 1
  #idlePages: number
  /** Buffers that are being given up, whoever asked for it: `close` waits for all of them. */
  readonly #freeing = new Set<Promise<void>>()

  constructor(options: MachineOptions) {
    const { pageSizeBytes, maxOrder, budget, idlePages, whenFull, splitAlways } = options
    this.pageSizeBytes = pageSizeBytes
    this.maxOrder = maxOrder
    this.debug = options.debug
    this.budget = budget
    this.ownsBudget = options.ownsBudget
    this.memory = options.memory
    this.pages = options.memory.pages
    this.#idlePages = idlePages
    options.memory.join(idlePages)
    const { capPages, share } = options
    const onShort = () => budget.reclaim.pump()
    this.limit = new PoolLimit(budget.shared, { pageSizeBytes, capPages, share }, { onShort })
    const pumpIfShort = () => this.#pumpIfShort()
    this.residents = new ResidentSet(options.name, this.pages, this.limit, {
      checks: options.debug,
      onUnpin: () => this.#unpinned(),
      onIdle: pumpIfShort,
    })
    const { residents } = this
    this.pageOut = new PageOut(this.residents, pumpIfShort)
    this.reclaim = new Reclaim(residents, this.pageOut, {
      whenFull,
      splitAlways,
      onBatch: () => this.background.wake(),
      pump: onShort,
      freeAtOnce: (pages) => budget.reclaim.freeAtOnce(this.reclaim, pages),
      largestChunkPages: 1 << maxOrder,
    })
    // What is being stored leaves soon, and counts before more is evicted: a miss waits for it.
    const makeRoom = (pages: number) => (this.reclaim.isEvicting ? 0 : this.reclaim.freeAtOnce(pages))
    const storeFailure = () => budget.reclaim.storeFailure
    this.pins = new Pins(residents, { makeRoom, storeFailure })
    this.readahead = new Readahead(residents, this.pins, this.reclaim, pageSizeBytes)
    this.bypass = new Bypass(residents, this.pins, pageSizeBytes)
    const { pins, readahead, bypass } = this
    this.readWrite = new ReadWrite({ residents, pins, readahead, bypass, pageSizeBytes })
    this.backups = new Backups(this.residents, this.pageOut, splitAlways)
    this.saves = new Saves(residents, this.pageOut, pageSizeBytes)
    this.restores = new Restores(residents, this.pins)
    this.discards = new Discards(this.residents)
    this.appends = new Appends(this.readWrite, this.discards)
    this.background = new Background(this.residents, this.limit, this.reclaim, options.background)
    this.capChanges = new LimitChanges(changeableCap(this.limit, this.reclaim))
    this.#hasCap = Number.isFinite(capPages)
    this.backingStores = new BackingStores(this.residents, pageSizeBytes, options.debug)
    budget.join(this)
  }

  /** What the pool may have: of its budget, unless that is its own. Of the budget all that is in force. */
  get limitBytes(): number {
    const pages = Math.min(this.limit.capPages, Math.floor(this.budget.limitBytes / this.pageSizeBytes))
    return pages * this.pageSizeBytes
  }

  /** Changes the limit of the pool: that of its own budget, or what it may have of one that it shares. */
  setLimit(limitPages: number, signal: AbortSignal | undefined): Promise<void> {
    if (this.ownsBudget) return this.budget.changes.set(limitPages * this.pageSizeBytes, signal)
    return this.#setCap(limitPages, signal)
  }

  /** A pool that may have all of its budget has no limit to sink from: what the budget has now is its limit until the change ends. */
  async #setCap(capPages: number, signal: AbortSignal | undefined): Promise<void> {
    const { limit } = this
    if (!this.#hasCap) limit.capPages = limit.limitPages
    try {
      await this.capChanges.set(capPages, signal)
      this.#hasCap = true
    } catch (failure) {
      if (!this.#hasCap && !this.capChanges.areUnderWay) {
        limit.capPages = Number.POSITIVE_INFINITY
        limit.serveSoon()
      }
      throw failure
    }
  }

  /** Changes how much memory is kept warm, and gives the rest to the system. */
  async setIdlePages(idlePages: number): Promise<void> {
    this.pages.idleLimitPages += idlePages - this.#idlePages
    this.#idlePages = idlePages
    await this.reclaim.trim(this.pages.idlePages - this.pages.idleLimitPages)
  }

  /** A new buffer; all is checked by the pool. */
  addBuffer(sizeBytes: number, backup: Backup | undefined, options: NewBufferOptions): BufferState {
    const id = this.#nextBuffer++
    const store = backup === undefined ? undefined : this.backingStores.of(backup)
    if (store !== undefined) store.users++
    const { maxBytes } = options
    const growth = maxBytes === undefined ? undefined : new Growth(maxBytes, this.pageSizeBytes)
    const pageCount = growth === undefined ? Math.ceil(sizeBytes / this.pageSizeBytes) : 0
    const state = new BufferState({ ...options, id, sizeBytes, pageCount, growth, store })
    if (options.madeAt !== undefined) state.madeAt = options.madeAt
    state.reach(sizeBytes)
    this.residents.buffers.add(state)
    return state
  }

  /** Ends a buffer that has no pins of the application: waits for what runs, then gives everything up (T49). */
  freeBuffer(state: BufferState): Promise<void> {
    const freed = this.#giveUp(state).finally(() => this.#freeing.delete(freed))
    this.#freeing.add(freed)
    return freed
  }

  async #giveUp(state: BufferState): Promise<void> {
    state.closing = true
    this.readahead.end(state)
    this.limit.refuse(closedBuffer(state), state)
    state.growth?.stop(closedBuffer(state))
    const idle = state.whenIdle()
    if (idle !== undefined) await idle
    // Nobody needs the content any more: claims may take the memory before it is given up, and nothing is stored (T76).
    state.purgeable = true
    await this.#relistAll(state)
    await this.discards.giveUp(state, { destination: 'idle' })
    this.residents.buffers.delete(state.id)
    await this.backingStores.endUse(state.store)
  }

  /** Moves chunks to the lists that they belong to now; undefined when all were moved at once. */
  #relistAll(state: BufferState): Promise<void> | undefined {
    const { residents } = this
    const relist = (chunk: number) => residents.relist(chunk)
    const walk = walkChunks(residents, state, { first: 0, end: state.table.pageCount }, relist)
    return walk && whileFreeing(residents, walk)
  }

  get providerGuard(): ProviderGuard {
    return this.memory.guard
  }

  /** Ends all buffers and gives all memory to the system. */
  async close(): Promise<void> {
    this.background.stop()
    this.limit.refuse(new SpillwayError('EBADF', 'the pool is closed'))
    if (this.ownsBudget) this.budget.refuseChanges()
    const open = [...this.residents.buffers.values()].filter((buffer) => !buffer.closing)
    // All at once: nothing may be pinned any more that was not when the pool looked.
    for (const buffer of open) buffer.closing = true
    const freeing = [...this.#freeing]
    for (const buffer of open) {
      const freed = this.freeBuffer(buffer)
      // Told below, when all have begun.
      freed.catch(() => {})
      freeing.push(freed)
      const turn = pace()
      if (turn !== undefined) await turn
    }
    await Promise.all(freeing)
    await this.settled()
    // What other pools of the budget keep warm stays.
    const keptPages = this.memory.isShared ? this.pages.idleLimitPages - this.#idlePages : 0
    await this.reclaim.trim(Math.max(this.pages.retainedPages, this.pages.idlePages - keptPages))
    this.budget.leave(this, this.#idlePages)
  }

  /** Resolves when nothing that was begun in the background is in flight: readahead, batches of reclaim, drops. */
  async settled(): Promise<void> {
    await this.readahead.settled()
    await this.background.settled()
    await this.reclaim.settled()
    for (const store of this.backingStores.values()) await store.settled()
  }

  /** Moves the chunks of a range to the cold end of their lists, the next to be evicted: those of a large range by and by. */
  makeCold(state: BufferState, first: number, end: number): void {
    const { chunks, order } = this.residents
    this.#inBackground(
      state,
      walkChunks(this.residents, state, { first, end }, (chunk) => {
        if (!chunks.isPinned(chunk)) order.unwanted(chunk)
      }),
    )
  }

  /** From now on its content may be dropped, or may not. Chunks change lists by and by; reclaim asks the buffer itself. */
  setPurgeable(state: BufferState, purgeable: boolean): void {
    if (state.purgeable === purgeable) return
    state.purgeable = purgeable
    this.#inBackground(state, this.#relistAll(state))
    this.#pumpIfShort()
  }

  /** What goes on after the call that began it: the buffer is not given up before it ends. */
  #inBackground(state: BufferState, work: Promise<void> | undefined): void {
    if (work === undefined) return
    state.operations++
    void work.then(() => {
      state.endOperation()
      this.#pumpIfShort()
    })
  }

  /** A pin of the application begins; its chunks are pinned. */
  beginPin(state: BufferState, pinned: number[], pin: PinOfBytes): void {
    state.userPins++
    this.residents.applicationPins++
    this.pins.handOver(pinned)
    if (pin.write) state.writePins.begin(pin)
    state.growth?.hold(pin)
  }

  /** Throws `EINVAL` when a page provider calls; nothing has happened then. */
  assertPinCanEnd(): void {
    this.providerGuard.assertIdle()
  }

  /** A pin of the application ends. */
  endPin(state: BufferState, pinned: number[], pin: PinOfBytes): void {
    state.userPins--
    if (pin.write) state.endWritePin(pin)
    state.growth?.letGo(pin)
    this.residents.applicationPins--
    this.pins.release(state, pinned)
  }

  /** The memory of a held range, one view for each chunk. */
  spans(chunks: readonly number[], offsetBytes: number, length: number): Uint8Array[] {
    const { residents, pageSizeBytes } = this
    // As long as it is going to be: a list that grows makes room for more than most pins need.
    const spans = new Array<Uint8Array>(chunks.length)
    const end = offsetBytes + length
    for (let index = 0; index < chunks.length; index++) {
      const chunk = chunks[index]!
      const bytes = residents.bytes(chunk)
      const base = residents.chunks.firstPageOf(chunk) * pageSizeBytes
      const from = Math.max(0, offsetBytes - base)
      const to = Math.min(bytes.byteLength, end - base)
      spans[index] = from === 0 && to === bytes.byteLength ? bytes : bytes.subarray(from, to)
    }
    return spans
  }

  /** Where the device sees a held range, one address for each chunk (T26). */
  deviceAddresses(chunks: readonly number[], offsetBytes: number): number[] {
    const { residents, pageSizeBytes } = this
    return chunks.map((chunk) => {
      const from = Math.max(0, offsetBytes - residents.chunks.firstPageOf(chunk) * pageSizeBytes)
      return residents.mappings.addressOf(chunk) + from
    })
  }

  /** Chunks became evictable. */
  #unpinned(): void {
    if (this.#isWaitedFor) this.#pumpIfShort()
    else this.background.wake()
  }

  #pumpIfShort(): void {
    if (this.#isWaitedFor) afterThisCode(() => this.budget.reclaim.pump())
  }

  /** Whether somebody waits, in whichever pool of the budget. */
  get #isWaitedFor(): boolean {
    return this.budget.shared.waiters > 0
  }
}

/** What a pool may have of a budget that it shares, in pages. All that is charged is resident, or is about to be. */
function changeableCap(limit: PoolLimit, reclaim: Reclaim): ChangeableLimit {
  return {
    unitBytes: limit.pageSizeBytes,
    get chargeable() {
      return limit.capPages
    },
    set chargeable(pages: number) {
      limit.capPages = pages
    },
    get kept() {
      return limit.capPages
    },
    set kept(pages: number) {
      limit.capPages = pages
    },
    get resident() {
      return limit.chargedPages
    },
    get failingBackup() {
      return reclaim.failingBackup
    },
    tryCharge: (pages) => limit.tryChargeCap(pages),
    charge: (need, signal) => limit.chargeCap(need, signal),
    uncharge: (pages) => limit.unchargeCap(pages),
    serveSoon: () => limit.serveSoon(),
    shrink: (pages) => reclaim.shrink(pages),
  }
}
