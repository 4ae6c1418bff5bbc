import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs'
import { join } from 'node:path'
import {
  abortError,
  assertKnownOptions,
  assertTransferOptions,
  CallGate,
  type CopyResult,
  countCopy,
  type HandleRun,
  pace,
  SpanCursor,
  SpillwayError,
  sliceBytes,
  systemError,
  type TransferOptions,
  unclosedBackups,
} from '@spillway/core'
import { assertDirectory, assertObject } from '../options.ts'
import { decodeHeader, headerBytes, layoutOf, type SharedHeader, tableEntryBytes } from './layout.ts'
import { assertSharedName } from './names.ts'
import { isDead } from './owner.ts'
import { isAbandoned } from './ownership.ts'

export interface AttachOptions {
  /** The `shared.name` of the backup. */
  readonly name: string
  /** The directory where the owner put it. @default '/dev/shm' */
  readonly directory?: string | undefined
}

/**
 * Attaches to a backup that another process of this user opened with `shared: { name }`, to read pages whose handles
 * that process passed on.
 *
 * Rejects with `ENOENT` (no such name), `EPERM` (another user's), `EACCES` (open to others, or not to us), `EINVAL` (a
 * symbolic link, no file, no shared backup, another format) and `EBADMSG` (a header that is torn or impossible).
 */
export async function attachShmemBackup(options: AttachOptions): Promise<AttachedShmemBackup> {
  assertObject(options, 'attachShmemBackup needs options')
  assertKnownOptions(options, ['name', 'directory'], 'attachShmemBackup')
  const { name, directory = '/dev/shm' } = options
  assertSharedName(name, 'name')
  assertDirectory(directory)
  const path = join(directory, name)
  let fd: number
  try {
    fd = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK)
  } catch (failure) {
    if ((failure as { code?: unknown }).code === 'ELOOP') {
      throw new SpillwayError('EINVAL', `${path} is a symbolic link, which is never followed`, {
        cause: failure,
      })
    }
    throw systemError(failure, `cannot attach to ${path}`)
  }
  try {
    return new AttachedShmemBackup(name, fd, trustedHeader(fd, path))
  } catch (failure) {
    closeSync(fd)
    throw failure
  }
}

function trustedHeader(fd: number, path: string): SharedHeader {
  const found = fstatSync(fd)
  if (!found.isFile()) throw new SpillwayError('EINVAL', `${path} is not a file`)
  if (found.uid !== process.geteuid?.()) {
    throw new SpillwayError(
      'EPERM',
      `${path} belongs to user ${found.uid}, not to user ${process.geteuid?.()}`,
    )
  }
  if ((found.mode & 0o077) !== 0) {
    const mode = (found.mode & 0o777).toString(8)
    throw new SpillwayError(
      'EACCES',
      `${path} has mode ${mode}, so others could have changed it; expected 600`,
    )
  }
  const bytes = new Uint8Array(headerBytes)
  return decodeHeader(bytes.subarray(0, readSync(fd, bytes, 0, headerBytes, 0)), found.size, path)
}

/**
 * Pages of another process, to read. A mapping would be faster than `read`, but the owner may shorten the file at any
 * moment, and touching a mapping beyond the end of its file is the end of the process.
 */
export class AttachedShmemBackup implements AsyncDisposable {
  readonly name: string
  readonly pageSizeBytes: number
  readonly capacityBytes: number
  readonly #fd: number
  readonly #header: SharedHeader
  readonly #tableOffsetBytes: number
  readonly #gate: CallGate
  readonly #dataOffsetBytes: number
  readonly #watched: object
  #isClosed = false

  /** Use `attachShmemBackup`. */
  constructor(name: string, fd: number, header: SharedHeader) {
    const layout = layoutOf(header.pageSizeBytes, header.capacitySlots)
    this.name = name
    this.pageSizeBytes = header.pageSizeBytes
    this.capacityBytes = header.capacitySlots * header.pageSizeBytes
    this.#fd = fd
    this.#header = header
    this.#tableOffsetBytes = layout.tableOffsetBytes
    this.#gate = new CallGate(name)
    this.#dataOffsetBytes = layout.dataOffsetBytes
    this.#watched = unclosedBackups.watch(this, name, closing(fd))
  }

