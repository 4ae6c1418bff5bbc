/**
 * An object store in the process, and the way to it: requests wait until the scheduler lets them arrive, and their answers
 * until it lets them come back. Its clock is the world's, and tells whole seconds.
 */
import { type CommandInput, failure, ObjectMap } from '../harness/object-map.ts'
import { type Process, world } from './virtual-host.ts'

/** The middleware of a command that the package adds, as far as it is run here. */
interface Command {
  readonly input: CommandInput
  readonly middlewareStack: {
    resolve(handler: unknown, context: object): (args: object) => Promise<{ output: unknown }>
  }
}

/** What becomes of a request. */
export type Fate = 'through' | 'held' | 'lost before' | 'lost after' | 'twice' | 'refused' | 'failed'
/** What a process does before an answer reaches it: nothing, it stops, or its machine sleeps. */
export type Interruption = 'none' | 'stops' | 'sleeps' | 'dies'

/** A request on its way, or its answer on its way back. */
export interface Request {
  readonly process: Process
  readonly verb: string
  readonly input: CommandInput
  readonly sentMs: number
  state: 'sent' | 'done'
  /** Not before this time, by the world's clock. */
  heldUntil: number
  /** Whether anybody still waits for the answer. */
  isWanted: boolean
  answer: { output?: unknown; error?: Error } | undefined
  /** What `Date` says in the answer, where there is one. */
  date: string | undefined
  /** Whether there is no answer. */
  isBroken: boolean
  settle: () => void
}

/** In what services differ; what is left out is as most have it. */
export interface Traits {
  /** Whether answers have a `Date`. */
  readonly hasDate?: boolean
  /** Whether objects have a `Last-Modified`. */
  readonly tellsTime?: boolean
  /** Whether listings tell milliseconds. */
  readonly isFine?: boolean
  readonly keysPerListing?: number
  /** Of all owners there: the longer, the less it matters that clocks tell whole seconds. */
  readonly leaseMs?: number
}

/** Every answer is what the SDK would give. */
export class SimulatedService {
  /** Those whose sender still waits. */
  readonly pending = new Set<Request>()
  readonly objects = new ObjectMap(() => world.now + this.aheadMs)
  /** How far its clock is ahead of the world's. */
  aheadMs = 0
  hasDate = true
  readonly requests: Request[] = []
  served = 0
  /** How long before a request takes effect the `Date` of its answer may be made, in milliseconds. */
  earlyMs = 0
  /** Whether requests are done when they are made, without anybody's choice. */
  isDirect = false

  become({ hasDate = true, tellsTime = true, isFine = false, keysPerListing = 1000 }: Traits): void {
    this.hasDate = hasDate
    Object.assign(this.objects, { tellsTime, isFine, keysPerListing })
  }

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
    const madeAt = Math.max(request.sentMs, world.now - this.earlyMs)
    request.date = this.hasDate ? this.objects.dateAt(madeAt + this.aheadMs) : undefined
    try {
      request.answer = { output: this.objects.perform(request.verb, request.input) }
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

  /** The service says that it has failed. */
  refuse(request: Request, name: string, status: number): void {
    request.answer = { error: failure(name, status) }
    request.date = this.hasDate ? this.objects.date : undefined
    request.state = 'done'
  }

  /** The connection breaks: nobody knows whether the request was done. */
  breakOff(request: Request): void {
    const failure = Object.assign(new Error('socket hang up'), { code: 'ECONNRESET', name: 'Error' })
    request.answer = { error: failure }
    request.isBroken = true
    this.comeBack(request)
  }

  /** Ends all that a process waits for: it is over with it. */
  bury(process: Process): void {
    for (const request of this.pending) {
      if (request.process !== process) continue
      this.pending.delete(request)
      this.forget(request)
      request.answer = { error: buried() }
      request.isBroken = true
      request.settle()
    }
  }

  forget(request: Request): void {
    const index = this.requests.indexOf(request)
    if (index >= 0) this.requests.splice(index, 1)
  }

  async #send(process: Process, command: Command, options: { abortSignal?: AbortSignal }): Promise<unknown> {
    const verb = command.constructor.name
    const { input, middlewareStack } = command
    // The memory of a body is used again once its sender has given up; what is on its way stays what it is.
    const sent = input.Body === undefined ? input : { ...input, Body: Buffer.from(input.Body) }
    const travel = async () => {
      const request: Request = {
        process,
        verb,
        input: sent,
        sentMs: world.now,
        state: 'sent',
        heldUntil: 0,
        isWanted: true,
        answer: undefined,
        date: undefined,
        isBroken: false,
        settle: () => {},
      }
      if (process.isBuried) throw buried()
      if (this.isDirect) this.arrive(request)
      else
        await new Promise<void>((resolve) => {
          request.settle = resolve
          this.requests.push(request)
          this.pending.add(request)
          options.abortSignal?.addEventListener('abort', () => {
            request.isWanted = false
          })
        })
      const headers = request.date === undefined || request.isBroken ? {} : { date: request.date }
      const { output, error } = request.answer!
      if (error !== undefined)
        throw request.isBroken ? error : Object.assign(error, { $response: { headers } })
      return { output, response: { headers, statusCode: 200 } }
    }
    const handler = middlewareStack.resolve(travel, {})
    const { output } = await handler({ input, request: { headers: {} } })
    return output
  }
}

function buried(): Error {
  return failure('AccessDenied', 403)
}
