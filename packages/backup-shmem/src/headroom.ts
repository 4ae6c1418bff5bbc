import { readFileSync, statfsSync } from 'node:fs'
import { join } from 'node:path'
import { nowMs, SpillwayError } from '@spillway/core'

/** Where the system tells about its memory. */
export interface SystemPaths {
  /** @default '/proc' */
  readonly procDirectory?: string | undefined
  /** @default '/sys/fs/cgroup' */
  readonly cgroupDirectory?: string | undefined
}

export interface HeadroomOptions extends SystemPaths {
  /** Names the backup in errors. */
  readonly backup: string
  /** A directory of the file system that has to hold the bytes as well. */
  readonly directory?: string | undefined
  /** Tells the time. @default performance.now */
  readonly nowMs?: (() => number) | undefined
}

/** Reading takes a tenth of a millisecond; between two readings what was taken is subtracted. */
const readingLastsMs = 20

/** Limits beyond this mean "none": version 1 writes the largest multiple of a page. */
const noLimitBytes = 2 ** 60

/** How much memory the system could still give: the least of free memory, every cgroup above us and the file system. */
export class Headroom {
  readonly #backup: string
  readonly #directory: string | undefined
  readonly #procDirectory: string
  readonly #cgroupDirectory: string
  readonly #nowMs: () => number
  #readAtMs = Number.NEGATIVE_INFINITY
  #bytes = 0

  constructor(options: HeadroomOptions) {
    this.#backup = options.backup
    this.#directory = options.directory
    this.#nowMs = options.nowMs ?? (() => nowMs())
    this.#procDirectory = options.procDirectory ?? '/proc'
    this.#cgroupDirectory = options.cgroupDirectory ?? '/sys/fs/cgroup'
  }

  /** Bytes that could be taken now, read at most some milliseconds ago. */
  bytes(): number {
    const nowMs = this.#nowMs()
    if (nowMs - this.#readAtMs > readingLastsMs) {
      this.#readAtMs = nowMs
      this.#bytes = Math.max(
        0,
        Math.min(
          availableMemoryBytes(this.#procDirectory),
          cgroupHeadroomBytes(this.#procDirectory, this.#cgroupDirectory),
          this.#directory === undefined ? Number.POSITIVE_INFINITY : fileSystemBytes(this.#directory),
        ),
      )
    }
    return this.#bytes
  }

  /** Counts `bytes` as taken; throws `ENOSPC` when there are not that many: better here than by the OOM killer. */
  take(bytes: number): void {
    const left = this.bytes()
    if (bytes > left) {
      throw new SpillwayError('ENOSPC', `the system has ${left} bytes of memory left, ${bytes} are needed`, {
        backup: this.#backup,
      })
    }
    this.#bytes -= bytes
  }
}

/** `MemAvailable`: what can be had without swapping. Infinite where the system does not tell. */
function availableMemoryBytes(procDirectory: string): number {
  const match = /^MemAvailable:\s+(\d+) kB$/m.exec(read(join(procDirectory, 'meminfo')))
  return match === null ? Number.POSITIVE_INFINITY : Number(match[1]) * 1024
}

/**
 * Head-room of the memory cgroup of this process and of every one above it, in version 2 (`0::/path`) and version 1
 * (`4:memory:/path`). In a container the path may lie outside of what is mounted; then the levels that are there count.
 */
function cgroupHeadroomBytes(procDirectory: string, cgroupDirectory: string): number {
  let least = Number.POSITIVE_INFINITY
  for (const line of read(join(procDirectory, 'self/cgroup')).split('\n')) {
    const [, controllers, path] = /^\d+:([^:]*):(\/.*)$/.exec(line) ?? []
    if (path === undefined) continue
    const isUnified = controllers === ''
    if (!isUnified && !controllers.split(',').includes('memory')) continue
    const root = isUnified ? cgroupDirectory : join(cgroupDirectory, 'memory')
    // `join` resolves "..": a path above the mount ends at its root.
    let level = join('/', path)
    for (;;) {
      least = Math.min(least, (isUnified ? unifiedLevelBytes : legacyLevelBytes)(join(root, level)))
      if (level === '/') break
      level = join(level, '..')
    }
  }
  return least
}

function unifiedLevelBytes(directory: string): number {
  const limit = Math.min(
    limitBytes(read(join(directory, 'memory.max'))),
    limitBytes(read(join(directory, 'memory.high'))),
  )
  if (limit === Number.POSITIVE_INFINITY) return limit
  const usage = Number(read(join(directory, 'memory.current')).trim())
  return limit - usage + fileCacheBytes(directory, 'inactive_file')
}

function legacyLevelBytes(directory: string): number {
  const limit = limitBytes(read(join(directory, 'memory.limit_in_bytes')))
  if (limit === Number.POSITIVE_INFINITY) return limit
  const usage = Number(read(join(directory, 'memory.usage_in_bytes')).trim())
  return limit - usage + fileCacheBytes(directory, 'total_inactive_file')
}

/** Cached files that nobody used lately: the kernel drops them before it refuses memory. */
function fileCacheBytes(directory: string, key: string): number {
  const match = new RegExp(`^${key} (\\d+)$`, 'm').exec(read(join(directory, 'memory.stat')))
  return match === null ? 0 : Number(match[1])
}

function limitBytes(text: string): number {
  const bytes = Number(text.trim() || 'none')
  return Number.isNaN(bytes) || bytes >= noLimitBytes ? Number.POSITIVE_INFINITY : bytes
}

function fileSystemBytes(directory: string): number {
  const { bsize, bavail, blocks } = statfsSync(directory)
  // A tmpfs without a size tells of no blocks at all.
  return blocks === 0 ? Number.POSITIVE_INFINITY : bsize * bavail
}

/** The text of a file that may be missing, or be another system's: then the rule that needs it does not apply. */
function read(path: string): string {
  try {
    return readFileSync(path, 'latin1')
  } catch {
    return ''
  }
}
