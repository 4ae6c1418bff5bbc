import { createHash } from 'node:crypto'
import type { PagedBuffer, Pool } from '@spillway/pool'

/** One blob: a paged buffer, which has memory only while it is used and nobody else needs it more. */
export interface Blob {
  readonly buffer: PagedBuffer
  readonly etag: string
  /** Who needs it; the cache itself is one of them. */
  users: number
}

/** Blobs by name, at most `capacityBytes` of them together: the ones that were asked for least recently go first. */
export class BlobCache {
  readonly pool: Pool
  readonly capacityBytes: number
  usedBytes = 0
  /** The least recently used first. */
  readonly blobs = new Map<string, Blob>()

  constructor(pool: Pool, capacityBytes: number) {
    this.pool = pool
    this.capacityBytes = capacityBytes
  }

  /** Stores a blob, and takes the memory of the pieces of its content. What had the name before stays until the new content is complete. */
  async put(name: string, sizeBytes: number, content: AsyncIterable<Uint8Array>): Promise<Blob> {
    const blob = { buffer: await this.pool.allocate(sizeBytes, { label: name }), etag: '', users: 1 }
    this.usedBytes += sizeBytes
    for (const oldest of this.blobs.keys()) {
      if (this.usedBytes > this.capacityBytes) await this.delete(oldest)
    }
    try {
      const hash = createHash('sha256')
      let offset = 0
      for await (const bytes of content) {
        hash.update(bytes)
        await blob.buffer.write(offset, bytes)
        offset += bytes.byteLength
        // Frees its memory now: until garbage is collected, pieces of 64 KiB add up to tens of mebibytes.
        if (bytes.byteLength === bytes.buffer.byteLength) (bytes.buffer as ArrayBuffer).transfer(0)
      }
      blob.etag = `"${hash.digest('base64url')}"`
      await this.delete(name)
      this.blobs.set(name, blob)
      return blob
    } catch (failure) {
      this.usedBytes -= sizeBytes
      await blob.buffer.free()
      throw failure
    }
  }

  /** Lends a blob: it stays until it was given back, even when it is deleted or replaced meanwhile. */
  borrow(name: string): Blob | undefined {
    const blob = this.blobs.get(name)
    if (blob === undefined) return undefined
    this.blobs.delete(name)
    this.blobs.set(name, blob)
    blob.users++
    return blob
  }

  async giveBack(blob: Blob): Promise<void> {
    if (--blob.users === 0) await blob.buffer.free()
  }

  async delete(name: string): Promise<void> {
    const blob = this.blobs.get(name)
    if (blob === undefined) return
    this.blobs.delete(name)
    this.usedBytes -= blob.buffer.sizeBytes
    await this.giveBack(blob)
  }
}
