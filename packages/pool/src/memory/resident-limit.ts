/** Memory of pools that can give up what is idle. */
export interface IdleMemory {
  readonly residentBytes: number
  /** Gives one idle chunk to the system; returns the pages given, 0 when there is none. */
  shrinkStep(): number
}

/**
 * What may be resident of all memories of a budget together: in use, idle or stranded. Whoever takes memory from the system
 * asks here first, and idle memory goes back for it: its own, then that of the others.
 */
export class ResidentLimit {
  limitBytes: number
  readonly #memories = new Set<IdleMemory>()

  constructor(limitBytes: number) {
    this.limitBytes = limitBytes
  }

  add(memory: IdleMemory): void {
    this.#memories.add(memory)
  }

  delete(memory: IdleMemory): void {
    this.#memories.delete(memory)
  }

  get residentBytes(): number {
    let bytes = 0
    for (const memory of this.#memories) bytes += memory.residentBytes
    return bytes
  }

  hasRoom(bytes: number): boolean {
    return this.residentBytes + bytes <= this.limitBytes
  }

  /** Has idle memory given back until so many bytes may be taken; false when even that leaves no room. */
  makeRoom(bytes: number, own: IdleMemory): boolean {
    while (!this.hasRoom(bytes)) {
      if (own.shrinkStep() === 0 && !this.#shrinkOthers(own)) return false
    }
    return true
  }

  #shrinkOthers(own: IdleMemory): boolean {
    for (const memory of this.#memories) if (memory !== own && memory.shrinkStep() > 0) return true
    return false
  }
}
