import { readFileSync } from 'node:fs'
import { memoryHeadroomBytes, nowMs, SpillwayError, SystemMemoryReader, systemError } from '@spillway/core'
import type { FileSystemStatus, Files } from './file-system.ts'
import { isInMemory, isLayered, tellsSpaceAtOnce } from './file-system-types.ts'

const sampleLifetimeMs = 50
const freshSampleMs = 5
const sampleLifetimeBytes = 64 * 1024 * 1024
/** Memory is shared with everything that the process does: it is looked at more often. */
const memorySampleLifetimeBytes = 16 * 1024 * 1024
/** A file system that is late (btrfs) shows what was taken with its next transaction, every 30 s. */
const transactionMs = 35_000
/** How long a file system that refused space, though it says that there is some (a quota), is believed to be full. */
const refusalMs = 2000

export interface DiskSpaceOptions {
  /** What is asked: a path that leads to the open file; `undefined` where nothing tells. */
  readonly path: string | undefined
  /** What the options say. */
  readonly keepFreeBytes: number | undefined
  /** Whether the file lies on a device; asked where the file system only layers others (a container's root). @default it does */
  readonly isOnDevice?: (() => boolean) | undefined
  /** Tells about memory, for a file system that lies in it. @default the machine and the control groups */
  readonly memory?: Pick<SystemMemoryReader, 'read'> | undefined
}

/**
 * How much of the file system may still be used. It is asked again after 50 ms or 64 MiB of new blocks, whichever comes first; in
 * between, what was granted is subtracted, so that callers at the same time do not spend it twice. A file system in memory (tmpfs) has
 * no more room than the machine and its control groups have memory: there, the last page is not refused, it ends the process.
 */
export class DiskSpace {
  /** Size of the file system; infinite where it does not tell. */
  readonly sizeBytes: number
  readonly keepFreeBytes: number
  readonly isInMemory: boolean
  /** What the kernel calls the file system; `undefined` where it does not say. */
  readonly type: number | undefined
  readonly #files: Files
  readonly #path: string | undefined
  readonly #memory: Pick<SystemMemoryReader, 'read'> | undefined
  readonly #isLate: boolean
  /** As the file system said last; infinite where it does not tell. */
  #freeBytes: number
  /** Memory that may be taken, as the system said last. */
  #memoryBytes = Number.POSITIVE_INFINITY
  #sampledAtMs = Number.NEGATIVE_INFINITY
  /** Granted and perhaps not yet taken from the file system. */
  #underWayBytes = 0
  /** Taken since the last sample was begun. */
  #takenBytes = 0
  /** Taken before, and not shown by the file system yet. */
  #unshownBytes = 0
  #windowBeganMs = 0
  #windowTakenBytes = 0
  #earlierWindowTakenBytes = 0
  #refusal: { untilMs: number; roomBytes: number } | undefined
  #sampling: Promise<void> | undefined

  private constructor(files: Files, options: DiskSpaceOptions, status: FileSystemStatus | undefined) {
    const tells = status !== undefined && status.blocks > 0
    this.sizeBytes = tells ? status.blocks * status.bsize : Number.POSITIVE_INFINITY
    this.keepFreeBytes = options.keepFreeBytes ?? (tells ? Math.floor(this.sizeBytes * 0.05) : 0)
    this.type = status?.type
    this.isInMemory =
      isInMemory(status?.type) || (isLayered(status?.type) && options.isOnDevice?.() === false)
    this.#files = files
    this.#path = options.path
    this.#isLate = !tellsSpaceAtOnce(status?.type)
    this.#freeBytes = tells ? status.bavail * status.bsize : Number.POSITIVE_INFINITY
    if (this.isInMemory) this.#memory = options.memory ?? new SystemMemoryReader(textOf)
  }

  /** Rejects when the file system does not answer: then nothing could be kept free. */
  static async open(files: Files, options: DiskSpaceOptions): Promise<DiskSpace> {
    if (options.path === undefined) {
      if ((options.keepFreeBytes ?? 0) === 0) return new DiskSpace(files, options, undefined)
      throw new SpillwayError(
        'EINVAL',
        'keepFreeBytes cannot be kept: nothing tells the free space of this file',
      )
    }
    try {
      return new DiskSpace(files, options, await files.statfs(options.path))
    } catch (failure) {
      throw systemError(failure, 'keepFreeBytes cannot be kept: the file system does not tell its free space')
    }
  }

  /** What stood against more, in words. */
  get whyFull(): string {
    const isMemoryShort = this.#memoryBytes < this.#freeBytes - this.keepFreeBytes
    return isMemoryShort
      ? 'the file system lies in memory, and what is left of that is kept for the process and others'
      : 'the file system has no space left beyond keepFreeBytes'
  }