  /** Whether the process that owns the pages still runs. Its pages can be read until somebody opens the next backup. */
  get ownerIsAlive(): boolean {
    return !(this.#isClosed ? isDead(this.#header.owner) : isAbandoned(this.#fd, this.#header))
  }

  /**
   * Fills the spans, in order, with the pages that the handles name. Rejects with `ESTALE`, before anything is copied,
   * when one of them is not live; resolves with `ESTALE` and the prefix done when its owner drops one meanwhile.
   */
  async copyPages(
    handles: readonly HandleRun[],
    spans: readonly Uint8Array[],
    options: TransferOptions = {},
  ): Promise<CopyResult> {
    assertTransferOptions(options)
    countCopy(handles, spans, this.pageSizeBytes)
    return this.#gate.run(async () => {
      const slice = Math.max(1, sliceBytes / this.pageSizeBytes)
      for (const { first, count } of handles) {
        for (let done = 0; done < count; done += slice) {
          const turn = pace(sliceBytes)
          if (turn !== undefined) await turn
          this.#assertLive(first + done, Math.min(slice, count - done))
        }
      }
      return this.#copySlices(handles, new SpanCursor(spans), slice, options.signal)
    })
  }

  async #copySlices(
    handles: readonly HandleRun[],
    target: SpanCursor,
    slice: number,
    signal: AbortSignal | undefined,
  ): Promise<CopyResult> {
    let copied = 0
    for (const { first, count } of handles) {
      for (let done = 0; done < count; done += slice) {
        const pages = Math.min(slice, count - done)
        const turn = pace(pages * this.pageSizeBytes)
        if (turn !== undefined) await turn
        if (signal?.aborted) return { copied, error: abortError(signal, { backup: this.name, page: copied }) }
        try {
          this.#assertLive(first + done, pages)
          const slot = this.#slotOf(first + done)
          const offsetBytes = this.#dataOffsetBytes + slot * this.pageSizeBytes
          target.each(pages * this.pageSizeBytes, (span, start, length, moved) => {
            this.#readExactly(offsetBytes + moved, span, start, length)
          })
          // A handle never comes back: live afterwards means live all the time.
          this.#assertLive(first + done, pages)
        } catch (failure) {
          return { copied, error: systemError(failure, `cannot read ${this.name}`, { backup: this.name }) }
        }
        copied += pages
      }
    }
    return { copied }
  }

  /** Waits for what is in flight and lets go of the owner's memory. A second call does nothing more. */
  close(): Promise<void> {
    unclosedBackups.unwatch(this.#watched)
    return this.#gate.close(() => {
      this.#isClosed = true
      closeSync(this.#fd)
    })
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  #slotOf(handle: number): number {
    return handle - Math.floor(handle / this.#header.slotRange) * this.#header.slotRange
  }

  #assertLive(first: number, count: number): void {
    const slot = this.#slotOf(first)
    if (slot + count > this.#header.capacitySlots) throw this.#staleError(first)
    const entries = new Float64Array(count)
    const bytes = new Uint8Array(entries.buffer)
    this.#readExactly(this.#tableOffsetBytes + slot * tableEntryBytes, bytes, 0, bytes.byteLength)
    for (let index = 0; index < count; index++) {
      if (entries[index] !== first + index) throw this.#staleError(first + index)
    }
  }

  #readExactly(offsetBytes: number, into: Uint8Array, start: number, lengthBytes: number): void {
    for (let done = 0; done < lengthBytes; ) {
      const length = readSync(this.#fd, into, start + done, lengthBytes - done, offsetBytes + done)
      if (length === 0) throw new SpillwayError('ESTALE', `${this.name} was closed by its owner`)
      done += length
    }
  }

  #staleError(handle: number): SpillwayError {
    const fields = { backup: this.name, handle }
    return new SpillwayError('ESTALE', `handle ${handle} is not live in ${this.name}`, fields)
  }
}

/** Closes the descriptor. Made here, where no backup is in sight that the function could keep from being collected. */
function closing(fd: number): () => void {
  return () => closeSync(fd)
}
