import { assertKnownOptions, type Backup, mayWork, smallCallBytes } from '@spillway/core'
import { calledFrom, watchBuffer } from '../diagnostics/debug.ts'
import { inspectCustom } from '../diagnostics/inspect.ts'
import { mapOf } from '../diagnostics/map.ts'
import { pacedCall } from '../ground/paced-call.ts'
import type { Machine } from '../machine.ts'
import { type ByteVisit, bytesOf } from '../operations/byte-range.ts'
import {
  type BackupOptions,
  type RestoreOptions,
  reporting,
  type TransferResult,
} from '../operations/call-progress.ts'
import { imageNameOf, type SaveOptions } from '../operations/save.ts'
import { asError } from '../residency/backing-store.ts'
import type { BufferState } from '../residency/buffer-state.ts'
import { assertNotPinned, assertUsable } from '../residency/closed.ts'
import type { HeldRange } from '../residency/growth.ts'
import { type ByteSource, bytesAtHand, firstBytes, repeating } from './byte-sources.ts'
import {
  type Advice,
  advices,
  type CopyOptions,
  type FillOptions,
  type PiecesOptions,
  type PinOptions,
  type PurgeOptions,
  pinOptions,
  type RangeAccessOptions,
  type RangeOptions,
  type ReadWriteOptions,
} from './options.ts'
import { PendingCall } from './pending-call.ts'
import { assertNumbersType, type NumbersType, Pin } from './pin.ts'
import { PinCall } from './pin-call.ts'
import { assertOneOf } from './pool-options.ts'
import { purge } from './purge.ts'
import { assertByte, assertBytes, assertRange, rangeOf } from './ranges.ts'
import {
  type BufferWritable,
  copyBetween,
  readableOf,
  readPieces,
  readTyped,
  writableOf,
  writeSource,
} from './streams.ts'

/**
 * Bytes that may be more than memory holds. Made by `pool.allocate`; takes memory page by page when it is touched, gives it
 * up when others need it, and has it back when it is touched again. Pages that were never written read as zeros.
 *
 * Any calls may overlap; what overlapping reads and writes of one range see of each other is not defined.
 */
export class PagedBuffer implements AsyncDisposable {
  readonly #machine: Machine
  readonly #state: BufferState

  /** @internal */
  constructor(machine: Machine, state: BufferState) {
    this.#machine = machine
    this.#state = state
    watchBuffer(this, state)
  }

  get label(): string {
    return this.#state.label
  }

  get sizeBytes(): number {
    return this.#state.sizeBytes
  }

  /** Size of the largest chunk: what one access makes resident at most, and what a range must not cross for `pin.bytes`. */
  get chunkBytes(): number {
    return this.#state.table.blockPages * this.#machine.pageSizeBytes
  }

  /** Bytes that are in memory now. */
  get residentBytes(): number {
    return this.#state.table.residentPages * this.#machine.pageSizeBytes
  }

  /** Bytes that are in the backup only. */
  get backedUpBytes(): number {
    return this.#state.table.storedPages * this.#machine.pageSizeBytes
  }

  /**
   * Whether content was given up, by `purge` or because the buffer was advised `'purgeable'`; what is gone reads as zeros, without an
   * error (T77). It stays true, also when the content is written anew, until `restore` has told of it with `ENOENT`. Pin, then look: while a
   * pin is held nothing of its range is given up, so what it shows is content if this is false.
   */
  get purged(): boolean {
    return this.#state.purged
  }

  get freed(): boolean {
    return this.#state.closing
  }

