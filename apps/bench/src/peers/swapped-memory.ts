import type { BufferStore, Touch, Visit } from '../case/store.ts'
import { alignedMemory } from './aligned-memory.ts'
import type { PeerSettings } from './peer-settings.ts'

const systemPageBytes = 4096

/** All buffers in ordinary memory, of which the system swaps out what the memory control group does not allow. */
export class SwappedMemory implements BufferStore {
  readonly #buffers: readonly Uint8Array[]

  constructor({ bufferBytes, bufferCount }: PeerSettings) {
    this.#buffers = Array.from({ length: bufferCount }, () => alignedMemory(bufferBytes))
  }

  write(buffer: number, offsetBytes: number, bytes: Uint8Array): Promise<void> {
    this.#buffers[buffer].set(bytes, offsetBytes)
    return Promise.resolve()
  }

  read(buffer: number, offsetBytes: number, into: Uint8Array): Promise<void> {
    into.set(this.#buffers[buffer].subarray(offsetBytes, offsetBytes + into.byteLength))
    return Promise.resolve()
  }

  touch({ buffer, offsetBytes, lengthBytes }: Touch, visit: Visit): Promise<void> {
    const memory = this.#buffers[buffer].subarray(offsetBytes, offsetBytes + lengthBytes)
    // What waits for memory here are the page faults: they come before the visit, as the waits of the others do.
    let sum = 0
    for (let at = 0; at < lengthBytes; at += systemPageBytes) sum += memory[at]
    if (sum < 0) throw new Error('bytes are not negative')
    visit([memory])
    return Promise.resolve()
  }

  stats(): unknown {
    return undefined
  }

  [Symbol.asyncDispose](): Promise<void> {
    return Promise.resolve()
  }
}