  /** Bytes that may still be taken, 0 or more. */
  async freeBytes(): Promise<number> {
    await this.#refresh()
    const { untilMs, roomBytes } = this.#refusal ?? { untilMs: 0, roomBytes: 0 }
    if (nowMs() > untilMs) return this.#left()
    return Math.max(0, Math.min(this.#left(), roomBytes - this.#underWayBytes))
  }

  /**
   * Grants up to `bytes`, in whole units; tell `settle` when they have been written or given up. Rejects when the file system, asked
   * anew, does not answer.
   */
  async grant(bytes: number, unitBytes: number): Promise<number> {
    await this.#refresh()
    if (this.#left() < bytes && nowMs() - this.#sampledAtMs > freshSampleMs) {
      // Others may have made room since.
      this.forget()
      await this.#refresh()
    }
    // Nothing may come between looking and taking, or two callers would be granted the same bytes.
    const left = this.#left()
    const granted = left >= bytes ? bytes : Math.floor(left / unitBytes) * unitBytes
    this.#underWayBytes += granted
    return granted
  }

  /** Whether there is less than is to be kept free: somebody else took what was there when it was granted. */
  async isShort(): Promise<boolean> {
    this.forget()
    await this.#refresh()
    return this.#freeBytes < this.keepFreeBytes || this.#memoryBytes <= 0
  }

  settle(grantedBytes: number, takenBytes: number): void {
    this.#underWayBytes -= grantedBytes
    this.#takenBytes += takenBytes
    if (this.#refusal !== undefined) this.#refusal.roomBytes -= takenBytes
  }

  /** Space went back to the file system. */
  gaveBack(bytes: number): void {
    if (this.#isLate) this.#takenBytes -= bytes
    if (this.#refusal !== undefined) this.#refusal.roomBytes += bytes
    this.forget()
  }

  /** The file system refused space that it seemed to have. */
  refused(): void {
    this.#refusal = { untilMs: nowMs() + refusalMs, roomBytes: 0 }
    this.forget()
  }

  /** What is known no longer holds: something was freed, or the file system was full before it should have been. */
  forget(): void {
    this.#sampledAtMs = Number.NEGATIVE_INFINITY
  }

  #left(): number {
    const diskBytes = this.#freeBytes - this.#unshownBytes - this.keepFreeBytes
    return Math.max(0, Math.min(diskBytes, this.#memoryBytes) - this.#takenBytes - this.#underWayBytes)
  }

  async #refresh(): Promise<void> {
    if (this.#path === undefined) return
    const lifetimeBytes = this.isInMemory ? memorySampleLifetimeBytes : sampleLifetimeBytes
    const isStale = nowMs() - this.#sampledAtMs > sampleLifetimeMs || this.#takenBytes > lifetimeBytes
    if (!isStale) return
    this.#sampling ??= this.#sample(this.#path).finally(() => {
      this.#sampling = undefined
    })
    await this.#sampling
  }

  async #sample(path: string): Promise<void> {
    // What is taken while the file system answers may be in its answer or not: it stays subtracted.
    const takenBytes = this.#takenBytes
    const sampledAtMs = nowMs()
    const { bavail, bsize, blocks } = await this.#files.statfs(path)
    const freeBytes = blocks > 0 ? bavail * bsize : Number.POSITIVE_INFINITY
    if (this.#isLate) this.#countUnshown(takenBytes, this.#freeBytes - freeBytes, sampledAtMs)
    if (this.#refusal !== undefined) this.#refusal.roomBytes += Math.max(0, freeBytes - this.#freeBytes)
    this.#freeBytes = freeBytes
    this.#takenBytes -= takenBytes
    this.#sampledAtMs = sampledAtMs
    if (this.#memory !== undefined) this.#memoryBytes = memoryRoom(this.#memory)
  }

  /** Keeps what was taken subtracted until free space has sunk by as much, or a transaction must have shown it. */
  #countUnshown(takenBytes: number, sunkBytes: number, sampledAtMs: number): void {
    if (sampledAtMs - this.#windowBeganMs > transactionMs) {
      this.#earlierWindowTakenBytes = this.#windowTakenBytes
      this.#windowTakenBytes = 0
      this.#windowBeganMs = sampledAtMs
    }
    this.#windowTakenBytes += Math.max(0, takenBytes)
    const sunk = Number.isNaN(sunkBytes) ? 0 : sunkBytes
    const unshownBytes = Math.max(0, this.#unshownBytes + takenBytes - sunk)
    this.#unshownBytes = Math.min(unshownBytes, this.#windowTakenBytes + this.#earlierWindowTakenBytes)
  }
}

/** Memory that may be taken: the process needs some itself, and is killed when there is none. */
function memoryRoom(memory: Pick<SystemMemoryReader, 'read'>): number {
  const { limitBytes, availableBytes } = memory.read()
  return Math.max(0, availableBytes - memoryHeadroomBytes(limitBytes))
}

function textOf(path: string): string | undefined {
  try {
    return readFileSync(path, 'latin1')
  } catch {
    return undefined
  }
}
