import { readFileSync } from 'node:fs'
import { memoryHeadroomBytes, nowMs, SystemMemoryReader } from '@spillway/core'

const sampleLifetimeMs = 50
/** Memory is shared with everything that the process does: it is looked at often. */
const sampleLifetimeBytes = 16 * 1024 * 1024

/**
 * Memory that files of this process may still take in file systems that lie in memory: what the machine and the control groups have, less
 * head-room. There, the last page is not refused, it ends the process.
 */
export class MemoryRoom {
  readonly #reader = new SystemMemoryReader(textOf)
  #roomBytes = 0
  #sampledAtMs = Number.NEGATIVE_INFINITY
  #underWayBytes = 0
  #takenBytes = 0

  /** Bytes that may be taken, 0 or more. */
  get leftBytes(): number {
    const isStale = nowMs() - this.#sampledAtMs > sampleLifetimeMs || this.#takenBytes > sampleLifetimeBytes
    if (isStale) {
      const { limitBytes, availableBytes } = this.#reader.read()
      this.#roomBytes = availableBytes - memoryHeadroomBytes(limitBytes)
      this.#sampledAtMs = nowMs()
      this.#takenBytes = 0
    }
    return Math.max(0, this.#roomBytes - this.#takenBytes - this.#underWayBytes)
  }

  grant(bytes: number): void {
    this.#underWayBytes += bytes
  }

  settle(grantedBytes: number, takenBytes: number): void {
    this.#underWayBytes -= grantedBytes
    this.#takenBytes += takenBytes
  }

  forget(): void {
    this.#sampledAtMs = Number.NEGATIVE_INFINITY
  }
}

let shared: MemoryRoom | undefined

/** The one of this process: all its backups take from the same memory. */
export function sharedMemoryRoom(): MemoryRoom {
  shared ??= new MemoryRoom()
  return shared
}

function textOf(path: string): string | undefined {
  try {
    return readFileSync(path, 'latin1')
  } catch {
    return undefined
  }
}
