import { PutObjectCommand, type S3ClientResolvedConfig } from '@aws-sdk/client-s3'
import { isSpillwayError, SpillwayError } from '@spillway/core'
import { pieceCarrier, takesPieces, UploadBody } from '../http/upload-body.ts'
import type { Settings } from '../options.ts'
import { checksumHeader } from '../segments/checksum.ts'
import type { RequestScope } from './request-scope.ts'
import type { Attempt, RequestSender } from './request-sender.ts'
import type { RetryPolicy } from './retry.ts'
import { isOverBudget, mayHaveHappened } from './service-errors.ts'
import type { ObjectInfo } from './stored-object.ts'

export interface UploadOptions extends RequestScope {
  /** Tells this upload from every other; kept with the object. */
  readonly identity: string
  /** CRC-32 of the body. */
  readonly checksum?: number | undefined
  /** SHA-256 of the body in hex. */
  readonly sha256?: string | undefined
  /** Whether it is left where nobody knows if it is there: others may go by it already. */
  readonly stays?: boolean | undefined
  /** Told when the service wrote the object, in milliseconds, also when that answer was lost. */
  readonly onDate?: ((serviceMs: number) => void) | undefined
}

/** What is said of services that do not honour `If-None-Match: *`. */
export const adviceWithoutConditionalWrites =
  'the service does not honour If-None-Match: *; conditionalWrites: false does without, for scratch stores'

/** The metadata that holds an upload's identity. */
export const identityKey = 'spillway'

/** What else a writer needs of the service. */
export interface WriterNeeds {
  find(key: string, scope: RequestScope): Promise<ObjectInfo | undefined>
  remove(key: string): Promise<void>
  /** An answer named a version: the bucket keeps what is deleted. */
  onVersion(): void
}

/**
 * Writes objects.
 *
 *   upload: PUT ─┬─▶ acknowledged
 *                ├─ refused, throttled ─▶ pause ─▶ PUT
 *                └─ answer lost, or key taken ─▶ HEAD ─┬─ ours ─▶ acknowledged
 *                                                      └─ not there ─▶ pause ─▶ PUT
 */
export class ObjectWriter {
  /** Whether the client's request handler sends bodies in pieces. Sums that the SDK is to compute need it whole. */
  readonly sendsPieces: boolean
  readonly #settings: Settings
  readonly #requests: RequestSender
  readonly #retry: RetryPolicy
  readonly #needs: WriterNeeds
  #sendsChecksums: boolean | undefined

  constructor(settings: Settings, requests: RequestSender, retry: RetryPolicy, needs: WriterNeeds) {
    this.#settings = settings
    this.#requests = requests
    this.#retry = retry
    this.#needs = needs
    const handler = settings.client.config?.requestHandler as { [takesPieces]?: boolean } | undefined
    this.sendsPieces =
      handler?.[takesPieces] === true && settings.objectSettings.ChecksumAlgorithm === undefined
  }

