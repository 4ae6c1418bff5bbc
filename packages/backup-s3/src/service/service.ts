import { GetObjectCommand, HeadObjectCommand, ListObjectsV2Command } from '@aws-sdk/client-s3'
import { isSpillwayError, SpillwayError } from '@spillway/core'
import type { CostLedger } from '../cost/ledger.ts'
import type { UploadBody } from '../http/upload-body.ts'
import type { Settings } from '../options.ts'
import { ObjectDeleter } from './object-deleter.ts'
import { identityKey, ObjectWriter, type UploadOptions } from './object-writer.ts'
import { type RangeAttempt, type RangeEnd, type RangeRequest, RangeRequests } from './range-requests.ts'
import type { RequestScope } from './request-scope.ts'
import { type Attempt, RequestSender } from './request-sender.ts'
import { readBody } from './response-body.ts'
import { RetryPolicy } from './retry.ts'
import { ServiceClock } from './service-clock.ts'
import { isChecksumMismatch, unlessMissing } from './service-errors.ts'
import type { ObjectInfo, StoredObject } from './stored-object.ts'

/** The operations that the backup is made of, in its own terms. Single requests: request-sender.ts. */

export type { ObjectInfo, StoredObject } from './stored-object.ts'

export class S3Service {
  readonly clock = new ServiceClock()
  readonly retry: RetryPolicy
  readonly #settings: Settings
  readonly #ledger: CostLedger
  readonly #requests: RequestSender
  readonly #deleter: ObjectDeleter
  readonly #writer: ObjectWriter
  readonly #bucketSettings: Record<string, unknown>
  readonly #readSettings: Record<string, unknown>
  readonly ranges: RangeRequests
  /** Whether the bucket keeps versions of what is deleted, which are paid for. */
  keepsVersions = false
  /** Whether the service tells when an object was written, and what time it is: dead owners are told by that. */
  tellsTimes = true