  /** Fills `into` with the bytes from `offsetBytes` on. Rejects with `RangeError` when they are not all in the buffer. */
  read(offsetBytes: number, into: Uint8Array, options: ReadWriteOptions = {}): Promise<void> {
    let isDone = false
    try {
      assertUsable(this.#state, this.#machine.providerGuard)
      assertKnownOptions(options, readWriteOptions, 'read')
      assertBytes(into, 'into')
      assertRange(this.#state, offsetBytes, into.byteLength)
      const { readWrite, readahead } = this.#machine
      readahead.note(this.#state, offsetBytes, into.byteLength)
      const mayGoOn = options.signal?.aborted !== true
      isDone = mayGoOn && readWrite.tryRead(this.#state, offsetBytes, into)
    } catch (failure) {
      return this.#settled(failure as Error)
    }
    if (isDone) return this.#done(into.byteLength)
    const { byteLength: length } = into
    return this.#callOn({ offsetBytes, length }, length, (call) => {
      const done = (error?: Error) => call.settle(error)
      this.#machine.readWrite.readThen(this.#state, { offset: offsetBytes, into }, options, done)
    })
  }

  /**
   * Writes the bytes of a source at `offsetBytes`. Chunks that are overwritten whole are not restored first. What has to be waited
   * for, a Blob or an iterable, is written piece by piece as it comes: what was written before a failure stays. A view is not copied
   * first: leave its bytes alone until the call settles. Rejects with `RangeError` when the bytes do not all fit.
   */
  write(offsetBytes: number, source: ByteSource, options: ReadWriteOptions = {}): Promise<void> {
    let isDone = false
    let bytes: Uint8Array
    try {
      assertUsable(this.#state, this.#machine.providerGuard)
      assertKnownOptions(options, readWriteOptions, 'write')
      const atHand = bytesAtHand(source, 'the source of write')
      if (atHand === undefined) return writeSource({ buffer: this, offset: offsetBytes }, source, options)
      bytes = atHand
      assertRange(this.#state, offsetBytes, bytes.byteLength)
      const mayGoOn = options.signal?.aborted !== true
      isDone = mayGoOn && this.#machine.readWrite.tryWrite(this.#state, offsetBytes, bytes)
    } catch (failure) {
      return this.#settled(failure as Error)
    }
    if (isDone) return this.#done(bytes.byteLength)
    const { byteLength: length } = bytes
    const { signal, retryMayFail } = options
    return this.#callOn({ offsetBytes, length }, length, (call) => {
      const write = { signal, retryMayFail, source: bytesOf(bytes) }
      const done = (error?: Error) => call.settle(error)
      this.#machine.readWrite.writeThen(this.#state, { offset: offsetBytes, length }, write, done)
    })
  }

  /** Writes one byte value over a range, or the bytes of a source over and over, the last time perhaps not to its end. */
  fill(value: number | ByteSource, options: FillOptions = {}): Promise<void> {
    try {
      assertUsable(this.#state, this.#machine.providerGuard)
      const { length } = rangeOf(this.#state, options, 'fill', ['retryMayFail', 'onProgress'])
      if (typeof value === 'number') {
        assertByte(value)
        return this.#fill((target) => target.fill(value), options)
      }
      const bytes = bytesAtHand(value, 'the pattern')
      if (bytes !== undefined) return this.#fill(repeating(bytes), options)
      const pattern = firstBytes(value, length, 'the pattern', options.signal)
      return pattern.then((bytes) => this.#fill(repeating(bytes), options))
    } catch (failure) {
      return this.#settled(failure as Error)
    }
  }

  #fill(visit: ByteVisit, options: FillOptions): Promise<void> {
    const range = rangeOf(this.#state, options, 'fill', ['retryMayFail', 'onProgress'])
    const { signal, retryMayFail, onProgress } = options
    const { offset, length } = range
    return this.#callOn({ offsetBytes: offset, length }, 0, (call) => {
      const write = { signal, retryMayFail, source: reporting(visit, length, onProgress) }
      this.#machine.readWrite.writeThen(this.#state, range, write, (error) => call.settle(error))
    })
  }

  /**
   * Copies a range into another buffer of any pool, or to another place of this one, ranges that overlap included. Takes
   * the range in pieces and holds no memory of one buffer while it waits for memory of the other.
   */
  copyTo(target: PagedBuffer, options: CopyOptions = {}): Promise<void> {
    return this.#run(() => {
      if (!(target instanceof PagedBuffer)) throw new TypeError('the target is not a PagedBuffer')
      const more = ['targetOffset', 'retryMayFail', 'onProgress']
      const { offset, length } = rangeOf(this.#state, options, 'copyTo', more)
      const { targetOffset = 0 } = options
      const to = { buffer: target, offset: targetOffset }
      return copyBetween({ buffer: this, offset }, to, length, options)
    })
  }

  /** The bytes of a range, one copy after the other: `for await (const bytes of buffer.pieces())`. */
  pieces(options: PiecesOptions = {}): AsyncGenerator<Uint8Array<ArrayBuffer>, void, undefined> {
    const { offset, length, pieceBytes } = this.#piecesOf(options, 'pieces')
    return readPieces({ buffer: this, offset }, length, pieceBytes, options)
  }

  /**
   * The values of a range as typed arrays, in order, each with a copy of a chunk at most: `for await (const prices of
   * buffer.typed(Float64Array)) for (const price of prices) …`. Throws `RangeError` when the length or `pieceBytes` is no multiple of
   * the type's size.
   */
  typed<Numbers>(
    type: NumbersType<Numbers>,
    options: PiecesOptions = {},
  ): AsyncGenerator<Numbers, void, undefined> {
    assertNumbersType(type)
    const { pieceBytes = Math.min(this.chunkBytes, 1024 ** 2) } = options
    const range = this.#piecesOf({ ...options, pieceBytes }, 'typed')
    const size = type.BYTES_PER_ELEMENT
    if (range.length % size !== 0 || pieceBytes % size !== 0) {
      throw new RangeError(
        `length ${range.length} and pieceBytes ${pieceBytes} must be multiples of ${size} for ${type.name}`,
      )
    }
    const { offset, length } = range
    return readTyped(type, readPieces({ buffer: this, offset }, length, pieceBytes, options))
  }

  #piecesOf(options: PiecesOptions, caller: string): { offset: number; length: number; pieceBytes: number } {
    const { pieceBytes = 1024 ** 2 } = options
    const { offset, length } = rangeOf(this.#state, options, caller, ['pieceBytes', 'retryMayFail'])
    if (Number.isSafeInteger(pieceBytes) && pieceBytes >= 1) return { offset, length, pieceBytes }
    throw new RangeError(`pieceBytes is ${pieceBytes}; it must be a whole number of bytes, 1 or more`)
  }

  [Symbol.asyncIterator](): AsyncGenerator<Uint8Array<ArrayBuffer>, void, undefined> {
    return this.pieces()
  }

  /** A range as a stream of bytes; readers may bring their own memory (`getReader({ mode: 'byob' })`). */
  readable(options: PiecesOptions = {}): ReadableStream<Uint8Array<ArrayBuffer>> {
    const { offset, length, pieceBytes } = this.#piecesOf(options, 'readable')
    return readableOf({ buffer: this, offset }, length, pieceBytes, options)
  }

  /**
   * A stream whose bytes are written from `offset` on, and which fails with `RangeError` when there are more than fit. Its
   * `bytesWritten` tells how many are written so far.
   */
  writable(options: RangeAccessOptions = {}): BufferWritable {
    const { offset, length } = rangeOf(this.#state, options, 'writable', ['retryMayFail'])
    return writableOf({ buffer: this, offset }, length, options)
  }

  /**
   * Makes a range resident and keeps it so until the pin is released. Rejects with `RangeError` outside the buffer, `EINTR`
   * when aborted, `ENOMEM` when there is no room, or with what the backup said; what was restored so far stays restored.
   */
  pin(options: PinOptions = {}): Promise<Pin> {
    const madeAt = this.#machine.debug ? calledFrom(this.pin) : undefined
    let pin: Pin | undefined
    try {
      pin = this.#tryPin(options, madeAt)
    } catch (failure) {
      return this.#settled(failure as Error)
    }
    if (pin === undefined) return this.#pinMissing(options, madeAt)
    // The way of every pin of what is resident: nothing is made for it but the pin and its promise.
    return mayWork(smallCallBytes) ? Promise.resolve(pin) : this.#settled(undefined, pin)
  }

  /** The end of a call that copied so many bytes at once: nothing is made for it but its promise. */
  #done(copiedBytes: number): Promise<void> {
    if (mayWork(smallCallBytes + copiedBytes)) return Promise.resolve()
    return this.#callOn(undefined, copiedBytes, (call) => call.settle())
  }

  #pinMissing(options: PinOptions, madeAt: string | undefined): Promise<Pin> {
    const state = this.#state
    const call = new PinCall(this.#machine, state, options, madeAt)
    try {
      assertUsable(state, this.#machine.providerGuard)
      call.begin(state.growth && { offsetBytes: call.offset, length: call.length })
      call.start()
    } catch (failure) {
      call.settle(failure as Error)
    }
    return call.promise
  }

  #settled<Result>(error: Error | undefined, result?: Result): Promise<Result> {
    return this.#callOn<Result>(undefined, 0, (call) => call.settle(error, result))
  }

  /** The same without waiting: undefined when the range is not resident, or being written back and `write` is asked. */
  tryPin(options: PinOptions = {}): Pin | undefined {
    return this.#tryPin(options, this.#machine.debug ? calledFrom(this.tryPin) : undefined)
  }

  #tryPin(options: PinOptions, madeAt: string | undefined): Pin | undefined {
    const state = this.#state
    assertUsable(state, this.#machine.providerGuard)
    if (typeof options !== 'object' || options === null) assertKnownOptions(options, [], 'pin')
    const { offset = 0, length = state.sizeBytes - offset, write = false, signal } = options
    for (const key in options)
      if (!pinOptions.has(key) || key === 'signal') assertKnownOptions(options, [...pinOptions], 'pin')
    assertRange(this.#state, offset, length)
    if (signal?.aborted || (write && state.isShutToWriters)) return undefined
    const { pins, pageSizeBytes, readahead } = this.#machine
    readahead.note(state, offset, length)
    const first = Math.floor(offset / pageSizeBytes)
    const end = Math.ceil((offset + length) / pageSizeBytes)
    const pinned = pins.tryPin(state, first, end, write)
    return pinned === undefined
      ? undefined
      : new Pin(this.#machine, state, pinned, { offset, length, write, madeAt })
  }

  /**
   * Stores what is not stored yet and gives up all memory of this buffer, at once to whoever needs some, and to the system
   * unless somebody takes it within a tenth of a second. Resolves to the pages that
   * left memory, and to what stopped it if not all did: pages before that are stored, pages after it are in memory, and the
   * next call goes on (T37). Pinned pages stay, and are reported as `EBUSY`.
   *
   * Rejects before anything happens with `EINVAL` (no backup) or `EBUSY` (no room in the backup, or pages that may not
   * leave; T34).
   */
  backup(options: BackupOptions = {}): Promise<TransferResult> {
    return this.#run(() => {
      assertKnownOptions(options, ['writeback', 'atomic', 'signal', 'onProgress', 'retryMayFail'], 'backup')
      return this.#machine.backups.backup(this.#state, options)
    })
  }

  /**
   * Saves the buffer as it is now under a name, its label by default: `pool.load` gives it back, in this process or after it.
   * Resolves when the image is on stable storage; after any crash it is the old or the new one, whole. What is dirty is stored and
   * stays in memory, clean; only what changed since the last save is written. Writes that come later wait for what they meet on
   * its way. Saves of a buffer run in order.
   *
   * Rejects with `TypeError` (no name and no label), `ENOTSUP` (no backup that holds images), `EBUSY` (a pin that writes, or pages
   * that may not leave; `pins: 'wait'` waits for the pins), `EEXIST` (the image is another buffer's; `replace: true` takes its
   * name), `EINVAL` (purgeable), `EINTR`, `ENOSPC`, or with what the backup said; the old image stays.
   */
  save(name?: string, options: SaveOptions = {}): Promise<void> {
    return this.#run(() => {
      assertKnownOptions(options, ['signal', 'replace', 'pins'], 'save')
      const { replace, pins = 'fail' } = options
      if (replace !== undefined && typeof replace !== 'boolean')
        throw new TypeError(`replace is ${String(replace)}; it must be true or false`)
      assertOneOf(pins, ['fail', 'wait'], 'pins')
      return this.#machine.saves.save(this.#state, imageNameOf(this.#state, name), options)
    })
  }

