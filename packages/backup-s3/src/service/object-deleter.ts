import { DeleteObjectCommand, DeleteObjectsCommand } from '@aws-sdk/client-s3'
import { isSpillwayError } from '@spillway/core'
import type { Settings } from '../options.ts'
import type { RequestScope } from './request-scope.ts'
import type { RequestSender } from './request-sender.ts'
import { serviceError, serviceName, statusOf, unlessMissing } from './service-errors.ts'
import { forEachAtOnce } from './waiting.ts'

/** After so many failures in a row that should pass, single deletes are tried. */
const mostFailuresInARow = 3

/**
 * Deletes objects: many with one request where the service can do that, else one by one.
 *
 *   DeleteObjects ─┬─▶ done, or errors of single keys
 *                  └─ refused, in whatever words ─▶ DeleteObject for each key ─┬─ works for some ─▶ from now on one by one
 *                                                                              └─ fails ─▶ the errors of the keys
 */
export class ObjectDeleter {
  readonly #settings: Settings
  readonly #requests: RequestSender
  readonly #bucketSettings: Record<string, unknown>
  #deletesOneByOne = false
  #failuresInARow = 0

  constructor(settings: Settings, requests: RequestSender) {
    this.#settings = settings
    this.#requests = requests
    const { ExpectedBucketOwner, RequestPayer } = settings.objectSettings
    this.#bucketSettings = { Bucket: settings.bucket, ExpectedBucketOwner, RequestPayer }
  }

  /** Deletes up to 1,000 objects; returns what the service would not delete, by key. */
  async deleteMany(keys: readonly string[], scope: RequestScope): Promise<Map<string, Error>> {
    if (this.#deletesOneByOne) return this.#deleteOneByOne(keys, scope)
    let failed: Map<string, Error>
    let refusal: Error | undefined
    try {
      failed = await this.#deleteBatch(keys, scope)
      this.#failuresInARow = 0
    } catch (error) {
      if (!this.#isRefused(error)) throw error
      refusal = error as Error
      failed = new Map(keys.map((key) => [key, refusal!]))
    }
    const refused = keys.filter((key) => failed.has(key) && isFinal(failed.get(key)!))
    if (keys.length === 0 || (refusal === undefined && refused.length < keys.length)) return failed
    // The request as a whole, or each of its keys: perhaps the service has no such request. One key tells.
    const [first, ...others] = keys
    const single = await this.#deleteOneByOne([first], scope)
    if (single.size === 0) {
      this.#deletesOneByOne = true
      return this.#deleteOneByOne(others, scope)
    }
    if (refusal === undefined) return failed
    // Some refuse the whole for one key that may not go, which may be just this one: nothing else is to wait for it.
    const rest = isFinal(refusal) ? await this.#deleteOneByOne(others, scope) : undefined
    if (rest === undefined || rest.size === others.length) throw refusal
    this.#deletesOneByOne = true
    return new Map([...single, ...rest])
  }

  /** One DeleteObject; no error when the object is not there. */
  async deleteOne(key: string, { signal }: RequestScope): Promise<void> {
    const command = new DeleteObjectCommand({
      ...this.#bucketSettings,
      Bucket: this.#settings.bucket,
      Key: key,
    })
    await unlessMissing(
      this.#requests.send('delete', command, { what: `deleting ${key}`, signal, free: true }),
    )
  }

  async #deleteBatch(keys: readonly string[], { signal }: RequestScope): Promise<Map<string, Error>> {
    const command = new DeleteObjectsCommand({
      ...this.#bucketSettings,
      Bucket: this.#settings.bucket,
      Delete: { Objects: keys.map((Key) => ({ Key })), Quiet: true },
    })
    const what = `deleting ${keys.length} objects`
    const failed = new Map<string, Error>()
    const answer = await this.#requests.send('delete', command, { what, signal, free: true })
    for (const { Key, Code, Message } of answer.Errors ?? []) {
      if (Key === undefined || Code === 'NoSuchKey') continue
      const failure = Object.assign(new Error(Message ?? Code ?? ''), { name: Code ?? 'Error' })
      failed.set(Key, serviceError(failure, `deleting ${Key}`, this.#settings.name))
    }
    return failed
  }

  /** Whether a failure of the whole request may be about this kind of request only. */
  #isRefused(error: unknown): boolean {
    if (!isSpillwayError(error) || error.code === 'EINTR') return false
    if (serviceName(error.cause) === 'NoSuchBucket') return false
    if (!error.retryable) return true
    // Some answer with a 500 for ever.
    const status = statusOf(error.cause ?? {}) ?? 0
    return status >= 500 && status !== 503 && ++this.#failuresInARow >= mostFailuresInARow
  }

  async #deleteOneByOne(keys: readonly string[], scope: RequestScope): Promise<Map<string, Error>> {
    const failed = new Map<string, Error>()
    await forEachAtOnce(keys, { atOnce: 8 }, async (key) => {
      await this.deleteOne(key, scope).catch((error: Error) => void failed.set(key, error))
    })
    return failed
  }
}

/** Whether a key's error says that trying again will not help; of a code that nobody knows that is not known. */
function isFinal(error: Error): boolean {
  return !isSpillwayError(error) || !error.retryable
}
