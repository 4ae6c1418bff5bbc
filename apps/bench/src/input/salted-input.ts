import { closeSync, fstatSync, openSync, readSync } from 'node:fs'
import type { InputPlan, ItemLayout } from './plan.ts'
import { applySalt } from './salt.ts'

/** Bytes that share one version: the smallest piece that a workload rewrites. */
export const versionedBytes = 64 * 1024

/** How often each piece of the data was rewritten: what its bytes must be now. */
export class VersionTable {
  readonly #versions: Uint32Array

  constructor(dataBytes: number) {
    this.#versions = new Uint32Array(Math.ceil(dataBytes / versionedBytes))
  }

  versionAt(position: number): number {
    return this.#versions[Math.floor(position / versionedBytes)]
  }

  /** The piece that begins at `position` is now one version further. */
  advance(position: number): number {
    return ++this.#versions[Math.floor(position / versionedBytes)]
  }

  /** Whether any byte from `position` on was ever rewritten. */
  wasRewritten(position: number, lengthBytes: number): boolean {
    const last = Math.floor((position + lengthBytes - 1) / versionedBytes)
    for (let piece = Math.floor(position / versionedBytes); piece <= last; piece++) {
      if (this.#versions[piece] !== 0) return true
    }
    return false
  }
}

/**
 * Reads the data that the plan describes, salted, from the real files into memory that the caller brings. It holds no
 * memory of its own but one open file.
 */
export class SaltedInput implements Disposable {
  readonly #layout: ItemLayout
  readonly #plan: InputPlan
  readonly #versions: VersionTable
  #openItem = -1
  #descriptor = -1

  constructor(layout: ItemLayout, versions: VersionTable) {
    this.#layout = layout
    this.#plan = layout.plan
    this.#versions = versions
  }

  /** Fills `memory` with the data from `position` on; both are multiples of 512 bytes. */
  read(position: number, memory: Uint8Array): void {
    let filled = 0
    while (filled < memory.byteLength) {
      const item = this.#layout.itemAt(position + filled)
      const offset = position + filled - this.#layout.startOf(item)
      const length = Math.min(memory.byteLength - filled, this.#layout.lengthOf(item) - offset)
      this.#readFile(item, offset, memory.subarray(filled, filled + length))
      filled += length
    }
    for (let start = 0; start < memory.byteLength; ) {
      const untilNextVersion = versionedBytes - ((position + start) % versionedBytes)
      const piece = memory.subarray(start, Math.min(memory.byteLength, start + untilNextVersion))
      const version = this.#versions.versionAt(position + start)
      applySalt(piece, position + start, version, this.#plan.seed)
      start += piece.byteLength
    }
  }

  #readFile(item: number, offset: number, memory: Uint8Array): void {
    const { path, lengthBytes, changedMs } = this.#layout.fileOf(item)
    if (this.#openItem !== item) {
      this[Symbol.dispose]()
      this.#descriptor = openSync(path, 'r')
      this.#openItem = item
      const { size, mtimeMs } = fstatSync(this.#descriptor)
      if (size !== lengthBytes || mtimeMs !== changedMs) throw changedError(path)
    }
    let done = 0
    while (done < memory.byteLength) {
      const count = readSync(this.#descriptor, memory, done, memory.byteLength - done, offset + done)
      if (count === 0) throw changedError(path)
      done += count
    }
  }

  [Symbol.dispose](): void {
    if (this.#descriptor !== -1) closeSync(this.#descriptor)
    this.#descriptor = -1
    this.#openItem = -1
  }
}

function changedError(path: string): Error {
  return new Error(`input file ${path} changed while the bench was running; give input that stays as it is`)
}
