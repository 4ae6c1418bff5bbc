import { readFileSync, statfsSync } from 'node:fs'
import {
  type MemoryLevel,
  memoryHeadroomBytes,
  nowMs as nowOfHostMs,
  SpillwayError,
  type SystemMemoryDirectories,
  SystemMemoryReader,
} from '@spillway/core'

export interface HeadroomOptions extends SystemMemoryDirectories {
  /** Names the backup in errors. */
  readonly backup: string
  /** Memory that is left to others at the machine and at each control group. @default 5 % of the limit there, 32 MiB at least */
  readonly keepFreeBytes?: number | undefined
  /** A directory of the file system that has to hold the bytes as well. */
  readonly directory?: string | undefined
  /** Tells the time. @default performance.now */
  readonly nowMs?: (() => number) | undefined
}

/** Reading takes a tenth of a millisecond; between two readings what was taken is subtracted. */
const readingLastsMs = 20

/** What the machine and the control groups said last, less what the backups of this process took since. */
class MemoryReading {
  readonly #reader: SystemMemoryReader
  readonly #nowMs: () => number
  #readAtMs = Number.NEGATIVE_INFINITY
  #levels: readonly MemoryLevel[] = []
  #takenBytes = 0

  constructor(directories: SystemMemoryDirectories, nowMs: () => number) {
    this.#reader = new SystemMemoryReader(textOf, directories)
    this.#nowMs = nowMs
  }

  /** Bytes that can be taken at every level when `keepFreeBytes` are left there; less than 0 when more than that is used. */
  roomBytes(keepFreeBytes: number | undefined): number {
    this.#refresh()
    let least = Number.POSITIVE_INFINITY
    for (const { limitBytes, availableBytes } of this.#levels) {
      least = Math.min(least, availableBytes - (keepFreeBytes ?? memoryHeadroomBytes(limitBytes)))
    }
    return least - this.#takenBytes
  }

  take(bytes: number): void {
    this.#takenBytes += bytes
  }

  #refresh(): void {
    const nowMs = this.#nowMs()
    if (nowMs - this.#readAtMs <= readingLastsMs) return
    this.#readAtMs = nowMs
    this.#levels = this.#reader.read().levels
    this.#takenBytes = 0
  }
}

/** All backups of this process take from the same memory, so they share what was read of it. */
let ownReading: MemoryReading | undefined

/**
 * How much memory a backup may still take: the least of the machine, every control group above this process and the file
 * system. The kernel does not refuse the last page of a group, it kills a process of it; so some is left to everybody else.
 */
export class Headroom {
  readonly #backup: string
  readonly #keepFreeBytes: number | undefined
  readonly #directory: string | undefined
  readonly #nowMs: () => number
  readonly #memory: MemoryReading
  #fileSystemReadAtMs = Number.NEGATIVE_INFINITY
  #fileSystemBytes = Number.POSITIVE_INFINITY

  constructor(options: HeadroomOptions) {
    const { procDirectory, cgroupDirectory, nowMs } = options
    this.#backup = options.backup
    this.#keepFreeBytes = options.keepFreeBytes
    this.#directory = options.directory
    this.#nowMs = nowMs ?? nowOfHostMs
    const isUsual = procDirectory === undefined && cgroupDirectory === undefined && nowMs === undefined
    if (isUsual) ownReading ??= new MemoryReading({}, this.#nowMs)
    this.#memory =
      isUsual && ownReading !== undefined
        ? ownReading
        : new MemoryReading({ procDirectory, cgroupDirectory }, this.#nowMs)
  }

  /** Bytes that could be taken now, read at most some milliseconds ago. */
  bytes(): number {
    return Math.max(0, Math.min(this.#memory.roomBytes(this.#keepFreeBytes), this.#directoryBytes()))
  }

  /** Counts `bytes` as taken; throws `ENOSPC` when there are not that many: better here than by the OOM killer. */
  take(bytes: number): void {
    const left = this.bytes()
    if (bytes > left) {
      const message = `the system has ${left} bytes of memory left beyond keepFreeBytes, ${bytes} are needed`
      throw new SpillwayError('ENOSPC', message, { backup: this.#backup })
    }
    this.#memory.take(bytes)
    this.#fileSystemBytes -= bytes
  }

  #directoryBytes(): number {
    if (this.#directory === undefined) return Number.POSITIVE_INFINITY
    const nowMs = this.#nowMs()
    if (nowMs - this.#fileSystemReadAtMs > readingLastsMs) {
      this.#fileSystemReadAtMs = nowMs
      this.#fileSystemBytes = fileSystemBytes(this.#directory)
    }
    return this.#fileSystemBytes
  }
}

function fileSystemBytes(directory: string): number {
  const { bsize, bavail, blocks } = statfsSync(directory)
  // A tmpfs without a size tells of no blocks at all.
  return blocks === 0 ? Number.POSITIVE_INFINITY : bsize * bavail
}

/** The text of a file that may be missing, or be another system's: then the rule that needs it does not apply. */
function textOf(path: string): string | undefined {
  try {
    return readFileSync(path, 'latin1')
  } catch {
    return undefined
  }
}
