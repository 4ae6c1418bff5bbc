import { DeleteObjectCommand, DeleteObjectsCommand } from '@aws-sdk/client-s3'
import type { Settings } from '../options.ts'
import type { RequestSender } from './request-sender.ts'
import { serviceError, serviceName, unlessMissing } from './service-errors.ts'
import { Semaphore } from './waiting.ts'

/** Answers to DeleteObjects of services that lack it, or that want a Content-MD5, which the SDK no longer sends. */
const unsupportedDeletes = new Set([
  'MissingContentMD5',
  'InvalidRequest',
  'InvalidDigest',
  'MalformedXML',
  'NotImplemented',
  'MethodNotAllowed',
  'BadRequest',
])

/** Deletes objects: many with one request where the service can do that, else one by one. */
export class ObjectDeleter {
  readonly #settings: Settings
  readonly #requests: RequestSender
  #deletesOneByOne = false

  constructor(settings: Settings, requests: RequestSender) {
    this.#settings = settings
    this.#requests = requests
  }

  /** Deletes up to 1,000 objects; returns what the service would not delete, by key. */
  async deleteMany(keys: readonly string[], signal?: AbortSignal): Promise<Map<string, Error>> {
    if (this.#deletesOneByOne) return this.#deleteOneByOne(keys, signal)
    const command = new DeleteObjectsCommand({
      Bucket: this.#settings.bucket,
      Delete: { Objects: keys.map((Key) => ({ Key })), Quiet: true },
    })
    const what = `deleting ${keys.length} objects`
    const failed = new Map<string, Error>()
    try {
      const answer = await this.#requests.send('delete', command, { what, signal, free: true })
      for (const { Key, Code, Message } of answer.Errors ?? []) {
        if (Key === undefined || Code === 'NoSuchKey') continue
        const failure = Object.assign(new Error(Message ?? Code ?? ''), { name: Code ?? 'Error' })
        failed.set(Key, serviceError(failure, `deleting ${Key}`, this.#settings.name))
      }
      return failed
    } catch (error) {
      const { cause } = error as Error
      const name = cause === undefined ? serviceName(error) : serviceName(cause)
      if (!unsupportedDeletes.has(name)) throw error
      this.#deletesOneByOne = true
      return this.#deleteOneByOne(keys, signal)
    }
  }

  async #deleteOneByOne(keys: readonly string[], signal?: AbortSignal): Promise<Map<string, Error>> {
    const failed = new Map<string, Error>()
    const slots = new Semaphore(8)
    const deleteKey = (key: string) =>
      slots.run(() => this.deleteOne(key, signal)).catch((error: Error) => void failed.set(key, error))
    await Promise.all(keys.map(deleteKey))
    return failed
  }

  /** One DeleteObject; no error when the object is not there. */
  async deleteOne(key: string, signal?: AbortSignal): Promise<void> {
    const command = new DeleteObjectCommand({ Bucket: this.#settings.bucket, Key: key })
    await unlessMissing(
      this.#requests.send('delete', command, { what: `deleting ${key}`, signal, free: true }),
    )
  }
}
