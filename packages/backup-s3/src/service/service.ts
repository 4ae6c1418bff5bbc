import { GetObjectCommand, HeadObjectCommand, ListObjectsV2Command } from '@aws-sdk/client-s3'
import { SpillwayError } from '@spillway/core'
import type { CostLedger } from '../cost/ledger.ts'
import type { ResponseSink } from '../http/response-sink.ts'
import type { UploadBody } from '../http/upload-body.ts'
import type { Settings } from '../options.ts'
import { ObjectDeleter } from './object-deleter.ts'
import { identityKey, ObjectWriter, type UploadOptions } from './object-writer.ts'
import { type Attempt, RequestSender } from './request-sender.ts'
import { discardBody, readBody } from './response-body.ts'
import { RetryPolicy, type RetryScope } from './retry.ts'
import { isChecksumMismatch, statusOf, unlessMissing } from './service-errors.ts'

/** The operations that the backup is made of, in its own terms. Single requests: request-sender.ts. */

export interface StoredObject {
  readonly key: string
  readonly bytes: number
  /** By the service's clock, in milliseconds. */
  readonly lastModified: number
}

export interface ObjectInfo {
  readonly bytes: number
  readonly lastModified: number
  readonly etag: string | undefined
  readonly identity: string | undefined
}

export interface RangeRequest {
  readonly key: string
  readonly offset: number
  readonly bytes: number
  /** Fail with 412 unless the object is still this one. */
  readonly etag: string | undefined
  readonly sink: ResponseSink
  readonly signal: AbortSignal
}

export class S3Service {
  readonly retry: RetryPolicy
  readonly #settings: Settings
  readonly #ledger: CostLedger
  readonly #requests: RequestSender
  readonly #deleter: ObjectDeleter
  readonly #writer: ObjectWriter
  readonly #readSettings: Record<string, unknown>
  #bareEtags = false

  constructor(settings: Settings, ledger: CostLedger) {
    this.#settings = settings
    this.#ledger = ledger
    this.retry = new RetryPolicy(settings)
    this.#requests = new RequestSender(settings, ledger)
    this.#deleter = new ObjectDeleter(settings, this.#requests)
    const find = (key: string, scope: RetryScope & { free?: boolean | undefined }) => this.head(key, scope)
    this.#writer = new ObjectWriter(settings, this.#requests, this.retry, find)
    const { SSECustomerAlgorithm, SSECustomerKey, SSECustomerKeyMD5, ExpectedBucketOwner, RequestPayer } =
      settings.objectSettings
    this.#readSettings = {
      SSECustomerAlgorithm,
      SSECustomerKey,
      SSECustomerKeyMD5,
      ExpectedBucketOwner,
      RequestPayer,
    }
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
  overwrite(key: string, body: Uint8Array, scope: RetryScope): Promise<void> {
    return this.#writer.overwrite(key, body, scope)
  }

  /** Whether an upload is best given in the pieces that it consists of, and not as one. */
  get sendsPieces(): boolean {
    return this.#writer.sendsPieces
  }

  /** A small object; undefined when it is not there. */
  async read(
    key: string,
    scope: RetryScope & { free?: boolean | undefined; offset?: number; bytes?: number } = {},
  ): Promise<{ body: Buffer; lastModified: number } | undefined> {
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
          { what: `reading ${key}`, signal: scope.signal, free: scope.free ?? false },
        )
        const chunks: Uint8Array[] = []
        await readBody(answer.Body, {
          silenceMs: this.#settings.bodyTimeoutMs,
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
        return { body, lastModified: answer.LastModified?.getTime() ?? 0 }
      }),
    )
  }

  /** What is known of an object; undefined when it is not there. */
  head(
    key: string,
    scope: RetryScope & { free?: boolean | undefined } = {},
  ): Promise<ObjectInfo | undefined> {
    return unlessMissing(
      this.retry.run(scope, async () => {
        const answer = await this.#requests.send(
          'head',
          new HeadObjectCommand({ ...this.#readSettings, Bucket: this.#settings.bucket, Key: key }),
          { what: `looking for ${key}`, signal: scope.signal, free: scope.free ?? false },
        )
        return {
          bytes: answer.ContentLength ?? 0,
          lastModified: answer.LastModified?.getTime() ?? 0,
          etag: answer.ETag,
          identity: answer.Metadata?.[identityKey],
        }
      }),
    )
  }

  /** One ranged GET into a sink, without a second try. */
  async readRange(request: RangeRequest): Promise<void> {
    const { key, offset, bytes, sink, signal } = request
    const etag = this.#bareEtags ? request.etag?.replaceAll('"', '') : request.etag
    const command = new GetObjectCommand({
      ...this.#readSettings,
      Bucket: this.#settings.bucket,
      Key: key,
      Range: `bytes=${offset}-${offset + bytes - 1}`,
      ...(etag === undefined ? {} : { IfMatch: etag }),
    })
    const attempt: Attempt = { what: `reading ${key}`, signal, sink, bytesExpected: bytes }
    const answer = await this.#requests.send('get', command, attempt).catch((error: Error) => {
      // Ceph compares an ETag with its quotes, and then nothing ever matches.
      if (etag?.includes('"') && statusOf(error.cause ?? {}) === 412) this.#bareEtags = true
      throw error
    })
    if (sink.isComplete) return discardBody(answer.Body)
    let wanted = false
    try {
      wanted = sink.begin({
        status: answer.$metadata.httpStatusCode ?? 0,
        contentRange: answer.ContentRange,
        contentLength: answer.ContentLength,
        etag: answer.ETag,
      })
    } finally {
      if (!wanted) discardBody(answer.Body)
    }
    if (!wanted) throw new SpillwayError('EINTR', 'another request for the same bytes was faster')
    await readBody(answer.Body, {
      silenceMs: this.#settings.bodyTimeoutMs,
      signal,
      onChunk: (chunk) => sink.write(chunk),
    })
    if (!sink.isComplete) {
      throw new SpillwayError('EIO', `reading ${key}: the answer was short`, { retryable: true })
    }
  }

  /** Objects under a prefix. */
  async *list(prefix: string, scope: RetryScope = {}): AsyncGenerator<StoredObject> {
    let token: string | undefined
    do {
      const answer = await this.retry.run(scope, () =>
        this.#requests.send(
          'list',
          new ListObjectsV2Command({
            Bucket: this.#settings.bucket,
            Prefix: prefix,
            ContinuationToken: token,
          }),
          { what: `listing ${prefix}`, signal: scope.signal, free: true },
        ),
      )
      for (const { Key, Size, LastModified } of answer.Contents ?? []) {
        if (Key !== undefined)
          yield { key: Key, bytes: Size ?? 0, lastModified: LastModified?.getTime() ?? 0 }
      }
      token = answer.NextContinuationToken
    } while (token !== undefined)
  }

  /** Deletes up to 1,000 objects; returns what the service would not delete, by key. */
  deleteMany(keys: readonly string[], signal?: AbortSignal): Promise<Map<string, Error>> {
    return this.#deleter.deleteMany(keys, signal)
  }

  /** One DeleteObject; no error when the object is not there. */
  deleteOne(key: string, signal?: AbortSignal): Promise<void> {
    return this.#deleter.deleteOne(key, signal)
  }
}
