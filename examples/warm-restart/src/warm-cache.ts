import { openFileBackup } from '@spillway/backup-file'
import type { Backup } from '@spillway/core'
import { type PagedBuffer, Pool } from '@spillway/pool'

export interface WarmCacheOptions {
  /** The file that the blobs are in. */
  readonly path: string
  /** Memory for them. */
  readonly limitBytes: number
  /** Of all blobs together: the ones that were asked for least recently go first. */
  readonly capacityBytes: number
}

interface Blob {
  readonly buffer: PagedBuffer
  /** Who needs it; the cache itself is one of them. */
  users: number
}

/** Blobs by name in a file that stays. What was put is there in the next process, whole, however this one ends. */
export class WarmCache implements AsyncDisposable {
  readonly #backup: Backup
  readonly #pool: Pool
  readonly #capacityBytes: number
  /** The least recently used first. */
  readonly #blobs = new Map<string, Blob>()
  #usedBytes = 0

  private constructor(backup: Backup, pool: Pool, capacityBytes: number) {
    this.#backup = backup
    this.#pool = pool
    this.#capacityBytes = capacityBytes
  }

  /** Waits up to a minute for the process before this one to end: the next may be started early. */
  static async open({ path, limitBytes, capacityBytes }: WarmCacheOptions): Promise<WarmCache> {
    // A blob that is replaced is there twice until the new content is saved.
    const space = { persistent: true, capacityBytes: 2 * capacityBytes }
    const backup = await openFileBackup({ path, ...space, ownerWaitMs: 60_000 })
    const cache = new WarmCache(backup, new Pool({ limitBytes, backup }), capacityBytes)
    // Reads what describes each blob, and no page: those come when somebody asks for them.
    for (const name of await backup.images!.names()) cache.#add(name, await cache.#pool.load(name))
    return cache
  }

  get names(): string[] {
    return [...this.#blobs.keys()].sort()
  }

  /** Once it resolves no crash takes the blob away. What had the name before stays until then. */
  async put(name: string, sizeBytes: number, content: AsyncIterable<Uint8Array>): Promise<void> {
    if (sizeBytes > this.#capacityBytes) throw new RangeError(`${sizeBytes} bytes are more than fit`)
    const buffer = await this.#pool.allocate(sizeBytes, { label: name })
    try {
      let offset = 0
      for await (const bytes of content) {
        await buffer.write(offset, bytes)
        offset += bytes.byteLength
      }
      for (const oldest of this.#blobs.keys()) {
        if (this.#usedBytes + sizeBytes > this.#capacityBytes) await this.delete(oldest)
      }
      await buffer.save(name, { replace: true })
    } catch (failure) {
      await buffer.free()
      throw failure
    }
    await this.#forget(name)
    this.#add(name, buffer)
  }

  /** Lends a blob to `work`: it stays until that is done, whatever becomes of the name. False when there is none. */
  async use(name: string, work: (buffer: PagedBuffer) => Promise<void>): Promise<boolean> {
    const blob = this.#blobs.get(name)
    if (blob === undefined) return false
    this.#blobs.delete(name)
    this.#blobs.set(name, blob)
    blob.users++
    try {
      await work(blob.buffer)
    } finally {
      await this.#giveBack(blob)
    }
    return true
  }

  async delete(name: string): Promise<void> {
    if (!this.#blobs.has(name)) return
    await this.#backup.images!.remove(name)
    await this.#forget(name)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#pool.close()
    await this.#backup.close()
  }

  #add(name: string, buffer: PagedBuffer): void {
    this.#blobs.set(name, { buffer, users: 1 })
    this.#usedBytes += buffer.sizeBytes
  }

  async #forget(name: string): Promise<void> {
    const blob = this.#blobs.get(name)
    if (blob === undefined) return
    this.#blobs.delete(name)
    this.#usedBytes -= blob.buffer.sizeBytes
    await this.#giveBack(blob)
  }

  async #giveBack(blob: Blob): Promise<void> {
    if (--blob.users === 0) await blob.buffer.free()
  }
}
