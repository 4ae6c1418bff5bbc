import type { BufferStore, Touch, Visit } from '../case/store.ts'
import { alignedMemory } from './aligned-memory.ts'
import type { PeerSettings } from './peer-settings.ts'

/** How a peer keeps the units that do not fit into memory. Only what was stored is loaded; calls for one unit never overlap. */
export interface UnitStore {
  load(unit: number, memory: Uint8Array): void | Promise<void>
  store(unit: number, memory: Uint8Array): void | Promise<void>
  close(): void | Promise<void>
}

/** Memory comes from the system in pieces of at least this size. */
const slabBytes = 8 * 2 ** 20

interface Slot {
  readonly memory: Uint8Array
  readonly unit: number
  users: number
  dirty: boolean
  /** Settles when the slot holds its unit. */
  ready: Promise<void>
}

/**
 * The program that one writes by hand: as many units of the data in memory as the limit allows, the least recently used one stored away
 * for the next. Memory is reused, clean units are not written again, touches of different units overlap.
 */
export class UnitCache implements BufferStore {
  readonly #backing: UnitStore
  readonly #bufferBytes: number
  readonly #unitBytes: number
  readonly #freeMemory: Uint8Array[] = []
  /** Slots by unit, the least recently used first. */
  readonly #slots = new Map<number, Slot>()
  readonly #stored: Uint8Array
  readonly #storing = new Map<number, Promise<void>>()
  #waiting: (() => void)[] = []
  #memoryBudget: number
  #loads = 0
  #stores = 0

  constructor(backing: UnitStore, { limitBytes, bufferBytes, bufferCount, unitBytes }: PeerSettings) {
    this.#backing = backing
    this.#bufferBytes = bufferBytes
    this.#unitBytes = unitBytes
    this.#memoryBudget = Math.max(1, Math.floor(limitBytes / unitBytes))
    this.#stored = new Uint8Array((bufferCount * bufferBytes) / unitBytes)
  }

  async write(buffer: number, offsetBytes: number, bytes: Uint8Array): Promise<void> {
    await this.#eachUnit(buffer, offsetBytes, bytes.byteLength, (slot, inUnit, done, length) => {
      slot.memory.set(bytes.subarray(done, done + length), inUnit)
      slot.dirty = true
    })
  }

  async read(buffer: number, offsetBytes: number, into: Uint8Array): Promise<void> {
    await this.#eachUnit(buffer, offsetBytes, into.byteLength, (slot, inUnit, done, length) => {
      into.set(slot.memory.subarray(inUnit, inUnit + length), done)
    })
  }

  async touch({ buffer, offsetBytes, lengthBytes, write }: Touch, visit: Visit): Promise<void> {
    await this.#eachUnit(buffer, offsetBytes, lengthBytes, (slot, inUnit, _done, length) => {
      if (length !== lengthBytes) throw new Error('a touch reaches into several units')
      visit([slot.memory.subarray(inUnit, inUnit + length)])
      if (write) slot.dirty = true
    })
  }

  stats(): unknown {
    return { loads: this.#loads, stores: this.#stores, residentUnits: this.#slots.size }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#backing.close()
  }

  async #eachUnit(
    buffer: number,
    offsetBytes: number,
    lengthBytes: number,
    use: (slot: Slot, inUnit: number, done: number, length: number) => void,
  ): Promise<void> {
    const start = buffer * this.#bufferBytes + offsetBytes
    for (let done = 0; done < lengthBytes; ) {
      const inUnit = (start + done) % this.#unitBytes
      const length = Math.min(this.#unitBytes - inUnit, lengthBytes - done)
      const slot = await this.#acquire(Math.floor((start + done) / this.#unitBytes))
      try {
        use(slot, inUnit, done, length)
      } finally {
        this.#release(slot)
      }
      done += length
    }
  }

  async #acquire(unit: number): Promise<Slot> {
    const known = this.#slots.get(unit)
    if (known !== undefined) {
      known.users++
      // To the end of the map: the most recently used.
      this.#slots.delete(unit)
      this.#slots.set(unit, known)
      await known.ready
      return known
    }
    const memory = await this.#takeMemory()
    const raced = this.#slots.get(unit)
    if (raced !== undefined) {
      this.#giveMemory(memory)
      return this.#acquire(unit)
    }
    const slot: Slot = { memory, unit, users: 1, dirty: false, ready: this.#fill(unit, memory) }
    this.#slots.set(unit, slot)
    try {
      await slot.ready
    } catch (failure) {
      this.#slots.delete(unit)
      this.#giveMemory(memory)
      throw failure
    }
    return slot
  }

  async #fill(unit: number, memory: Uint8Array): Promise<void> {
    await this.#storing.get(unit)
    if (this.#stored[unit] === 1) {
      this.#loads++
      await this.#backing.load(unit, memory)
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
        this.#takeSlab()
        continue
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
    this.#slots.delete(slot.unit)
    if (slot.dirty) {
      this.#stores++
      const storing = this.#store(slot)
      // Whoever wants the unit back meanwhile waits for this.
      this.#storing.set(slot.unit, storing)
      await storing
    }
    return slot.memory
  }

  async #store({ unit, memory }: Slot): Promise<void> {
    await this.#backing.store(unit, memory)
    this.#stored[unit] = 1
    this.#storing.delete(unit)
  }

  #takeSlab(): void {
    const count = Math.min(this.#memoryBudget, Math.max(1, Math.floor(slabBytes / this.#unitBytes)))
    this.#memoryBudget -= count
    const slab = alignedMemory(count * this.#unitBytes)
    for (let start = 0; start < slab.byteLength; start += this.#unitBytes) {
      this.#freeMemory.push(slab.subarray(start, start + this.#unitBytes))
    }
  }
}
