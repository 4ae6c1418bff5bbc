import { nowMs, SpillwayError, systemError } from '@spillway/core'
import type { FileSystemStatus, Files } from './file-system.ts'
import { FileSystemSpace, sharedSpace } from './file-system-space.ts'
import { isInMemory, isLayered } from './file-system-types.ts'
import { sharedMemoryRoom } from './memory-room.ts'

/** How long a file system that refused space, though it says that there is some (a quota), is believed to be full. */
const refusalMs = 2000

export interface DiskSpaceOptions {
  /** What is asked: a path that leads to the open file; `undefined` where nothing tells. */
  readonly path: string | undefined
  /** Names the file system, for those who share it; `undefined` for one that is nobody else's. */
  readonly deviceId?: string | undefined
  /** What the options say. */
  readonly keepFreeBytes: number | undefined
  /** Whether the file lies on a device; asked where the file system only layers others (a container's root). @default it does */
  readonly isOnDevice?: (() => boolean) | undefined
}

/**
 * How much of its file system a backup may still use. It is asked again after 50 ms or 64 MiB of new blocks, whichever comes first; in
 * between, what was granted is subtracted, so that callers at the same time do not spend it twice. A file system in memory (tmpfs) has
 * no more room than the machine and its control groups have memory.
 */
export class DiskSpace {
  /** Size of the file system; infinite where it does not tell. */
  readonly sizeBytes: number
  readonly keepFreeBytes: number
  readonly isInMemory: boolean
  /** What the kernel calls the file system; `undefined` where it does not say. */
  readonly type: number | undefined
  readonly #ask: (() => Promise<FileSystemStatus>) | undefined
  readonly #space: FileSystemSpace
  readonly #leave: () => void
  #refusal: { untilMs: number; roomBytes: number } | undefined

  private constructor(files: Files, options: DiskSpaceOptions, status: FileSystemStatus | undefined) {
    const { path, deviceId, keepFreeBytes, isOnDevice } = options
    const tells = status !== undefined && status.blocks > 0
    this.sizeBytes = tells ? status.blocks * status.bsize : Number.POSITIVE_INFINITY
    this.keepFreeBytes = keepFreeBytes ?? (tells ? Math.floor(this.sizeBytes * 0.05) : 0)
    this.type = status?.type
    this.isInMemory = isInMemory(this.type) || (isLayered(this.type) && isOnDevice?.() === false)
    this.#ask = path === undefined ? undefined : () => files.statfs(path)
    const make = () => new FileSystemSpace(status, this.isInMemory ? sharedMemoryRoom() : undefined)
    const { space, leave } =
      deviceId === undefined ? { space: make(), leave: () => {} } : sharedSpace(deviceId, make)
    this.#space = space
    this.#leave = leave
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
      // Nothing is to be kept: a file system that is full says so itself.
      if (options.keepFreeBytes === 0) return new DiskSpace(files, { ...options, path: undefined }, undefined)
      throw systemError(failure, 'keepFreeBytes cannot be kept: the file system does not tell its free space')
    }
  }

  /** What stood against more, in words. */
  get whyFull(): string {
    return this.#space.memoryBytes < this.#space.freeBytes - this.keepFreeBytes
      ? 'the file system lies in memory, and what is left of that is kept for the process and others'
      : 'the file system has no space left beyond keepFreeBytes'
  }

  /** Bytes that may still be taken, 0 or more. */
  async freeBytes(): Promise<number> {
    await this.#refresh()
    const { untilMs, roomBytes } = this.#refusal ?? { untilMs: 0, roomBytes: 0 }
    return nowMs() > untilMs ? this.#left() : Math.max(0, Math.min(this.#left(), roomBytes))
  }

  /**
   * Grants up to `bytes`, in whole units; tell `settle` when they have been written or given up. Rejects when the file system, asked
   * anew, does not answer.
   */
  async grant(bytes: number, unitBytes: number): Promise<number> {
    await this.#refresh()
    if (this.#left() < bytes && this.#space.isWorthAsking) {
      // Others may have made room since.
      this.forget()
      await this.#refresh()
    }
    // Nothing may come between looking and taking, or two callers would be granted the same bytes.
    const left = this.#left()
    const granted = left >= bytes ? bytes : Math.floor(left / unitBytes) * unitBytes
    this.#space.grant(granted)
    return granted
  }

  /** Whether there is less than is to be kept free: somebody else took what was there when it was granted. */
  async isShort(): Promise<boolean> {
    this.forget()
    await this.#refresh()
    return this.#space.shownBytes < this.keepFreeBytes || this.#space.memoryBytes <= 0
  }

  settle(grantedBytes: number, takenBytes: number): void {
    this.#space.settle(grantedBytes, takenBytes)
    if (this.#refusal !== undefined) this.#refusal.roomBytes -= takenBytes
  }

  /** Space went back to the file system. */
  gaveBack(bytes: number): void {
    this.#space.gaveBack(bytes)
    if (this.#refusal !== undefined) this.#refusal.roomBytes += bytes
  }

  /** The file system refused space that it seemed to have. */
  refused(): void {
    this.#refusal = { untilMs: nowMs() + refusalMs, roomBytes: 0 }
    this.forget()
  }

  /** What is known no longer holds: something was freed, or the file system was full before it should have been. */
  forget(): void {
    this.#space.forget()
  }

  /** Asks no more; nothing may be granted any longer. */
  close(): void {
    this.#leave()
  }

  #left(): number {
    return Math.max(0, Math.min(this.#space.freeBytes - this.keepFreeBytes, this.#space.memoryBytes))
  }

  async #refresh(): Promise<void> {
    if (this.#ask !== undefined) await this.#space.refresh(this.#ask)
  }
}
