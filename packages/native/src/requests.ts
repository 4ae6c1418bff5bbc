import { systemError } from './errors.ts'
import type { Region } from './region.ts'
import { operationRead, operationSync, operationWrite } from './ring-queues.ts'

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
  readonly resolve: (result: number) => void
  readonly reject: (error: Error) => void
  retries: number
}

const operationNames: Readonly<Record<number, string>> = {
  [operationRead]: 'read',
  [operationWrite]: 'write',
  [operationSync]: 'fsync',
}

/** The error for a request that came back with `errno`. */
export function requestError(request: Request, errno: number): Error {
  return systemError(errno, operationNames[request.operation] as string)
}

/** Whether the request uses memory in [from, to) of the address space. */
export function uses(request: Request, from: number, to: number): boolean {
  return request.region !== undefined && request.address < to && request.address + request.lengthBytes > from
}

/** Requests that wait for a place in the ring, first come first served; every call is O(1) amortised. */
export class RequestQueue {
  #requests: Request[] = []
  #first = 0

  get isEmpty(): boolean {
    return this.#first === this.#requests.length
  }

  push(request: Request): void {
    this.#requests.push(request)
  }

  /** The request that has waited longest, or undefined. */
  shift(): Request | undefined {
    const request = this.#requests[this.#first]
    if (request === undefined) return undefined
    this.#first++
    // Half of it is history: drop that.
    if (this.#first * 2 >= this.#requests.length) {
      this.#requests = this.#requests.slice(this.#first)
      this.#first = 0
    }
    return request
  }

  some(holds: (request: Request) => boolean): boolean {
    return this.#requests.some((request, index) => index >= this.#first && holds(request))
  }
}
