import type { DataDescriptor } from './direct-io.ts'
import type { Engine } from './engine.ts'
import type { FileSystem } from './file-system.ts'
import type { NativeModule } from './native.ts'
import { threadIsFree, threadsToUse, whenThreadIsFree } from './thread-budget.ts'

/** `node:fs`, which does every request on a thread of libuv's pool, within the budget of `thread-budget.ts`. */
export class ThreadsEngine implements Engine {
  readonly name = 'threads'
  readonly largeRequests = threadsToUse
  readonly smallRequests = threadsToUse
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

  async close(): Promise<void> {}

  #request(
    operation: FileSystem['read'] | FileSystem['write'],
    memory: Uint8Array,
    offsetBytes: number,
  ): Promise<number> {
    return new Promise((resolve, reject) => {
      whenThreadIsFree(() => {
        operation.call(
          this.#fileSystem,
          this.#data.fileDescriptor,
          memory,
          0,
          memory.byteLength,
          offsetBytes,
          (error: unknown, bytes: number) => {
            threadIsFree()
            if (error) reject(error)
            else resolve(bytes)
          },
        )
      })
    })
  }
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
