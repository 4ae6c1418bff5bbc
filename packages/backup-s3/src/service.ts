import {
  GetObjectCommand,
  HeadObjectCommand,
  ListObjectsV2Command,
  PutObjectCommand,
  type S3ClientResolvedConfig,
} from '@aws-sdk/client-s3'
import { isSpillwayError, SpillwayError } from '@spillway/core'
import { checksumHeader } from './checksum.ts'
import type { CostLedger } from './ledger.ts'
import { ObjectDeleter } from './object-deleter.ts'
import type { Settings } from './options.ts'
import { type Attempt, RequestSender } from './request-sender.ts'
import { discardBody, readBody } from './response-body.ts'
import type { ResponseSink } from './response-sink.ts'
import { RetryPolicy, type RetryScope } from './retry.ts'
import { mayHaveHappened, statusOf, unlessMissing } from './service-errors.ts'

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

export interface UploadOptions extends RetryScope {
  /** Tells this upload from every other; kept with the object. */
  readonly identity: string
  /** CRC-32 of the body. */
  readonly checksum?: number | undefined
  /** SHA-256 of the body in hex. */
  readonly sha256?: string | undefined
  /** Not held back by the budget. */
  readonly free?: boolean
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

const identityKey = 'spillway'

export class S3Service {
  readonly retry: RetryPolicy
  readonly #settings: Settings
  readonly #ledger: CostLedger
  readonly #requests: RequestSender
  readonly #deleter: ObjectDeleter
  readonly #readSettings: Record<string, unknown>
  #sendsChecksums: boolean | undefined
  #bareEtags = false

  constructor(settings: Settings, ledger: CostLedger) {
    this.#settings = settings
    this.#ledger = ledger
    this.retry = new RetryPolicy(settings)
    this.#requests = new RequestSender(settings, ledger)
    this.#deleter = new ObjectDeleter(settings, this.#requests)
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

  /**
   * Writes an object under a key that is used this once. An upload whose answer was lost is recognised by its key and
   * identity and not sent again.
   */
  async upload(key: string, body: Uint8Array, options: UploadOptions): Promise<void> {
    await this.retry.run(options, async () => {
      try {
        await this.put(key, body, options)
      } catch (error) {
        const exists = isSpillwayError(error) && error.code === 'EEXIST'
        if (!exists && (options.retryMayFail || !mayHaveHappened(error))) throw error
        // The object may be there: this request or an earlier one got through, and only the answer did not.
        if (options.signal?.aborted) throw error
        const once = { signal: options.signal, free: options.free, retryMayFail: true }
        const found = await this.head(key, once).catch(() => undefined)
        if (found?.identity === options.identity && found.bytes === body.byteLength) return
        throw exists && found !== undefined ? this.#foreign(key) : exists ? this.#vanished(error) : error
      }
    })
  }

  /** One PUT, without a second try. `EEXIST` when the key is taken. */
  async put(key: string, body: Uint8Array, options: UploadOptions): Promise<void> {
    const { objectSettings, conditionalWrites, firstByteTimeoutMs, minUploadBytesPerSecond } = this.#settings
    const checksum = (await this.#mayChecksum()) ? options.checksum : undefined
    const command = new PutObjectCommand({
      ...objectSettings,
      Bucket: this.#settings.bucket,
      Key: key,
      Body: body,
      ContentLength: body.byteLength,
      Metadata: { [identityKey]: options.identity },
      ...(conditionalWrites ? { IfNoneMatch: '*' } : {}),
      ...(checksum === undefined ? {} : { ChecksumCRC32: checksumHeader(checksum) }),
    })
    const unsigned = this.#settings.payloadSigning === 'unsigned'
    const answer = await this.#requests.send('put', command, {
      what: `writing ${key}`,
      signal: options.signal,
      bytesSent: body.byteLength,
      timeoutMs: firstByteTimeoutMs + (body.byteLength / minUploadBytesPerSecond) * 1000,
      free: options.free ?? false,
      sha256: unsigned ? 'UNSIGNED-PAYLOAD' : options.sha256,
    })
    if (answer.ETag === undefined) throw this.#notS3('a PUT was answered without an ETag')
  }

  /** Overwrites a small object: the lease. */
  async overwrite(key: string, body: Uint8Array, scope: RetryScope): Promise<void> {
    await this.retry.run(scope, () =>
      this.#requests.send(
        'put',
        new PutObjectCommand({
          ...this.#settings.objectSettings,
          Bucket: this.#settings.bucket,
          Key: key,
          Body: body,
          ContentLength: body.byteLength,
        }),
        { what: `writing ${key}`, signal: scope.signal, free: true, bytesSent: body.byteLength },
      ),
    )
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

  async #mayChecksum(): Promise<boolean> {
    if (this.#sendsChecksums === undefined) {
      const { client, objectSettings } = this.#settings
      const config = client.config as Partial<S3ClientResolvedConfig> | undefined
      const setting = await config?.requestChecksumCalculation?.()
      this.#sendsChecksums = setting !== 'WHEN_REQUIRED' && objectSettings.ChecksumAlgorithm === undefined
    }
    return this.#sendsChecksums
  }

  #notS3(why: string): SpillwayError {
    const text = `the endpoint does not answer like S3: ${why}`
    return new SpillwayError('EINVAL', text, { backup: this.#settings.name })
  }

  #foreign(key: string): SpillwayError {
    const text = `${key} was written by someone else; no key is used twice`
    return new SpillwayError('EEXIST', text, { backup: this.#settings.name })
  }

  #vanished(cause: unknown): SpillwayError {
    const text = 'the service says that the object exists, and then that it does not'
    return new SpillwayError('EIO', text, { backup: this.#settings.name, cause, retryable: true })
  }
}
