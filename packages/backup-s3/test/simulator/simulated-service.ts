/**
 * An object store in the process, and the way to it: requests wait until the scheduler lets them arrive, and their answers
 * until it lets them come back. Its clock is the world's, and tells whole seconds.
 */
import { Readable } from 'node:stream'
import { type Process, world } from './virtual-host.ts'

export interface StoredThing {
  readonly body: Buffer
  readonly etag: string
  readonly identity: string | undefined
  readonly writtenMs: number
}

interface CommandInput {
  readonly Key?: string
  readonly Prefix?: string
  readonly Body?: Uint8Array
  readonly Range?: string
  readonly IfNoneMatch?: string
  readonly Metadata?: Record<string, string>
  readonly Delete?: { readonly Objects: readonly { readonly Key: string }[] }
}

/** The middleware of a command that the package adds, as far as it is run here. */
interface Command {
  readonly input: CommandInput
  readonly middlewareStack: {
    resolve(handler: unknown, context: object): (args: object) => Promise<{ output: unknown }>
  }
}

/** What becomes of a request. */
export type Fate = 'through' | 'held' | 'lost before' | 'lost after' | 'twice'
/** What a process does before an answer reaches it: nothing, it stops, or its machine sleeps. */
export type Interruption = 'none' | 'stops' | 'sleeps'

/** A request on its way, or its answer on its way back. */
export interface Request {
  readonly process: Process
  readonly verb: string
  readonly input: CommandInput
  state: 'sent' | 'done'
  /** Not before this time, by the world's clock. */
  heldUntil: number
  /** Whether anybody still waits for the answer. */
  isWanted: boolean
  answer: { output?: unknown; error?: Error } | undefined
  date: string
  settle: () => void
}

/** Every answer is what the SDK would give. */
export class SimulatedService {
  /** Those whose sender still waits. */
  readonly pending = new Set<Request>()
  readonly objects = new Map<string, StoredThing>()
  readonly requests: Request[] = []
  served = 0
  #written = 0

  /** A client of this service for a process. */
  clientFor(process: Process): object {
    return {
      config: {},
      send: (command: Command, options: { abortSignal?: AbortSignal }) =>
        this.#send(process, command, options),
    }
  }

  /** The service does what a request asks for. */
  arrive(request: Request): void {
    this.served++
    request.date = dateNow()
    try {
      request.answer = { output: this.#do(request.verb, request.input) }
    } catch (error) {
      request.answer = { error: error as Error }
    }
    request.state = 'done'
  }

  /** The answer comes back; of one that nobody waits for nothing is heard any more. */
  comeBack(request: Request): void {
    this.forget(request)
    if (request.process.isKilled) return
    this.pending.delete(request)
    if (!request.isWanted) return
    world.current = request.process
    request.settle()
  }

  /** The connection breaks: nobody knows whether the request was done. */
  breakOff(request: Request): void {
    const failure = Object.assign(new Error('socket hang up'), { code: 'ECONNRESET', name: 'Error' })
    request.answer = { error: failure }
    request.date = ''
    this.comeBack(request)
  }

  /** Ends all that a process waits for: it is over with it. */
  bury(process: Process): void {
    for (const request of this.pending) {
      if (request.process !== process) continue
      this.pending.delete(request)
      this.forget(request)
      request.answer = { error: buried() }
      request.date = ''
      request.settle()
    }
  }

  forget(request: Request): void {
    const index = this.requests.indexOf(request)
    if (index >= 0) this.requests.splice(index, 1)
  }

  async #send(process: Process, command: Command, options: { abortSignal?: AbortSignal }): Promise<unknown> {
    const verb = command.constructor.name
    const { middlewareStack } = command
    const travel = async () => {
      const request: Request = {
        process,
        verb,
        input: command.input,
        state: 'sent',
        heldUntil: 0,
        isWanted: true,
        answer: undefined,
        date: '',
        settle: () => {},
      }
      if (process.isBuried) throw buried()
      await new Promise<void>((resolve) => {
        request.settle = resolve
        this.requests.push(request)
        this.pending.add(request)
        options.abortSignal?.addEventListener('abort', () => {
          request.isWanted = false
        })
      })
      const headers = request.date === '' ? {} : { date: request.date }
      const { output, error } = request.answer!
      if (error !== undefined)
        throw request.date === '' ? error : Object.assign(error, { $response: { headers } })
      return { output, response: { headers, statusCode: 200 } }
    }
    const handler = middlewareStack.resolve(travel, {})
    const { output } = await handler({ input: command.input, request: { headers: {} } })
    return output
  }

  #do(verb: string, input: CommandInput): unknown {
    const metadata = { httpStatusCode: 200 }
    const key = input.Key ?? ''
    switch (verb) {
      case 'PutObjectCommand': {
        if (input.IfNoneMatch === '*' && this.objects.has(key)) throw failure('PreconditionFailed', 412)
        const body = Buffer.from(input.Body!)
        const etag = `"${++this.#written}"`
        const identity = input.Metadata?.['spillway']
        this.objects.set(key, { body, etag, identity, writtenMs: wholeSeconds() })
        return { $metadata: metadata, ETag: etag }
      }
      case 'GetObjectCommand':
        return { $metadata: { httpStatusCode: input.Range ? 206 : 200 }, ...this.#read(key, input.Range) }
      case 'HeadObjectCommand': {
        const found = this.objects.get(key)
        if (found === undefined) throw failure('NotFound', 404)
        return {
          $metadata: metadata,
          ContentLength: found.body.length,
          ETag: found.etag,
          LastModified: new Date(found.writtenMs),
          Metadata: found.identity === undefined ? {} : { spillway: found.identity },
        }
      }
      case 'DeleteObjectCommand':
        this.objects.delete(key)
        return { $metadata: metadata }
      case 'DeleteObjectsCommand':
        for (const { Key } of input.Delete!.Objects) this.objects.delete(Key)
        return { $metadata: metadata }
      case 'ListObjectsV2Command': {
        const names = [...this.objects.keys()].filter((name) => name.startsWith(input.Prefix ?? '')).sort()
        const Contents = names.map((Key) => {
          const { body, writtenMs } = this.objects.get(Key)!
          return { Key, Size: body.length, LastModified: new Date(writtenMs) }
        })
        return { $metadata: metadata, Contents, IsTruncated: false }
      }
      default:
        return { $metadata: metadata }
    }
  }

  #read(key: string, range: string | undefined): object {
    const found = this.objects.get(key)
    if (found === undefined) throw failure('NoSuchKey', 404)
    const match = /^bytes=(\d+)-(\d+)$/.exec(range ?? '')
    const first = match === null ? 0 : Number(match[1])
    const last = match === null ? found.body.length - 1 : Math.min(Number(match[2]), found.body.length - 1)
    const bytes = found.body.subarray(first, last + 1)
    return {
      Body: new WholeBody(bytes),
      ContentLength: bytes.length,
      ETag: found.etag,
      LastModified: new Date(found.writtenMs),
      ...(match === null ? {} : { ContentRange: `bytes ${first}-${last}/${found.body.length}` }),
    }
  }
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

let dateMs = 0
let date = ''

function dateNow(): string {
  if (dateMs !== wholeSeconds()) {
    dateMs = wholeSeconds()
    date = new Date(dateMs).toUTCString()
  }
  return date
}

/** The service's clock as it tells it. */
function wholeSeconds(): number {
  return Math.floor(world.now / 1000) * 1000
}

function buried(): Error {
  return failure('AccessDenied', 403)
}

function failure(name: string, status: number): Error {
  return Object.assign(new Error(name), { name, $metadata: { httpStatusCode: status } })
}
