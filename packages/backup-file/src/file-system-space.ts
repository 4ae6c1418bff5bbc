import { nowMs } from '@spillway/core'
import type { FileSystemStatus } from './file-system.ts'
import { tellsSpaceAtOnce } from './file-system-types.ts'
import type { MemoryRoom } from './memory-room.ts'

const sampleLifetimeMs = 50
const freshSampleMs = 5
const sampleLifetimeBytes = 64 * 1024 * 1024
/** A file system that is late (btrfs) shows what was taken with its next transaction, every 30 s. */
const transactionMs = 35_000

/** Asks the file system, through a file that is open. */
export type AskFileSystem = () => Promise<FileSystemStatus>

/**
 * Free space of one file system, as far as it is known between two answers of it: all backups of the process there share it, so that no
 * two are granted the same bytes.
 */
export class FileSystemSpace {
  readonly #memory: MemoryRoom | undefined
  readonly #isLate: boolean
  /** As the file system said last; infinite where it does not tell. */
  #freeBytes: number
  #sampledAtMs = Number.NEGATIVE_INFINITY
  /** Granted and perhaps not yet taken from the file system. */
  #underWayBytes = 0
  /** Taken since the last sample was begun. */
  #takenBytes = 0
  /** Taken before and not shown by the file system yet; below 0: shown before it was settled, or given back and not shown yet. */
  #unshownBytes = 0
  #windowBeganMs = 0
  readonly #takenOf = new RecentBytes()
  readonly #givenBackOf = new RecentBytes()
  #sampling: Promise<void> | undefined

  /** `memory` for a file system that lies in it; `status` is what it says now, `undefined` where nobody can be asked. */
  constructor(status: FileSystemStatus | undefined, memory: MemoryRoom | undefined) {
    this.#memory = memory
    this.#isLate = status !== undefined && !tellsSpaceAtOnce(status.type)
    this.#freeBytes = status === undefined ? Number.POSITIVE_INFINITY : freeBytesOf(status)
  }

  /** Bytes that are free, as far as is known, with what was granted subtracted. May be less than 0. */
  get freeBytes(): number {
    return this.#freeBytes - Math.max(0, this.#unshownBytes) - this.#takenBytes - this.#underWayBytes
  }

  /** Bytes that the file system said are free. */
  get shownBytes(): number {
    return this.#freeBytes
  }

  /** Bytes of memory that may be taken; infinite where the file system does not lie in memory. */
  get memoryBytes(): number {
    return this.#memory?.leftBytes ?? Number.POSITIVE_INFINITY
  }

  /** Whether an answer is so old that asking again may tell something else. */
  get isWorthAsking(): boolean {
    return nowMs() - this.#sampledAtMs > freshSampleMs
  }

  grant(bytes: number): void {
    this.#underWayBytes += bytes
    this.#memory?.grant(bytes)
  }

  settle(grantedBytes: number, takenBytes: number): void {
    this.#underWayBytes -= grantedBytes
    this.#takenBytes += takenBytes
    this.#memory?.settle(grantedBytes, takenBytes)
  }

  gaveBack(bytes: number): void {
    if (this.#isLate) this.#takenBytes -= bytes
    this.forget()
  }

  forget(): void {
    this.#sampledAtMs = Number.NEGATIVE_INFINITY
    this.#memory?.forget()
  }

  /** Asks the file system when the last answer is old. Rejects as it does. */
  async refresh(ask: AskFileSystem): Promise<void> {
    const isStale = nowMs() - this.#sampledAtMs > sampleLifetimeMs || this.#takenBytes > sampleLifetimeBytes
    if (!isStale) return
    const underWay = this.#sampling
    // What another backup asked through may have been closed meanwhile: then it is asked again, through the file of this one.
    if (
      underWay !== undefined &&
      (await underWay.then(
        () => true,
        () => false,
      ))
    )
      return
    this.#sampling ??= this.#sample(ask).finally(() => {
      this.#sampling = undefined
    })
    await this.#sampling
  }

  async #sample(ask: AskFileSystem): Promise<void> {
    // What is taken while the file system answers may be in its answer or not: it stays subtracted.
    const takenBytes = this.#takenBytes
    const sampledAtMs = nowMs()
    const freeBytes = freeBytesOf(await ask())
    if (this.#isLate) this.#countUnshown(takenBytes, this.#freeBytes - freeBytes, sampledAtMs)
    this.#freeBytes = freeBytes
    this.#takenBytes -= takenBytes
    this.#sampledAtMs = sampledAtMs
  }

  /**
   * Keeps what was taken subtracted until free space has sunk by as much, or a transaction must have shown it. Space that is reserved
   * sinks before it is settled, and what was given back rises later: both are remembered, or they would be counted twice.
   */
  #countUnshown(takenBytes: number, sunkBytes: number, sampledAtMs: number): void {
    if (sampledAtMs - this.#windowBeganMs > transactionMs) {
      this.#takenOf.nextWindow()
      this.#givenBackOf.nextWindow()
      this.#windowBeganMs = sampledAtMs
    }
    this.#takenOf.add(Math.max(0, takenBytes))
    this.#givenBackOf.add(Math.max(0, -takenBytes))
    const sunk = Number.isNaN(sunkBytes) ? 0 : sunkBytes
    const unshownBytes = this.#unshownBytes + takenBytes - sunk
    const leastBytes = -this.#underWayBytes - this.#givenBackOf.bytes
    this.#unshownBytes = Math.max(leastBytes, Math.min(unshownBytes, this.#takenOf.bytes))
  }
}

/** Bytes of this window and the one before it. */
class RecentBytes {
  #window = 0
  #earlier = 0

  get bytes(): number {
    return this.#window + this.#earlier
  }

  add(bytes: number): void {
    this.#window += bytes
  }

  nextWindow(): void {
    this.#earlier = this.#window
    this.#window = 0
  }
}

function freeBytesOf({ bavail, bsize, blocks }: FileSystemStatus): number {
  return blocks > 0 ? bavail * bsize : Number.POSITIVE_INFINITY
}

const shared = new Map<string, { readonly space: FileSystemSpace; users: number }>()

/** The space of the file system that `key` names, made by `make` for the first to ask. `leave` when it is not needed any more. */
export function sharedSpace(
  key: string,
  make: () => FileSystemSpace,
): { readonly space: FileSystemSpace; leave(): void } {
  const found = shared.get(key) ?? { space: make(), users: 0 }
  shared.set(key, found)
  found.users++
  return {
    space: found.space,
    leave: () => {
      if (--found.users === 0) shared.delete(key)
    },
  }
}