  constructor(settings: Settings, ledger: CostLedger) {
    this.#settings = settings
    this.#ledger = ledger
    this.retry = new RetryPolicy(settings)
    this.#requests = new RequestSender(settings, ledger, this.clock)
    this.#deleter = new ObjectDeleter(settings, this.#requests)
    this.#writer = new ObjectWriter(settings, this.#requests, this.retry, {
      find: (key, scope) => this.head(key, scope),
      remove: (key) => this.deleteOne(key),
      onVersion: () => this.#noticeVersions(),
    })
    const { SSECustomerAlgorithm, SSECustomerKey, SSECustomerKeyMD5, ExpectedBucketOwner, RequestPayer } =
      settings.objectSettings
    this.#bucketSettings = { Bucket: settings.bucket, ExpectedBucketOwner, RequestPayer }
    this.#readSettings = { ...this.#bucketSettings, SSECustomerAlgorithm, SSECustomerKey, SSECustomerKeyMD5 }
    this.ranges = new RangeRequests({
      settings,
      ledger,
      sender: this.#requests,
      clock: this.clock,
      readSettings: this.#readSettings,
    })
  }

  /** The least rate at which bodies have to come. */
  get limits(): { readonly minDownloadBytesPerSecond: number } {
    return this.#settings
  }

  /** Writes an object under a key that is used this once. See `ObjectWriter`. */
  upload(key: string, body: UploadBody | Uint8Array, options: UploadOptions): Promise<void> {
    return this.#writer.upload(key, body, options)
  }

  /** One PUT, without a second try. `EEXIST` when the key is taken. */
  put(key: string, body: Uint8Array, options: UploadOptions): Promise<void> {
    return this.#writer.put(key, body, options)
  }

  /** Overwrites a small object: the lease. */
  overwrite(key: string, body: Uint8Array, scope: RequestScope): Promise<void> {
    return this.#writer.overwrite(key, body, scope)
  }

  /** Whether an upload is best given in the pieces that it consists of, and not as one. */
  get sendsPieces(): boolean {
    return this.#writer.sendsPieces
  }

  /** A small object; undefined when it is not there. */
  async read(
    key: string,
    scope: RequestScope & { offset?: number; bytes?: number } = {},
  ): Promise<{ body: Buffer; lastModified: number | undefined } | undefined> {
    const { offset = 0, bytes } = scope
    let misanswers = 0
    return unlessMissing(
      this.retry.run(scope, async () => {
        const answer = await this.#requests.send(
          'get',
          new GetObjectCommand({
            ...this.#readSettings,
            Bucket: this.#settings.bucket,
            Key: key,
            ...(bytes === undefined ? {} : { Range: `bytes=${offset}-${offset + bytes - 1}` }),
          }),
          attemptOf(`reading ${key}`, scope),
        )
        const chunks: Uint8Array[] = []
        await readBody(answer.Body, {
          ...this.ranges.bodyLimits,
          signal: scope.signal ?? new AbortController().signal,
          onChunk: (chunk) => chunks.push(chunk),
        }).catch((error: Error) => {
          if (!isChecksumMismatch(error.cause)) throw error
          const text = `reading ${key}: it does not match the checksum that the service keeps of it`
          throw new SpillwayError('EBADMSG', text, { cause: error.cause, retryable: ++misanswers <= 3 })
        })
        const body = Buffer.concat(chunks)
        this.#ledger.received('get', body.length)
        const isShort = answer.ContentLength !== undefined && answer.ContentLength !== body.length
        if (isShort || (bytes !== undefined && bytes !== body.length)) {
          throw new SpillwayError('EIO', `reading ${key}: the answer has not the length it should have`, {
            retryable: ++misanswers <= 3,
          })
        }
        return { body, lastModified: answer.LastModified?.getTime() }
      }),
    )
  }

  /** What is known of an object; undefined when it is not there. */
  head(key: string, scope: RequestScope = {}): Promise<ObjectInfo | undefined> {
    return unlessMissing(
      this.retry.run(scope, async () => {
        const answer = await this.#requests.send(
          'head',
          new HeadObjectCommand({ ...this.#readSettings, Bucket: this.#settings.bucket, Key: key }),
          attemptOf(`looking for ${key}`, scope),
        )
        return {
          bytes: answer.ContentLength ?? 0,
          lastModified: answer.LastModified?.getTime(),
          etag: answer.ETag,
          identity: answer.Metadata?.[identityKey],
        }
      }),
    )
  }

  /** Starts a ranged GET into a sink, without a second try; `end` is told once, perhaps at once. */
  startRange(request: RangeRequest, end: RangeEnd): RangeAttempt {
    return this.ranges.start(request, end)
  }

  /**
   * Objects under a prefix. Throws `EIO` when the listing is cut and the service does not say how it goes on: what
   * is missing there is not gone.
   */
  async *list(prefix: string, scope: RequestScope = {}): AsyncGenerator<StoredObject> {
    // Directory buckets list whole folders only.
    const folder = isDirectoryBucket(this.#settings.bucket)
      ? prefix.slice(0, prefix.lastIndexOf('/') + 1)
      : prefix
    let token: string | undefined
    do {
      const input = {
        ...this.#bucketSettings,
        Bucket: this.#settings.bucket,
        Prefix: folder,
        ContinuationToken: token,
      }
      const attempt = attemptOf(`listing ${prefix}`, { ...scope, free: true })
      const answer = await this.retry.run(scope, () =>
        this.#requests.send('list', new ListObjectsV2Command(input), attempt),
      )
      for (const { Key, Size, LastModified } of answer.Contents ?? []) {
        if (Key?.startsWith(prefix))
          yield { key: Key, bytes: Size ?? 0, lastModified: LastModified?.getTime() }
      }
      const next = answer.NextContinuationToken || undefined
      if (next === token && next !== undefined) throw this.#cutListing(prefix, 'it goes in a circle')
      if (next === undefined && answer.IsTruncated) throw this.#cutListing(prefix, 'it names no next part')
      token = answer.IsTruncated === false ? undefined : next
    } while (token !== undefined)
  }

  #cutListing(prefix: string, why: string): SpillwayError {
    const text = `listing ${prefix}: the service gave only a part of it, and ${why}; does it know version 2 of listings?`
    return new SpillwayError('EIO', text, { backup: this.#settings.name })
  }

  #noticeVersions(): void {
    if (this.keepsVersions) return
    this.keepsVersions = true
    const { bucket, name } = this.#settings
    const text =
      `backup ${name}: the bucket ${bucket} keeps versions: what is deleted stays there and is paid for, until a ` +
      'lifecycle rule of the bucket removes versions that are not current'
    process.emitWarning(text, { type: 'SpillwayWarning', code: 'SPILLWAY_S3_VERSIONS' })
  }

  /** Looks at the times of an answer, as `open` gets them for what it wrote itself. */
  noticeTimes(lastModified: number | undefined): void {
    if (!this.tellsTimes || (lastModified !== undefined && this.clock.latestMs !== undefined)) return
    this.tellsTimes = false
    const text =
      `backup ${this.#settings.name}: the service does not tell when an object was written (Last-Modified, Date): what ` +
      'dead owners leave is not swept, and a persistent store waits for more than a lease of silence'
    process.emitWarning(text, { type: 'SpillwayWarning', code: 'SPILLWAY_S3_NO_TIMES' })
  }

  /** Deletes up to 1,000 objects; returns what the service would not delete, by key. */
  deleteMany(keys: readonly string[], scope: RequestScope = {}): Promise<Map<string, Error>> {
    return this.#deleter.deleteMany(keys, scope)
  }

  /**
   * Finds out how objects can be deleted, many and one, and whether they may. A service that only asks to slow down
   * has not refused: what is deleted then is deleted later.
   */
  async probeDeleting(key: string, signal?: AbortSignal): Promise<void> {
    const attempt = async () => {
      const failed = await this.#deleter.deleteMany([key], { signal })
      for (const error of failed.values()) throw error
      await this.#deleter.deleteOne(key, { signal })
    }
    try {
      await this.retry.run({ signal }, attempt)
    } catch (error) {
      if (!isSpillwayError(error) || error.code !== 'EAGAIN') throw error
    }
  }

  /** One DeleteObject; no error when the object is not there. */
  deleteOne(key: string, scope: RequestScope = {}): Promise<void> {
    return this.#deleter.deleteOne(key, scope)
  }
}

/** Directory buckets of S3 Express are told by their names. */
function isDirectoryBucket(bucket: string): boolean {
  return bucket.endsWith('--x-s3')
}

function attemptOf(what: string, { signal, free, urgent, onDate }: RequestScope): Attempt {
  return { what, signal, free: free || urgent || false, onDate }
}
