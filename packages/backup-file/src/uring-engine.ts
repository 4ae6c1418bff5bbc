import type { Ring } from '@spillway/native'
import type { DataDescriptor } from './direct-io.ts'
import type { Engine } from './engine.ts'
import type { NativeModule } from './native.ts'

const ringEntries = 128
const largeBytes = 256 * 1024
/** Large requests of one backup under way, all its calls together. */
const mostLarge = 6

/** One ring serves all backups of the process: waiting for a ring takes a thread, and there are few. */
let shared: { readonly ring: Ring; users: number } | undefined

/** Requests through io_uring: no thread per request, and memory that is mapped goes to the device as it is. */
export class UringEngine implements Engine {
  readonly name = 'uring'
  readonly largeRequests = 4
  readonly smallRequests = 64
  readonly #native: NonNullable<NativeModule['native']>
  readonly #ring: Ring
  readonly #data: DataDescriptor
  readonly #waiting: (() => void)[] = []
  #largeUnderWay = 0

  /** Throws an error with `ENOSYS`, `EPERM`, … where the kernel or the container has no rings for us. */
  constructor(native: NonNullable<NativeModule['native']>, data: DataDescriptor) {
    const { ioUring, ioUringReason } = native.available()
    if (!ioUring) {
      throw Object.assign(new Error(ioUringReason ?? 'io_uring is not available here'), { code: 'ENOSYS' })
    }
    shared ??= { ring: native.Ring.open({ entries: ringEntries }), users: 0 }
    shared.users++
    this.#native = native
    this.#ring = shared.ring
    this.#data = data
  }

  takes(memory: Uint8Array): boolean {
    // Direct I/O needs whole pages; mapped memory that starts elsewhere is as good as any other.
    return memory.byteOffset % 4096 === 0 && this.#native.isMapped(memory)
  }

  read(into: Uint8Array, offsetBytes: number): Promise<number> {
    if (into.byteLength < largeBytes) return this.#ring.read(this.#data.fileDescriptor, into, offsetBytes)
    if (this.#largeUnderWay === mostLarge) return this.#inTurn(() => this.read(into, offsetBytes))
    return this.#counted(this.#ring.read(this.#data.fileDescriptor, into, offsetBytes))
  }

  write(from: Uint8Array, offsetBytes: number): Promise<number> {
    if (from.byteLength < largeBytes) return this.#ring.write(this.#data.fileDescriptor, from, offsetBytes)
    if (this.#largeUnderWay === mostLarge) return this.#inTurn(() => this.write(from, offsetBytes))
    return this.#counted(this.#ring.write(this.#data.fileDescriptor, from, offsetBytes))
  }

  readThen(into: Uint8Array, offsetBytes: number, done: (outcome: number | Error) => void): boolean {
    if (into.byteLength >= largeBytes) return false
    return this.#ring.readThen(this.#data.fileDescriptor, into, offsetBytes, done)
  }

  /** Few large requests keep a disk busy; handing over dozens at once would hold up the event loop. */
  async #inTurn(request: () => Promise<number>): Promise<number> {
    await new Promise<void>((resolve) => this.#waiting.push(resolve))
    const before = this.#largeUnderWay
    try {
      return request()
    } finally {
      // One that could not be begun, since its memory is gone, leaves its turn to the next.
      if (this.#largeUnderWay === before && before < mostLarge) this.#waiting.shift()?.()
    }
  }

  #counted(request: Promise<number>): Promise<number> {
    this.#largeUnderWay++
    request.then(this.#ended, this.#ended)
    return request
  }

  readonly #ended = (): void => {
    this.#largeUnderWay--
    this.#waiting.shift()?.()
  }

  async close(): Promise<void> {
    if (shared === undefined || --shared.users > 0) return
    const { ring } = shared
    shared = undefined
    await ring.close()
  }
}
