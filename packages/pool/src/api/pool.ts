import {
  abortError,
  assertByteCount,
  assertImageName,
  assertKnownOptions,
  assertPageSize,
  type Backup,
  SpillwayError,
} from '@spillway/core'
import { calledFrom } from '../diagnostics/debug.ts'
import { type PoolDump, poolDump } from '../diagnostics/dump.ts'
import { inspectCustom } from '../diagnostics/inspect.ts'
import { LiveObjects } from '../diagnostics/live-objects.ts'
import { type BufferMap, bufferMaps } from '../diagnostics/map.ts'
import { type PoolStats, poolStats } from '../diagnostics/stats.ts'
import { verify } from '../diagnostics/verify.ts'
import { pacedCall } from '../ground/paced-call.ts'
import { poolTitle, unnamedPool } from '../ground/trace.ts'
import { Machine } from '../machine.ts'
import { headOf, ImageFilling, imagesOf, keptRuns, loadedImage } from '../operations/load.ts'
import { cachings, type PageProvider } from '../providers/provider.ts'
import { assertProvider, providerRegistry } from '../providers/registry.ts'
import { asError } from '../residency/backing-store.ts'
import { assertBackup } from '../residency/backing-stores.ts'
import type { BufferState } from '../residency/buffer-state.ts'
import { located } from '../residency/failures.ts'
import { describePins } from '../residency/refusal.ts'
import type { ByteSource } from './byte-sources.ts'
import { GrowableBuffer } from './growable-buffer.ts'
import type { MemoryBudget } from './memory-budget.ts'
import { PagedBuffer } from './paged-buffer.ts'
import {
  type AllocateOptions,
  allocateOptions,
  assertLimit,
  assertOneOf,
  assertOrder,
  type GrowableOptions,
  type LoadOptions,
  loadOptions,
  maxOrderOf,
  maxPages,
  type PoolOptions,
  poolOptions,
} from './pool-options.ts'
import { assertBelowBudget, placeOf } from './pool-place.ts'

const mebibyte = 1024 ** 2

/**
 * Keeps buffers that together may be larger than memory under a hard limit. What does not fit is evicted to a backup, the
 * least recently used first, and restored when it is touched.
 *
 * ```ts
 * await using pool = new Pool({ limitBytes: 256 * 1024 ** 2, backup })
 * const buffer = await pool.allocate(10 * 1024 ** 3)
 * await buffer.write(offsetBytes, bytes)
 * ```
 */
export class Pool implements AsyncDisposable {
  readonly name: string
  readonly pageSizeBytes: number
  readonly #machine: Machine
  readonly #backup: Backup | undefined
  readonly #budget: MemoryBudget | undefined
  readonly #forget: () => void
  #closing: Promise<void> | undefined
  /** Set for good when a `close` that is not refused begins. */
  #isClosed = false

