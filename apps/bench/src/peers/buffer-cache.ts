import type { BufferStore, Touch, Visit } from '../case/store.ts'

/** How a peer keeps the buffers that do not fit into memory. */
export interface BufferFiles {
  load(buffer: number, memory: Uint8Array): Promise<void>
  store(buffer: number, memory: Uint8Array): Promise<void>
  close(): Promise<void>
}

interface Slot {
  readonly memory: Uint8Array
  buffer: number
  users: number
  dirty: boolean
  /** Settles when the slot holds its buffer. */
  ready: Promise<void>
}

/**
 * The program that one writes by hand: as many whole buffers in memory as the limit allows, the least recently used one
 * stored away for the next. Memory is reused, clean buffers are not written again, touches of different buffers overlap.
 */
export class BufferCache implements BufferStore {
  readonly #files: BufferFiles
  readonly #bufferBytes: number
  readonly #freeMemory: Uint8Array[] = []
  /** Slots by buffer, the least recently used first. */
  readonly #slots = new Map<number, Slot>()
  readonly #stored: Uint8Array
  readonly #storing = new Map<number, Promise<void>>()
  #waiting: (() => void)[] = []
  #memoryBudget: number
  #loads = 0
  #stores = 0

  constructor(files: BufferFiles, limitBytes: number, bufferBytes: number, bufferCount: number) {
    this.#files = files
    this.#bufferBytes = bufferBytes
    this.#memoryBudget = Math.floor(limitBytes / bufferBytes)
    this.#stored = new Uint8Array(bufferCount)
  }

  async write(buffer: number, offsetBytes: number, bytes: Uint8Array): Promise<void> {
    const slot = await this.#acquire(buffer)
    slot.memory.set(bytes, offsetBytes)
    slot.dirty = true
    this.#release(slot)
  }

  async read(buffer: number, offsetBytes: number, into: Uint8Array): Promise<void> {
    const slot = await this.#acquire(buffer)
    into.set(slot.memory.subarray(offsetBytes, offsetBytes + into.byteLength))
    this.#release(slot)
  }

  async touch({ buffer, offsetBytes, lengthBytes, write }: Touch, visit: Visit): Promise<void> {
    const slot = await this.#acquire(buffer)
    try {
      visit([slot.memory.subarray(offsetBytes, offsetBytes + lengthBytes)])
      if (write) slot.dirty = true
    } finally {
      this.#release(slot)
    }
  }

  stats(): unknown {
    return { loads: this.#loads, stores: this.#stores, residentBuffers: this.#slots.size }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#files.close()
  }

  async #acquire(buffer: number): Promise<Slot> {
    const known = this.#slots.get(buffer)
    if (known !== undefined) {
      known.users++
      // To the end of the map: the most recently used.
      this.#slots.delete(buffer)
      this.#slots.set(buffer, known)
      await known.ready
      return known
    }
    const memory = await this.#takeMemory()
    const raced = this.#slots.get(buffer)
    if (raced !== undefined) {
      this.#giveMemory(memory)
      return this.#acquire(buffer)
    }
    const slot: Slot = { memory, buffer, users: 1, dirty: false, ready: this.#fill(buffer, memory) }
    this.#slots.set(buffer, slot)
    try {
      await slot.ready
    } catch (failure) {
      this.#slots.delete(buffer)
      this.#giveMemory(memory)
      throw failure
    }
    return slot
  }

  async #fill(buffer: number, memory: Uint8Array): Promise<void> {
    await this.#storing.get(buffer)
    if (this.#stored[buffer] === 1) {
      this.#loads++
      await this.#files.load(buffer, memory)
    } else memory.fill(0)
  }

  #release(slot: Slot): void {
    slot.users--
    if (slot.users === 0) this.#waiting.shift()?.()
  }

  #giveMemory(memory: Uint8Array): void {
    this.#freeMemory.push(memory)
    this.#waiting.shift()?.()
  }

  async #takeMemory(): Promise<Uint8Array> {
    for (;;) {
      const free = this.#freeMemory.pop()
      if (free !== undefined) return free
      if (this.#memoryBudget > 0) {
        this.#memoryBudget--
        return alignedMemory(this.#bufferBytes)
      }
      const victim = this.#leastRecentlyUsed()
      if (victim !== undefined) return this.#evict(victim)
      await new Promise<void>((wake) => this.#waiting.push(wake))
    }
  }

  #leastRecentlyUsed(): Slot | undefined {
    for (const slot of this.#slots.values()) if (slot.users === 0) return slot
    return undefined
  }

  async #evict(slot: Slot): Promise<Uint8Array> {
    this.#slots.delete(slot.buffer)
    if (slot.dirty) {
      this.#stores++
      const storing = this.#files.store(slot.buffer, slot.memory).then(() => {
        this.#stored[slot.buffer] = 1
        this.#storing.delete(slot.buffer)
      })
      // Whoever wants the buffer back meanwhile waits for this.
      this.#storing.set(slot.buffer, storing)
      await storing
    }
    return slot.memory
  }
}

/** Page-aligned memory: direct I/O refuses other. The backing of a resizable buffer begins on a page. */
export function alignedMemory(lengthBytes: number): Uint8Array {
  return new Uint8Array(new ArrayBuffer(lengthBytes, { maxByteLength: lengthBytes }), 0, lengthBytes).fill(0)
}