  /**
   * Brings all stored pages into memory. Resolves to the pages that came, and to what stopped it; the next call goes on,
   * and copies no page in twice (T43). Without an error all of the buffer was in memory at one moment; only a pin keeps
   * it there. Content that was purged is reported once, as `ENOENT`.
   *
   * Rejects with `ENOMEM` when the buffer is larger than the limit.
   */
  restore(options: RestoreOptions = {}): Promise<TransferResult> {
    return this.#run(() => {
      assertKnownOptions(options, ['signal', 'onProgress', 'retryMayFail'], 'restore')
      return this.#machine.restores.restore(this.#state, options)
    })
  }

  /**
   * Gives up the content, or a range of whole pages of it, in memory and in the backup (T36); it reads as zeros from then
   * on. A chunk that lies only partly in the range keeps its memory until the rest of it is given up too. Resolves to the
   * pages given up. Rejects with `EBUSY` when a chunk of the range is pinned, with `RangeError` for a range that is not
   * whole pages of the buffer. Sets `purged` when there was anything to give up.
   */
  purge(options: PurgeOptions = {}): Promise<{ readonly pages: number }> {
    return this.#run(() => purge(this.#machine, this.#state, options))
  }

  /**
   * Gives the buffer another backup, or none. Rejects with `EBUSY` while pages are only in the one it has (T55, T85), and
   * with `RangeError` for one with another page size.
   */
  setBackup(backup: Backup | undefined): Promise<void> {
    return this.#run(() => this.#machine.backingStores.replace(this.#state, backup))
  }

  /**
   * Says how the buffer will be used.
   *
   * - `'normal'`      what holds from the start: sequential reading is noticed and read ahead
   * - `'sequential'`  read ahead from the first access on
   * - `'random'`      no readahead, and chunks no larger than the access that makes them
   * - `'purgeable'`   reclaim may drop the content instead of storing it, see `purged` (T77); any other advice but the next two ends that
   * - `'willneed'`    restore the range now, if memory can be had at once
   * - `'dontneed'`    the range is the next to be evicted
   *
   * The last two concern a range and change nothing else. Throws `TypeError`, `RangeError` or `EBADF`.
   */
  advise(advice: Advice, options: RangeOptions = {}): void {
    const state = this.#state
    assertUsable(state, this.#machine.providerGuard)
    if (!advices.includes(advice)) throw new TypeError(`advice is ${advice}; it can be ${advices.join(', ')}`)
    const { offset, length } = rangeOf(this.#state, options, 'advise')
    if (advice === 'willneed' || advice === 'dontneed') {
      const { pageSizeBytes, readahead } = this.#machine
      const first = Math.floor(offset / pageSizeBytes)
      const end = Math.ceil((offset + length) / pageSizeBytes)
      if (advice === 'willneed') readahead.willNeed(state, first, end)
      else this.#machine.makeCold(state, first, end)
      return
    }
    state.random = advice === 'random'
    state.sequential = advice === 'sequential'
    this.#machine.setPurgeable(state, advice === 'purgeable')
  }

  /**
   * The state of each largest block of the buffer (`chunkBytes`), as an index of `mapStates`: a byte for each, for a look at the whole.
   * A million blocks take some 50 ms; `pool.maps()` looks at no more than it is told to. Throws `EBADF` when the buffer was freed.
   */
  map(): Uint8Array {
    const state = this.#state
    assertUsable(state, this.#machine.providerGuard)
    const count = Math.ceil(state.pageCount / state.table.blockPages)
    return mapOf(state, this.#machine.residents.chunks, { first: 0, count, step: 1 })
  }

  [inspectCustom](): string {
    const { label, sizeBytes, residentBytes, backedUpBytes } = this
    const state = this.freed ? 'freed' : `${residentBytes} in memory, ${backedUpBytes} in the backup only`
    return `PagedBuffer '${label}' (${sizeBytes} bytes: ${state})`
  }

  /**
   * Gives up the buffer; reads and streams of it that are under way may end with `EBADF`, so whoever serves it to others counts them first.
   * Rejects with `EBUSY` when it is pinned, `EBADF` when it was freed before.
   */
  free(): Promise<void> {
    return pacedCall(() => {
      const state = this.#state
      assertUsable(state, this.#machine.providerGuard)
      assertNotPinned(this.#state)
      return this.#machine.freeBuffer(state)
    })
  }

  /** Frees the buffer; after `free` it does nothing. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.#state.closing) await this.free()
  }

  /** A call that ends with a promise of its own: counts as an operation, so that `free` waits for it. */
  #run<Result>(work: () => Promise<Result> | Result): Promise<Result> {
    return this.#callOn(undefined, 0, (call) => {
      const result = work()
      if (result instanceof Promise)
        result.then(
          (value) => call.settle(undefined, value),
          (failure) => call.settle(asError(failure)),
        )
      else call.settle(undefined, result)
    })
  }

  /**
   * Begins a call that copies so many bytes, about a range that a buffer which grows must not lose meanwhile. Turns every throw
   * into a rejection.
   */
  #callOn<Result>(
    range: HeldRange | undefined,
    copiedBytes: number,
    begin: (call: PendingCall<Result>) => void,
  ): Promise<Result> {
    const call = new PendingCall<Result>(this.#state, copiedBytes)
    try {
      assertUsable(this.#state, this.#machine.providerGuard)
      call.begin(range)
      begin(call)
    } catch (failure) {
      call.settle(failure as Error)
    }
    return call.promise
  }
}

const readWriteOptions: readonly string[] = ['signal', 'retryMayFail']
