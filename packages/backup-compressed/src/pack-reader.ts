import {
  abortError,
  type BackupCapabilities,
  type HandleRun,
  innerError,
  SpillwayError,
  type TransferOptions,
  workInTurn,
} from '@spillway/core'
import type { CheckedCodec } from './codec.ts'
import type { Pack } from './pack.ts'
import type { Places } from './places.ts'

/** Pages of one unit that somebody wants. */
export interface UnitRead {
  readonly pack: Pack
  readonly window: number
  /** Where each wanted page is in the unit, and where it is to go. */
  readonly wanted: { readonly placeInUnit: number; readonly page: Uint8Array }[]
  /** The how many-th page of the call its first wanted page is. */
  readonly place: number
  /** The number of that page. */
  readonly number: number
}

/** Decompressing takes as long as copying so many times as much. */
const unpackingFactor = 4

/** What stopped a read: the first page of the call that was not read, and why. */
export interface ReadFailure {
  readonly place: number
  readonly error: Error
}

export interface PackReaderParts {
  readonly backup: string
  readonly capabilities: BackupCapabilities
  readonly places: Places
  readonly codec: CheckedCodec
}

/** A unit as it lies in staging memory. */
interface Fetched {
  readonly read: UnitRead
  readonly bytes: Uint8Array
  /** Pages that have to be there for it, of those that are fetched in one call. */
  readonly neededPages: number
}

/** Reads units of packs, and gives the pages that are wanted of them. */
export class PackReader {
  readonly #parts: PackReaderParts

  constructor(parts: PackReaderParts) {
    this.#parts = parts
  }

  /** Keeps the pages of a pack where they are until `leave`. */
  enter(pack: Pack): void {
    pack.readers++
  }

  leave(pack: Pack): void {
    pack.readers--
    const { places } = this.#parts
    if (pack.readers === 0 && pack.isReplaced) void places.discard(places.heldBy(pack))
  }

  /** Fills the pages that are wanted of units, through `memory`: its halves hold units as they lie and as they were. */
  async read(
    units: readonly UnitRead[],
    memory: Uint8Array,
    options: TransferOptions,
  ): Promise<ReadFailure | undefined> {
    for (let next = 0; next < units.length; ) {
      const { fetched, runs } = this.#plan(units, next, memory)
      const failure = await this.#fetch(fetched, runs, memory, options)
      if (failure !== undefined) return failure
      next += fetched.length
    }
    return undefined
  }

  /** Decompresses a unit and hands out its pages. Throws when it is not what was stored. */
  unpack(read: UnitRead, bytes: Uint8Array, scratch: Uint8Array): void {
    const { codec, capabilities, backup } = this.#parts
    const { pack, window, wanted } = read
    const contentBytes = pack.contentBytes(window)
    const isPlain = bytes.byteLength === contentBytes
    const whole = isPlain ? undefined : joined(wanted, contentBytes)
    const content = isPlain ? bytes : (whole ?? scratch.subarray(0, contentBytes))
    try {
      if (!isPlain) codec.decompress(bytes, content)
    } catch (cause) {
      if (capabilities.detectsCorruption) throw cause
      throw new SpillwayError('EBADMSG', 'a unit is not what was stored', {
        backup,
        cause,
        handle: read.number,
      })
    }
    if (whole !== undefined) return
    const { pageSizeBytes } = capabilities
    for (const { placeInUnit, page } of wanted) {
      page.set(content.subarray(placeInUnit * pageSizeBytes, (placeInUnit + 1) * pageSizeBytes))
    }
  }

  /** As many of the units, from `next` on, as have room in the first half. */
  #plan(
    units: readonly UnitRead[],
    next: number,
    memory: Uint8Array,
  ): { fetched: Fetched[]; runs: HandleRun[] } {
    const { pageSizeBytes } = this.#parts.capabilities
    const room = memory.byteLength / 2 / pageSizeBytes
    const fetched: Fetched[] = []
    const runs: HandleRun[] = []
    let pages = 0
    for (const read of units.slice(next)) {
      const { pack, window } = read
      const [start, length] = [pack.startOf(window), pack.lengthOf(window)]
      if (pack.memory !== undefined) {
        fetched.push({ read, bytes: pack.memory.subarray(start, start + length), neededPages: 0 })
        continue
      }
      const { first, count } = innerPagesOf(pack, window, pageSizeBytes)
      const last = runs.at(-1)
      const end = last === undefined ? 0 : last.first + last.count
      // The page that the unit before it ends in is there already.
      const shared = last !== undefined && first === end - 1 ? 1 : 0
      if (pages + count - shared > room) break
      const offset = (pages - shared) * pageSizeBytes + (start % pageSizeBytes)
      pages += count - shared
      if (last !== undefined && first + shared === end)
        runs[runs.length - 1] = { ...last, count: last.count + count - shared }
      else runs.push({ first, count })
      fetched.push({ read, bytes: memory.subarray(offset, offset + length), neededPages: pages })
    }
    return { fetched, runs }
  }

  async #fetch(
    fetched: readonly Fetched[],
    runs: readonly HandleRun[],
    memory: Uint8Array,
    options: TransferOptions,
  ): Promise<ReadFailure | undefined> {
    const { places, capabilities, backup } = this.#parts
    const pages = runs.reduce((sum, { count }) => sum + count, 0)
    const span = memory.subarray(0, pages * capabilities.pageSizeBytes)
    const stopped = pages > 0 ? await places.packPages.copy(runs, [span], options) : undefined
    const scratch = memory.subarray(memory.byteLength / 2)
    for (const { read, bytes, neededPages } of fetched) {
      const at = { backup, page: read.place, handle: read.number }
      if (stopped !== undefined && neededPages > stopped.pages) {
        return { place: read.place, error: innerError(stopped.error, at) }
      }
      try {
        const unpacking = workInTurn(unpackingBytes(read), () => {
          if (options.signal?.aborted) throw abortError(options.signal, at)
          this.unpack(read, bytes, scratch)
        })
        if (unpacking !== undefined) await unpacking
      } catch (failure) {
        return { place: read.place, error: innerError(failure as Error, at) }
      }
    }
    return undefined
  }
}

/** Copying so many bytes takes as long as decompressing a unit. */
export function unpackingBytes({ pack, window }: UnitRead): number {
  return unpackingFactor * pack.contentBytes(window)
}

/** The pages of the inner backup that a unit lies in. */
export function innerPagesOf(pack: Pack, window: number, pageSizeBytes: number): HandleRun {
  const start = pack.startOf(window)
  const first = Math.floor(start / pageSizeBytes)
  const last = Math.floor((start + pack.lengthOf(window) - 1) / pageSizeBytes)
  return { first: pack.firstInnerPage + first, count: last - first + 1 }
}

/** All pages of a unit as one piece of memory, where they are wanted so. */
function joined(wanted: UnitRead['wanted'], contentBytes: number): Uint8Array | undefined {
  const first = wanted[0].page
  if (wanted.length * first.byteLength !== contentBytes) return undefined
  for (const [index, { placeInUnit, page }] of wanted.entries()) {
    const isNext =
      page.buffer === first.buffer && page.byteOffset === first.byteOffset + index * first.byteLength
    if (placeInUnit !== index || !isNext) return undefined
  }
  return new Uint8Array(first.buffer, first.byteOffset, contentBytes)
}
