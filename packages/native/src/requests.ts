import { systemError } from './errors.ts'
import { afterThisCode } from './host.ts'
import { placementOf, type Region } from './region.ts'
import { operationRead, operationSync, operationWrite } from './ring-queues.ts'

/** Told what became of a request: the bytes that it moved, or its error. */
export type Settle = (outcome: number | Error) => void

/** One request of a ring, from the call to its settling. */
export interface Request {
  readonly operation: number
  readonly fd: number
  /** Where the memory is, and in which region; no memory for a sync. */
  readonly address: number
  readonly lengthBytes: number
  readonly region: Region | undefined
  readonly offset: number
  readonly flags: number
  readonly settle: Settle
  retries: number
  /** The one behind it while it waits for a place. */
  next: Request | undefined
}

const operationNames: Readonly<Record<number, string>> = {
  [operationRead]: 'read',
  [operationWrite]: 'write',
  [operationSync]: 'fsync',
}

/** The memory of a request. */
export type RequestMemory = Pick<Request, 'address' | 'lengthBytes'> & { readonly region: Region }

/** The most bytes that the kernel moves in one request; longer spans come back short. */
const maxRequestBytes = 0x7ffff000

/** The memory of a span that a ring may touch. `TypeError` unless it belongs to an open Mapping. */
export function memoryOf(span: Uint8Array): RequestMemory {
  if (!(span instanceof Uint8Array)) throw new TypeError('span is not a Uint8Array')
  const placement = placementOf(span)
  if (placement === undefined || placement.region.state !== 'open') {
    throw new TypeError('span is not memory of an open Mapping; a ring can touch no other')
  }
  const { region } = placement
  const address = placement.address + span.byteOffset
  const lengthBytes = Math.min(span.byteLength, maxRequestBytes)
  const end = address + lengthBytes
  // Whatever a subclass says of itself, no address outside the mapping leaves this place: NaN fails the test, too.
  if (!(address >= region.base && end <= region.base + region.lengthBytes && lengthBytes > 0)) {
    throw new RangeError(`span has ${span.byteLength} bytes; it must have at least one, inside the mapping`)
  }
  return { region, address, lengthBytes }
}

/** Settles a request. An error that its owner throws is uncaught, and stops no other request. */
export function settleRequest(request: Request, outcome: number | Error): void {
  try {
    request.settle(outcome)
  } catch (thrown) {
    afterThisCode(() => {
      throw thrown
    })
  }
}

/** The error for a request that came back with `errno`. */
export function requestError(request: Request, errno: number): Error {
  return systemError(errno, operationNames[request.operation] as string)
}

/** Whether the request uses memory in [from, to) of the address space. */
export function uses(request: Request, from: number, to: number): boolean {
  return request.region !== undefined && request.address < to && request.address + request.lengthBytes > from
}

/** Requests that wait for a place in the ring, first come first served; `push` and `shift` are O(1). */
export class RequestQueue {
  #first: Request | undefined
  #last: Request | undefined

  get isEmpty(): boolean {
    return this.#first === undefined
  }

  push(request: Request): void {
    if (this.#last === undefined) this.#first = request
    else this.#last.next = request
    this.#last = request
  }

  /** The request that has waited longest, or undefined. */
  shift(): Request | undefined {
    const request = this.#first
    if (request === undefined) return undefined
    this.#first = request.next
    if (this.#first === undefined) this.#last = undefined
    request.next = undefined
    return request
  }

  some(holds: (request: Request) => boolean): boolean {
    for (let request = this.#first; request !== undefined; request = request.next) {
      if (holds(request)) return true
    }
    return false
  }
}