  constructor(options: PoolOptions) {
    if (typeof options !== 'object' || options === null)
      throw new TypeError('a pool needs options, at least limitBytes')
    assertKnownOptions(options, poolOptions, 'Pool')
    const { backup, provider, whenFull = 'wait', split = 'native' } = options
    if (backup !== undefined) assertBackup(backup, undefined)
    this.pageSizeBytes = options.pageSizeBytes ?? backup?.capabilities.pageSizeBytes ?? 4096
    assertPageSize(this.pageSizeBytes)
    const maxOrder =
      options.maxOrder ?? Math.max(0, Math.min(9, Math.log2((2 * mebibyte) / this.pageSizeBytes)))
    assertOrder(maxOrder, maxOrderOf(this.pageSizeBytes))
    this.name = options.name ?? unnamedPool
    const place = placeOf(options, { name: this.name, pageSizeBytes: this.pageSizeBytes, maxOrder })
    const limitBytes = Math.min(place.budget.limitBytes, place.capPages * this.pageSizeBytes)
    const idleBytes = options.idleBytes ?? Math.min(Math.floor(limitBytes / 8), 16 * mebibyte)
    assertByteCount(idleBytes, 'idleBytes')
    assertOneOf(whenFull, ['wait', 'fail'], 'whenFull')
    assertOneOf(split, ['native', 'always'], 'split')
    if (typeof provider === 'string') assertOneOf(provider, ['mmap', 'resizable'], 'provider')
    else if (provider !== undefined) assertProvider(provider)
    const { beneficialOrder = 0 } = options
    assertOrder(beneficialOrder, maxOrder, 'beneficialOrder')
    if (backup !== undefined) assertBackup(backup, this.pageSizeBytes)
    this.#backup = backup
    this.#budget = options.budget
    const registry = options.providers ?? providerRegistry
    const { pageSizeBytes } = this
    const wish = { pageSizeBytes, maxOrder, beneficialOrder, choice: provider, registry }
    this.#machine = new Machine({
      ...place,
      memory: place.budget.memoryFor(wish),
      pageSizeBytes,
      maxOrder,
      idlePages: Math.floor(idleBytes / this.pageSizeBytes),
      whenFull,
      splitAlways: split === 'always',
      debug: options.debug === true,
      background: options.background !== false,
      name: this.name,
    })
    machines.set(this, this.#machine)
    this.#forget = alive.add(this)
  }

  get limitBytes(): number {
    return this.#machine.limitBytes
  }

  /** The budget that it shares with other pools, when it was given one. */
  get budget(): MemoryBudget | undefined {
    return this.#budget
  }

  /** The backup that it was given, and those that its buffers have now; each once. */
  get backups(): Backup[] {
    const used = new Set(this.#backup === undefined ? [] : [this.#backup])
    for (const { backup } of this.#machine.backingStores.values()) used.add(backup)
    return [...used]
  }

  /**
   * Makes a buffer of `sizeBytes`. It takes no memory until it is touched, unless `from` gives its first content: then it resolves when
   * that is written, or frees the buffer and rejects with what stopped it. Rejects with `RangeError` for a size that is no
   * whole number of bytes, `ENOSYS` when no page provider works here, `EBADF` when the pool is closed.
   *
   * With `growable` it has `sizeBytes` bytes at first, often 0, and grows up to `maxBytes` as bytes are appended.
   */
  allocate(sizeBytes: number, options: GrowableOptions): Promise<GrowableBuffer>
  allocate(sizeBytes: number, options?: AllocateOptions): Promise<PagedBuffer>
  allocate(sizeBytes: number, options: AllocateOptions = {}): Promise<PagedBuffer> {
    const madeAt = this.#machine.debug ? calledFrom(this.allocate) : undefined
    return pacedCall(() => this.#allocate(sizeBytes, options, madeAt))
  }

  async #allocate(
    sizeBytes: number,
    options: AllocateOptions,
    madeAt: string | undefined,
  ): Promise<PagedBuffer> {
    this.#assertOpen()
    assertKnownOptions(options, allocateOptions, 'allocate')
    this.#assertSize(sizeBytes, 'sizeBytes')
    const maxBytes = this.#maxBytesOf(sizeBytes, options)
    const { label, backup = this.#backup, caching = 'cached', maxOrder = this.#machine.maxOrder } = options
    assertOrder(maxOrder, this.#machine.maxOrder)
    assertOneOf(caching, cachings, 'caching')
    if (backup !== undefined) assertBackup(backup, this.pageSizeBytes)
    const { deviceMapped = false } = options
    const provider = await this.#machine.memory.provider()
    this.#assertOpen()
    assertCan(provider, caching !== 'cached', deviceMapped)
    const wanted = { label, maxOrder, caching, deviceMapped, maxBytes, madeAt }
    const state = this.#machine.addBuffer(sizeBytes, backup, wanted)
    const { growth } = state
    const buffer = growth
      ? new GrowableBuffer(this.#machine, state, growth)
      : new PagedBuffer(this.#machine, state)
    if (options.from !== undefined) await this.#fillNew(buffer, options.from, options.signal)
    return buffer
  }

  /**
   * Makes a buffer of the image that was saved under a name, and reads nothing but the image: pages come when they are touched.
   * Rejects with `ENOENT` (nothing has the name), `ENOTSUP` (no backup that holds images, or an image of a newer version),
   * `EINVAL` (an image of other pages than the pool's), `EBADMSG` (a damaged one), and as `allocate` does.
   */
  load(name: string, options: LoadOptions = {}): Promise<PagedBuffer> {
    const madeAt = this.#machine.debug ? calledFrom(this.load) : undefined
    return pacedCall(() => this.#load(name, options, madeAt))
  }

  async #load(name: string, options: LoadOptions, madeAt: string | undefined): Promise<PagedBuffer> {
    this.#assertOpen()
    assertKnownOptions(options, loadOptions, 'load')
    assertImageName(name)
    const { caching = 'cached', maxOrder = this.#machine.maxOrder, deviceMapped = false, signal } = options
    assertOrder(maxOrder, this.#machine.maxOrder)
    assertOneOf(caching, cachings, 'caching')
    const { backup, images } = imagesOf(options.backup ?? this.#backup)
    assertBackup(backup, this.pageSizeBytes)
    const provider = await this.#machine.memory.provider()
    this.#assertOpen()
    assertCan(provider, caching !== 'cached', deviceMapped)
    const image = await loadedImage({ backup, images }, name, signal)
    let filling: ImageFilling | undefined
    let state: BufferState | undefined
    try {
      if (signal?.aborted) throw abortError(signal)
      this.#assertOpen()
      const head = headOf(image, name, this.pageSizeBytes)
      this.#assertSize(head.sizeBytes, 'sizeBytes')
      const { label = head.label } = options
      const wanted = { label, maxOrder, caching, deviceMapped, madeAt }
      state = this.#machine.addBuffer(head.sizeBytes, backup, wanted)
      filling = new ImageFilling(this.#machine.residents, state, image)
      await filling.fill(name, head.label)
      return new PagedBuffer(this.#machine, state)
    } catch (failure) {
      // The buffer gives up what it got, and this what it did not.
      await backup.drop(filling === undefined ? keptRuns(image) : filling.left).catch(() => {})
      if (state !== undefined && !state.closing) await this.#machine.freeBuffer(state)
      throw located(asError(failure), 'loading', { buffer: name, backup: backup.name })
    }
  }

  /** What a buffer may grow to; undefined when it does not. */
  #maxBytesOf(sizeBytes: number, { growable = false, maxBytes }: AllocateOptions): number | undefined {
    if (typeof growable !== 'boolean')
      throw new TypeError(`growable is ${String(growable)}; it must be true or false`)
    if (!growable) {
      if (maxBytes !== undefined) throw new TypeError('maxBytes is for buffers that are growable')
      return undefined
    }
    if (maxBytes === undefined) throw new TypeError('a buffer that is growable needs maxBytes')
    this.#assertSize(maxBytes, 'maxBytes')
    if (sizeBytes <= maxBytes) return maxBytes
    throw new RangeError(`sizeBytes is ${sizeBytes}; it must not be larger than maxBytes, ${maxBytes}`)
  }

  #assertSize(sizeBytes: number, name: string): void {
    const mostBytes = maxPages * this.pageSizeBytes
    // Before the check of any number of bytes: the most that it names is far beyond what a buffer may have.
    if (typeof sizeBytes === 'number' && sizeBytes > mostBytes)
      throw new RangeError(
        `${name} is ${sizeBytes}; a buffer has at most ${mostBytes} bytes, ${maxPages} pages of ${this.pageSizeBytes}`,
      )
    assertByteCount(sizeBytes, name)
  }

  /** Writes the first content of a buffer that nobody has yet; one that cannot have it is freed. */
  async #fillNew(buffer: PagedBuffer, from: ByteSource, signal: AbortSignal | undefined): Promise<void> {
    try {
      if (buffer instanceof GrowableBuffer) await buffer.append(from, { signal })
      else await buffer.write(0, from, { signal })
    } catch (failure) {
      // Closing the pool may have freed it meanwhile.
      if (!buffer.freed) await buffer.free()
      throw failure
    }
  }

  /**
   * Takes all memory from another provider from now on (T81). Memory of the former one is given back to it as it is freed.
   * Rejects with `ENOSYS` when the provider does not probe well, or cannot do what a buffer of this pool was allocated with,
   * with `EBUSY` when other pools of its budget have the same memory; then the former one stays.
   */
  setProvider(provider: PageProvider): Promise<void> {
    return pacedCall(() => {
      this.#assertOpen()
      return this.#machine.memory.change(provider, () => {
        this.#assertOpen()
        for (const { caching, deviceMapped } of this.#machine.residents.buffers.values()) {
          assertCan(provider, caching !== 0, deviceMapped)
        }
      })
    })
  }

  /**
   * Gives at least `bytes` of memory to the system if it can: what is idle, then the coldest pages. Resolves to the bytes
   * given; fewer when pages are pinned or a backup fails.
   */
  shrink(bytes: number): Promise<number> {
    return pacedCall(async () => {
      this.#assertOpen()
      assertByteCount(bytes, 'bytes')
      const pages = Math.ceil(bytes / this.pageSizeBytes)
      return (await this.#machine.reclaim.shrink(pages)) * this.pageSizeBytes
    })
  }

  /**
   * Changes the limit, and ends `'auto'`. A lower one is in force when the promise resolves; until then memory is given up and the old one
   * holds. It waits as long as pins do not let it sink, however long they are held, and for the next attempt of a failing backup: give it a
   * `signal` to end that. With `whenFull: 'fail'` pins are `ENOMEM` at once.
   *
   * Rejects with `RangeError` for a limit smaller than a chunk, `EINTR` when aborted or when a later call sets another that is not lower,
   * `ENOMEM` when it cannot sink: the backup fails again, or what is in memory has none; then the limit stays.
   */
  setLimit(limitBytes: number, options: { readonly signal?: AbortSignal | undefined } = {}): Promise<void> {
    return pacedCall(() => {
      this.#assertOpen()
      assertKnownOptions(options, ['signal'], 'setLimit')
      assertByteCount(limitBytes, 'limitBytes')
      assertLimit(limitBytes, this.pageSizeBytes, this.#machine.maxOrder)
      if (!this.#machine.ownsBudget) assertBelowBudget(limitBytes, this.#machine.budget)
      return this.#machine.setLimit(Math.floor(limitBytes / this.pageSizeBytes), options.signal)
    })
  }

  /**
   * Changes how much memory is kept warm for the next allocation; resolves when what is too much was given to the system.
   * Rejects with `RangeError` for what is no number of bytes.
   */
  setIdleBytes(idleBytes: number): Promise<void> {
    return pacedCall(() => {
      this.#assertOpen()
      assertByteCount(idleBytes, 'idleBytes')
      return this.#machine.setIdlePages(Math.floor(idleBytes / this.pageSizeBytes))
    })
  }

  /** A snapshot of the gauges and counters; exact at every moment (I11). */
  stats(): PoolStats {
    return poolStats(this.#machine)
  }

  /** All that the pool knows of itself, as data and, with `String(dump)`, as text (T80). */
  dump(): PoolDump {
    return poolDump(this.name, this.#machine)
  }

  /**
   * The state of all buffers for a picture of the pool, the oldest first: each with one byte for each of its largest blocks, an index of
   * `mapStates`, or for every so many of them, so that a buffer has `cellsPerBuffer` at most (1024) and all have `cells` (65,536). Buffers
   * beyond that are left out.
   */
  maps(options: { readonly cells?: number; readonly cellsPerBuffer?: number } = {}): BufferMap[] {
    assertKnownOptions(options, ['cells', 'cellsPerBuffer'], 'maps')
    const { cells = 65_536, cellsPerBuffer = 1024 } = options
    assertByteCount(cells, 'cells')
    if (!(cellsPerBuffer >= 1)) throw new RangeError(`cellsPerBuffer is ${cellsPerBuffer}; it is at least 1`)
    const { residents } = this.#machine
    const { pageSizeBytes } = this
    return bufferMaps(residents.buffers.values(), residents.chunks, { cells, cellsPerBuffer, pageSizeBytes })
  }

  [inspectCustom](): string {
    const { limitBytes, residentBytes, backedUpBytes, buffers } = this.stats()
    const state = this.#isClosed ? ', closed' : ''
    return `Pool '${this.name}' (limit ${limitBytes} bytes, ${residentBytes} resident, ${backedUpBytes} backed up, ${buffers} buffers${state})`
  }

  /** Resolves when nothing that the pool does by itself is under way any more: reading ahead, writing back, dropping. */
  settled(): Promise<void> {
    return pacedCall(() => this.#machine.settled())
  }

  /** Recomputes every gauge and says what does not match; empty for a healthy pool. For tests: it looks at every page. */
  verify(): string[] {
    return verify(this.#machine)
  }

  /**
   * Frees all buffers, waits for what is in flight and gives all memory to the system. Close its backups after it. Rejects with
   * `EBUSY`, and has done nothing, when a pin is held. A second call does nothing more.
   */
  close(): Promise<void> {
    return pacedCall(() => {
      if (this.#closing === undefined) {
        this.#assertClosable()
        this.#isClosed = true
        this.#closing = this.#machine.close().then(this.#forget, (failure) => {
          this.#closing = undefined
          throw failure
        })
      }
      return this.#closing
    })
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  /** Throws before anything is changed: calls that are made beside a refused `close` go on. */
  #assertClosable(): void {
    const machine = this.#machine
    machine.providerGuard.assertIdle()
    if (machine.residents.applicationPins === 0) return
    throw new SpillwayError(
      'EBUSY',
      `${poolTitle(this.name)} cannot be closed; pinned: ${describePins(machine.residents)}`,
    )
  }

  #assertOpen(): void {
    this.#machine.providerGuard.assertIdle()
    if (this.#isClosed) throw new SpillwayError('EBADF', `${poolTitle(this.name)} is closed`)
  }
}

const alive = new LiveObjects<Pool>()

/** The pools of this process that are not closed, the oldest first. Pools that nobody uses any more are not held. */
export function livePools(): Pool[] {
  return alive.list()
}

const machines = new WeakMap<Pool, Machine>()

/** @internal The parts of a pool, for tests. */
export function machineOf(pool: Pool): Machine {
  return machines.get(pool)!
}

/** Throws `ENOSYS` for a provider that lacks the hooks for what a buffer asks of its memory. */
function assertCan(provider: PageProvider, changesCaching: boolean, deviceMapped: boolean): void {
  if (changesCaching && provider.setCaching === undefined) {
    throw cannot(provider, 'change the caching of memory')
  }
  if (deviceMapped && (provider.map === undefined || provider.unmap === undefined)) {
    throw cannot(provider, 'map memory for a device')
  }
}

function cannot(provider: PageProvider, what: string): SpillwayError {
  return new SpillwayError('ENOSYS', `page provider ${provider.name} cannot ${what}`)
}
