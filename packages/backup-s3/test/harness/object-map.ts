/**
 * What an object store does, in a map: for the simulator, and for stores of more objects than a server could be given in a
 * test. Answers are what the SDK would make of them.
 */
import { Readable } from 'node:stream'

export interface StoredThing {
  readonly body: Buffer
  readonly etag: string
  readonly identity: string | undefined
  readonly writtenMs: number
  readonly exactMs: number
}

/** What the package asks for. */
export interface CommandInput {
  readonly Key?: string
  readonly Prefix?: string
  readonly ContinuationToken?: string
  readonly Body?: Uint8Array
  readonly Range?: string
  readonly IfNoneMatch?: string
  readonly Metadata?: Record<string, string>
  readonly Delete?: { readonly Objects: readonly { readonly Key: string }[] }
}

export class ObjectMap {
  /** Keys in one page of a listing. */
  keysPerListing = 1000
  /** Whether listings and answers say when objects were written. */
  tellsTime = true
  /** Whether listings tell milliseconds. */
  isFine = false
  /** Keys that cannot be deleted now. */
  isUndeletable: (key: string) => boolean = () => false
  readonly #objects = new Map<string, StoredThing>()
  readonly #nowMs: () => number
  /** In order; undefined: some came or went since. */
  #names: string[] | undefined
  #written = 0

  /** @param nowMs the service's clock, of which it tells whole seconds */
  constructor(nowMs: () => number) {
    this.#nowMs = nowMs
  }

  get keys(): IterableIterator<string> {
    return this.#objects.keys()
  }

  get(key: string): StoredThing | undefined {
    return this.#objects.get(key)
  }

  set(key: string, body: Buffer, identity?: string): string {
    const etag = `"${++this.#written}"`
    if (!this.#objects.has(key)) this.#names = undefined
    this.#objects.set(key, {
      body,
      etag,
      identity,
      writtenMs: wholeSeconds(this.#nowMs()),
      exactMs: this.#nowMs(),
    })
    return etag
  }