  /**
   * Writes an object under a key that is used this once. An upload whose answer was lost is recognised by its key and
   * identity and not sent again.
   *
   * `EDQUOT` for the budget has no cause when nothing was sent; else an attempt before it failed of the cause, and the
   * object may be there.
   */
  async upload(key: string, content: UploadBody | Uint8Array, options: UploadOptions): Promise<void> {
    const body = content instanceof UploadBody ? content : UploadBody.of(content)
    let earlier: unknown
    const put = async (signal: AbortSignal) => {
      try {
        await this.put(key, body, { ...options, signal })
      } catch (error) {
        if (earlier !== undefined && isOverBudget(error)) {
          const text = 'the budget was used up before the upload had succeeded; setBudget() raises it'
          const fields = { backup: this.#settings.name, cause: earlier, retryable: false }
          throw new SpillwayError('EDQUOT', text, fields)
        }
        earlier = error
        throw error
      }
    }
    await this.#retry.run(options, async () => {
      try {
        await body.attempt(options.signal, put)
      } catch (error) {
        const exists = isSpillwayError(error) && error.code === 'EEXIST'
        if (!exists && (options.retryMayFail || !mayHaveHappened(error))) throw error
        // The object may be there: this request or an earlier one got through, and only the answer did not.
        if (options.signal?.aborted) throw error
        // Free, or nobody would know what is there.
        const { signal, urgent } = options
        const once = { signal, urgent, free: true, retryMayFail: true }
        const found = await this.#needs.find(key, once).catch(() => undefined)
        if (found?.identity === options.identity && found.bytes === body.byteLength) {
          if (found.lastModified !== undefined) options.onDate?.(found.lastModified)
          return
        }
        throw exists && found !== undefined ? this.#foreign(key) : exists ? this.#vanished(error) : error
      }
    })
  }

  /** One PUT, without a second try. `EEXIST` when the key is taken. */
  async put(key: string, content: UploadBody | Uint8Array, options: UploadOptions): Promise<void> {
    const { objectSettings, conditionalWrites, firstByteTimeoutMs, minUploadBytesPerSecond } = this.#settings
    const { byteLength } = content
    const checksum = (await this.#mayChecksum()) ? options.checksum : undefined
    const isUnsigned = this.#settings.payloadSigning === 'unsigned'
    const sha256 = isUnsigned ? 'UNSIGNED-PAYLOAD' : options.sha256
    const command = new PutObjectCommand({
      ...objectSettings,
      Bucket: this.#settings.bucket,
      Key: key,
      Body: this.#bodyOf(content, sha256 !== undefined && options.checksum !== undefined),
      ContentLength: byteLength,
      Metadata: { [identityKey]: options.identity },
      ...(conditionalWrites ? { IfNoneMatch: '*' } : {}),
      ...(checksum === undefined ? {} : { ChecksumCRC32: checksumHeader(checksum) }),
    })
    const attempt: Attempt = {
      what: `writing ${key}`,
      signal: options.signal,
      bytesSent: byteLength,
      timeoutMs: firstByteTimeoutMs + (byteLength / minUploadBytesPerSecond) * 1000,
      free: options.free || options.urgent || false,
      onDate: options.onDate,
      sha256,
    }
    const answer = await this.#requests.send('put', command, attempt).catch((error: unknown) => {
      throw conditionalWrites ? this.#withAdvice(error) : error
    })
    if (answer.VersionId !== undefined && answer.VersionId !== 'null') this.#needs.onVersion()
    if (answer.ETag === undefined) {
      // It may be there all the same, and nobody else would look for it.
      if (!options.stays) await this.#needs.remove(key).catch(() => {})
      const text = 'the endpoint does not answer like S3: a PUT was answered without an ETag'
      throw new SpillwayError('EINVAL', text, { backup: this.#settings.name })
    }
  }

  /** Overwrites a small object: the lease. */
  async overwrite(key: string, body: Uint8Array, scope: RequestScope): Promise<void> {
    await this.#retry.run(scope, () =>
      this.#requests.send(
        'put',
        new PutObjectCommand({
          ...this.#settings.objectSettings,
          Bucket: this.#settings.bucket,
          Key: key,
          Body: body,
          ContentLength: body.byteLength,
        }),
        {
          what: `writing ${key}`,
          signal: scope.signal,
          onDate: scope.onDate,
          free: true,
          bytesSent: body.byteLength,
        },
      ),
    )
  }

  #bodyOf(content: UploadBody | Uint8Array, hasSums: boolean): Uint8Array {
    if (!(content instanceof UploadBody)) return content
    // What the SDK has to hash itself, or to compute a CRC-32 of, it has to see.
    if (this.sendsPieces && hasSums) return pieceCarrier(content.pieces)
    return content.pieces.length === 1 ? content.pieces[0] : Buffer.concat(content.pieces)
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

  /** What a service says that does not know conditional writes, with what to do about it. */
  #withAdvice(error: unknown): unknown {
    if (!isSpillwayError(error) || error.code !== 'ENOSYS') return error
    const text = `${adviceWithoutConditionalWrites} (${error.message})`
    return new SpillwayError('ENOSYS', text, { backup: this.#settings.name, cause: error.cause })
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
