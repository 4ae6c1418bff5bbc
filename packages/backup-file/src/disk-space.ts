import { nowMs } from '@spillway/core'
import type { Files } from './file-system.ts'

const sampleLifetimeMs = 50
const sampleLifetimeBytes = 64 * 1024 * 1024

/**
 * How much of the file system may still be used. `statfs` is asked again after 50 ms or 64 MiB of new blocks, whichever
 * comes first; in between, what was granted is subtracted, so that callers at the same time do not spend it twice.
 */
export class DiskSpace {
  readonly #files: Files
  readonly #path: string | undefined
  readonly #keepFreeBytes: number
  #freeBytes = Number.POSITIVE_INFINITY
  #sampledAtMs = Number.NEGATIVE_INFINITY
  /** Granted and perhaps not yet taken from the file system. */
  #underWayBytes = 0
  /** Taken since the last sample. */
  #takenBytes = 0
  #sampling: Promise<void> | undefined

  private constructor(files: Files, path: string | undefined, keepFreeBytes: number) {
    this.#files = files
    this.#path = path
    this.#keepFreeBytes = keepFreeBytes
  }

  /** `path` lies on the file system; without one, space is not watched. Returns its size too. */
  static async open(
    files: Files,
    path: string | undefined,
    keepFreeBytes: number | undefined,
  ): Promise<{ space: DiskSpace; sizeBytes: number; keepFreeBytes: number }> {
    let sizeBytes = Number.POSITIVE_INFINITY
    let keep = keepFreeBytes ?? 0
    if (path !== undefined) {
      const status = await files.statfs(path)
      sizeBytes = status.blocks * status.bsize
      keep = keepFreeBytes ?? Math.floor(sizeBytes * 0.05)
    }
    return { space: new DiskSpace(files, path, keep), sizeBytes, keepFreeBytes: keep }
  }

  /** Bytes that may still be taken, 0 or more. */
  async freeBytes(): Promise<number> {
    await this.#refresh()
    return this.#left()
  }

  /** Grants up to `bytes`, in whole units; tell `settle` when they have been written or given up. */
  async grant(bytes: number, unitBytes: number): Promise<number> {
    await this.#refresh()
    // Nothing may come between looking and taking, or two callers would be granted the same bytes.
    const left = this.#left()
    const granted = left >= bytes ? bytes : Math.floor(left / unitBytes) * unitBytes
    this.#underWayBytes += granted
    return granted
  }

  #left(): number {
    return Math.max(0, this.#freeBytes - this.#takenBytes - this.#underWayBytes - this.#keepFreeBytes)
  }

  async #refresh(): Promise<void> {
    if (this.#path === undefined) return
    const stale = nowMs() - this.#sampledAtMs > sampleLifetimeMs || this.#takenBytes > sampleLifetimeBytes
    if (!stale) return
    this.#sampling ??= this.#sample(this.#path)
    await this.#sampling
  }

  settle(grantedBytes: number, takenBytes: number): void {
    this.#underWayBytes -= grantedBytes
    this.#takenBytes += takenBytes
  }

  /** What is known no longer holds: something was freed, or the file system was full before it should have been. */
  forget(): void {
    this.#sampledAtMs = Number.NEGATIVE_INFINITY
  }

  async #sample(path: string): Promise<void> {
    this.#takenBytes = 0
    const sampledAtMs = nowMs()
    try {
      const { bavail, bsize } = await this.#files.statfs(path)
      this.#freeBytes = bavail * bsize
    } catch {
      // The last figure has to do; a file system that is full says so itself.
    } finally {
      this.#sampledAtMs = sampledAtMs
      this.#sampling = undefined
    }
  }
}
