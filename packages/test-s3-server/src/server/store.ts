import type { Lease } from './body-memory.ts'
import { noSuchBucket, noSuchKey, preconditionFailed, S3Error } from './errors.ts'

export interface StoredObject {
  readonly bytes: Buffer
  /** Where `bytes` lie. The store is one of its users. */
  readonly memory: Lease
  readonly etag: string
  readonly lastModifiedMs: number
  /** CRC32 of the content in base64; undefined when the server keeps none. */
  readonly checksum: string | undefined
  /** Headers of the upload that come back with the object: content type, metadata, storage class, encryption. */
  readonly headers: Readonly<Record<string, string>>
}

export interface Preconditions {
  readonly ifMatch?: string | undefined
  readonly ifNoneMatch?: string | undefined
}

function sameETag(wanted: string, etag: string, bareOnly: boolean): boolean {
  if (wanted === '*') return true
  return wanted === etag || (!bareOnly && wanted === `"${etag}"`)
}

/** Whether any of a header's ETags is `etag`. */
export function matchesETag(header: string, etag: string, bareOnly: boolean): boolean {
  return header.split(',').some((wanted) => sameETag(wanted.trim(), etag, bareOnly))
}

/** Keys in the order of S3: by their UTF-8 bytes. */
function sortKeys(keys: string[]): string[] {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: all of ASCII is meant
  if (keys.every((key) => /^[\x00-\x7f]*$/.test(key))) return keys.sort()
  return keys
    .map((key) => ({ key, bytes: Buffer.from(key) }))
    .sort((a, b) => Buffer.compare(a.bytes, b.bytes))
    .map((entry) => entry.key)
}

class Bucket {
  readonly objects = new Map<string, StoredObject>()
  #sorted: string[] | undefined

  sortedKeys(): readonly string[] {
    this.#sorted ??= sortKeys([...this.objects.keys()])
    return this.#sorted
  }

  /** To be called whenever a key came or went. */
  keysChanged(): void {
    this.#sorted = undefined
  }
}

/**
 * Buckets and objects in memory. Every method is synchronous, so a precondition is checked in the same tick as the write
 * that depends on it, and of any number of racing requests exactly one wins.
 */
export class Store {
  readonly #buckets = new Map<string, Bucket>()
  #storedObjects = 0
  #storedBytes = 0
  quotaBytes: number

  constructor(buckets: readonly string[], quotaBytes: number) {
    for (const name of buckets) this.#buckets.set(name, new Bucket())
    this.quotaBytes = quotaBytes
  }

  get storedObjects(): number {
    return this.#storedObjects
  }

  get storedBytes(): number {
    return this.#storedBytes
  }

  bucketNames(): string[] {
    return sortKeys([...this.#buckets.keys()])
  }

  createBucket(name: string): void {
    if (this.#buckets.has(name))
      throw new S3Error(
        409,
        'BucketAlreadyOwnedByYou',
        'Your previous request to create the named bucket succeeded and you already own it.',
      )
    if (!/^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$/.test(name))
      throw new S3Error(400, 'InvalidBucketName', 'The specified bucket is not valid.')
    this.#buckets.set(name, new Bucket())
  }

  deleteBucket(name: string): void {
    if (this.bucket(name).objects.size > 0)
      throw new S3Error(409, 'BucketNotEmpty', 'The bucket you tried to delete is not empty.')
    this.#buckets.delete(name)
  }

  bucket(name: string): Bucket {
    const bucket = this.#buckets.get(name)
    if (bucket === undefined) throw noSuchBucket()
    return bucket
  }

  get(bucketName: string, key: string): StoredObject {
    const object = this.bucket(bucketName).objects.get(key)
    if (object === undefined) throw noSuchKey()
    return object
  }

  /** Throws what a write under these preconditions would be refused with now. */
  checkPut(bucketName: string, key: string, conditions: Preconditions, bareOnly: boolean): void {
    const existing = this.bucket(bucketName).objects.get(key)
    if (conditions.ifNoneMatch !== undefined) {
      if (conditions.ifNoneMatch !== '*')
        throw new S3Error(501, 'NotImplemented', 'If-None-Match of a write takes * only.')
      if (existing !== undefined) throw preconditionFailed()
    }
    if (conditions.ifMatch !== undefined) {
      if (existing === undefined) throw noSuchKey()
      if (!matchesETag(conditions.ifMatch, existing.etag, bareOnly)) throw preconditionFailed()
    }
  }

  put(
    bucketName: string,
    key: string,
    object: StoredObject,
    conditions: Preconditions,
    bareOnly: boolean,
  ): void {
    this.checkPut(bucketName, key, conditions, bareOnly)
    const bucket = this.bucket(bucketName)
    const existing = bucket.objects.get(key)
    const storedBytes = this.#storedBytes + object.bytes.byteLength - (existing?.bytes.byteLength ?? 0)
    if (storedBytes > this.quotaBytes && storedBytes > this.#storedBytes)
      throw new S3Error(403, 'QuotaExceeded', 'The quota of this user is used up.')
    if (existing === undefined) {
      this.#storedObjects++
      bucket.keysChanged()
    }
    this.#storedBytes = storedBytes
    object.memory.retain()
    existing?.memory.release()
    bucket.objects.set(key, object)
  }

  /** Deletes a key; one that is not there is deleted already. */
  delete(bucketName: string, key: string, ifMatch?: string, bareOnly = false): void {
    const bucket = this.bucket(bucketName)
    const existing = bucket.objects.get(key)
    if (existing === undefined) {
      if (ifMatch !== undefined) throw noSuchKey()
      return
    }
    if (ifMatch !== undefined && !matchesETag(ifMatch, existing.etag, bareOnly)) throw preconditionFailed()
    bucket.objects.delete(key)
    existing.memory.release()
    bucket.keysChanged()
    this.#storedObjects--
    this.#storedBytes -= existing.bytes.byteLength
  }
}