  /** What `Date` says in an answer that is made now. */
  get date(): string {
    return this.dateAt(this.#nowMs())
  }

  /** What `Date` says in an answer whose head was made at that time. */
  dateAt(milliseconds: number): string {
    return dateOf(wholeSeconds(milliseconds))
  }

  /** Does what a command of this name asks for; throws what the SDK would throw. */
  perform(verb: string, input: CommandInput): unknown {
    const metadata = { httpStatusCode: 200 }
    const key = input.Key ?? ''
    switch (verb) {
      case 'PutObjectCommand':
        if (input.IfNoneMatch === '*' && this.#objects.has(key)) throw failure('PreconditionFailed', 412)
        return {
          $metadata: metadata,
          ETag: this.set(key, Buffer.from(input.Body!), input.Metadata?.['spillway']),
        }
      case 'GetObjectCommand':
        return { $metadata: { httpStatusCode: input.Range ? 206 : 200 }, ...this.#read(key, input.Range) }
      case 'HeadObjectCommand': {
        const found = this.#objects.get(key)
        if (found === undefined) throw failure('NotFound', 404)
        return {
          $metadata: metadata,
          ContentLength: found.body.length,
          ETag: found.etag,
          ...(this.tellsTime ? { LastModified: new Date(found.writtenMs) } : {}),
          Metadata: found.identity === undefined ? {} : { spillway: found.identity },
        }
      }
      case 'DeleteObjectCommand':
        if (this.isUndeletable(key)) throw failure('InternalError', 500)
        this.#delete(key)
        return { $metadata: metadata }
      case 'DeleteObjectsCommand': {
        const Errors: object[] = []
        for (const { Key } of input.Delete!.Objects) {
          if (this.isUndeletable(Key)) Errors.push({ Key, Code: 'InternalError', Message: 'kept' })
          else this.#delete(Key)
        }
        return { $metadata: metadata, ...(Errors.length > 0 ? { Errors } : {}) }
      }
      case 'ListObjectsV2Command':
        return { $metadata: metadata, ...this.#list(input.Prefix ?? '', input.ContinuationToken) }
      default:
        throw failure('NotImplemented', 501)
    }
  }

  #delete(key: string): void {
    if (this.#objects.delete(key)) this.#names = undefined
  }

  /** @param token the last key of the listing that this one goes on from */
  #list(prefix: string, token: string | undefined): object {
    this.#names ??= [...this.#objects.keys()].sort()
    const names = this.#names
    let index = firstNotBelow(names, token ?? prefix)
    if (token !== undefined && names[index] === token) index++
    const Contents: object[] = []
    while (
      index < names.length &&
      names[index]!.startsWith(prefix) &&
      Contents.length < this.keysPerListing
    ) {
      const Key = names[index++]!
      const { body, writtenMs, exactMs } = this.#objects.get(Key)!
      const at = this.isFine ? exactMs : writtenMs
      Contents.push({ Key, Size: body.length, ...(this.tellsTime ? { LastModified: new Date(at) } : {}) })
    }
    const IsTruncated = index < names.length && names[index]!.startsWith(prefix)
    return { Contents, IsTruncated, ...(IsTruncated ? { NextContinuationToken: names[index - 1] } : {}) }
  }

  #read(key: string, range: string | undefined): object {
    const found = this.#objects.get(key)
    if (found === undefined) throw failure('NoSuchKey', 404)
    const match = /^bytes=(\d+)-(\d+)$/.exec(range ?? '')
    const first = match === null ? 0 : Number(match[1])
    const last = match === null ? found.body.length - 1 : Math.min(Number(match[2]), found.body.length - 1)
    const bytes = found.body.subarray(first, last + 1)
    return {
      Body: new WholeBody(bytes),
      ContentLength: bytes.length,
      ETag: found.etag,
      ...(this.tellsTime ? { LastModified: new Date(found.writtenMs) } : {}),
      ...(match === null ? {} : { ContentRange: `bytes ${first}-${last}/${found.body.length}` }),
    }
  }
}

/** The place of the first name that is not below `name`. */
function firstNotBelow(names: readonly string[], name: string): number {
  let low = 0
  let high = names.length
  while (low < high) {
    const middle = (low + high) >>> 1
    if (names[middle]! < name) low = middle + 1
    else high = middle
  }
  return low
}

/** A body that comes in one piece, to whoever listens. It is a `Readable` by name only: a real one costs more than a request. */
class WholeBody {
  readonly #bytes: Buffer
  readonly #listeners = new Map<string, (value?: unknown) => void>()
  #isDestroyed = false

  constructor(bytes: Buffer) {
    this.#bytes = bytes
  }

  on(event: string, listener: (value?: unknown) => void): this {
    this.#listeners.set(event, listener)
    if (event === 'data') queueMicrotask(() => this.#flow())
    return this
  }

  once(event: string, listener: (value?: unknown) => void): this {
    return this.on(event, listener)
  }

  removeAllListeners(event: string): this {
    this.#listeners.delete(event)
    return this
  }

  destroy(): this {
    this.#isDestroyed = true
    return this
  }

  #flow(): void {
    if (this.#isDestroyed) return
    this.#listeners.get('data')?.(this.#bytes)
    if (!this.#isDestroyed) this.#listeners.get('end')?.()
  }
}
Object.setPrototypeOf(WholeBody.prototype, Readable.prototype)

let dateMs = Number.NaN
let date = ''

function dateOf(milliseconds: number): string {
  if (dateMs !== milliseconds) {
    dateMs = milliseconds
    date = new Date(milliseconds).toUTCString()
  }
  return date
}

function wholeSeconds(milliseconds: number): number {
  return Math.floor(milliseconds / 1000) * 1000
}

/** An error of the service as the SDK throws it. */
export function failure(name: string, status: number): Error {
  return Object.assign(new Error(name), { name, $metadata: { httpStatusCode: status } })
}
