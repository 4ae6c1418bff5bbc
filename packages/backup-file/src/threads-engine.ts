import type { DataDescriptor } from './direct-io.ts'
import type { Engine } from './engine.ts'
import type { FileSystem } from './file-system.ts'
import type { NativeModule } from './native.ts'
import { longWork, shortRequestBytes, shortRequests } from './thread-budget.ts'

/** `node:fs`, which does every request on a thread of libuv's pool, within the budget of `thread-budget.ts`. */
export class ThreadsEngine implements Engine {
  readonly name = 'threads'
  readonly largeRequests = longWork.most
  readonly smallRequests = shortRequests.most
  readonly #fileSystem: FileSystem
  readonly #data: DataDescriptor
  readonly #aligned: ((memory: Uint8Array) => boolean) | undefined

  constructor(fileSystem: FileSystem, data: DataDescriptor, native: NativeModule['native'] | undefined) {
    this.#fileSystem = fileSystem
    this.#data = data
    // A file that bypasses the page cache wants memory on a page boundary.
    this.#aligned = data.direct ? (memory) => isAligned(memory, native) : undefined
  }

  takes(memory: Uint8Array): boolean {
    return this.#aligned === undefined || this.#aligned(memory)
  }

  read(into: Uint8Array, offsetBytes: number): Promise<number> {
    return this.#request(this.#fileSystem.read, into, offsetBytes)
  }

  write(from: Uint8Array, offsetBytes: number): Promise<number> {
    return this.#request(this.#fileSystem.write, from, offsetBytes)
  }

  readThen(into: Uint8Array, offsetBytes: number, done: (outcome: number | Error) => void): boolean {
    this.#start(this.#fileSystem.read, into, offsetBytes, done)
    return true
  }

  async close(): Promise<void> {}

  #request(operation: Operation, memory: Uint8Array, offsetBytes: number): Promise<number> {
    return new Promise((resolve, reject) => {
      this.#start(operation, memory, offsetBytes, (outcome) => {
        if (typeof outcome === 'number') resolve(outcome)
        else reject(outcome)
      })
    })
  }

  #start(
    operation: Operation,
    memory: Uint8Array,
    offsetBytes: number,
    settle: (outcome: number | Error) => void,
  ): void {
    const budget = memory.byteLength <= shortRequestBytes ? shortRequests : longWork
    const ended = (error: unknown, bytes: number): void => {
      budget.leave()
      settle(error ? asError(error) : bytes)
    }
    budget.enter(() => {
      const { byteLength } = memory
      try {
        operation.call(this.#fileSystem, this.#data.fileDescriptor, memory, 0, byteLength, offsetBytes, ended)
      } catch (failure) {
        // It is refused here when the memory was detached while it waited.
        ended(failure, 0)
      }
    })
  }
}

type Operation = FileSystem['read'] | FileSystem['write']

function asError(failure: unknown): Error {
  return failure instanceof Error ? failure : new Error(String(failure))
}

/**
 * Whether memory is known to begin on a page boundary: mapped memory says so itself, and a resizable ArrayBuffer is
 * reserved in whole pages. An ordinary ArrayBuffer may be aligned too, but nobody can tell.
 */
function isAligned(memory: Uint8Array, native: NativeModule['native'] | undefined): boolean {
  const { buffer, byteOffset } = memory
  if (byteOffset % alignmentBytes !== 0) return false
  if (buffer instanceof ArrayBuffer && buffer.resizable) return true
  const address = native?.mappedAddress(memory)
  return address !== undefined && address % BigInt(alignmentBytes) === 0n
}

const alignmentBytes = 4096
