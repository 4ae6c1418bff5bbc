import { createHash, type Hash, hash } from 'node:crypto'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { type InputPlan, ItemLayout } from '../input/plan.ts'
import { sectorBytes } from '../input/salt.ts'
import { SaltedInput } from '../input/salted-input.ts'
import { blockBytes, DataLedger } from './ledger.ts'
import type { BufferStore } from './store.ts'

const hashBytes = 32
/** Input and output pass through memory of this size; nothing here ever holds more of the data. */
export const stagingBytes = 1024 * 1024

/** Told how many bytes of the phase are done. */
export type Progress = (doneBytes: number, totalBytes: number) => void

/** The SHA-256 of every item as it was written, in one array. */
export class ItemHashes {
  readonly layout: ItemLayout
  readonly #hashes: Uint8Array

  constructor(layout: ItemLayout) {
    this.layout = layout
    this.#hashes = new Uint8Array(layout.itemCount * hashBytes)
  }

  set(item: number, hash: Uint8Array): void {
    this.#hashes.set(hash, item * hashBytes)
  }

  equals(item: number, hash: Uint8Array): boolean {
    return Buffer.compare(this.#hashes.subarray(item * hashBytes, (item + 1) * hashBytes), hash) === 0
  }
}

/**
 * Cuts a stream of data into items and hands out the SHA-256 of each as it ends. An item that lies whole in one piece is
 * hashed in one call: thousands of hash objects for small files would be garbage in the memory that is being measured.
 */
class ItemHasher {
  readonly #layout: ItemLayout
  #item: number
  #remaining: number
  #hash: Hash | undefined

  constructor(layout: ItemLayout, firstItem = 0) {
    this.#layout = layout
    this.#item = firstItem
    this.#remaining = layout.lengthOf(firstItem)
  }

  update(memory: Uint8Array, finished: (item: number, hash: Uint8Array) => void): void {
    for (let start = 0; start < memory.byteLength; ) {
      const length = Math.min(this.#remaining, memory.byteLength - start)
      const piece = memory.subarray(start, start + length)
      start += length
      this.#remaining -= length
      if (this.#remaining > 0) {
        this.#hash ??= createHash('sha256')
        this.#hash.update(piece)
        continue
      }
      finished(this.#item, this.#hash?.update(piece).digest() ?? hash('sha256', piece, 'buffer'))
      this.#hash = undefined
      this.#item++
      if (this.#item === this.#layout.itemCount) return
      this.#remaining = this.#layout.lengthOf(this.#item)
    }
  }
}

/** Streams the real files into the store, and keeps the SHA-256 of each and the quick sums. */
export async function loadData(
  store: BufferStore,
  ledger: DataLedger,
  staging: Uint8Array,
  progress: Progress,
): Promise<ItemHashes> {
  const layout = new ItemLayout(ledger.plan)
  const hashes = new ItemHashes(layout)
  const hasher = new ItemHasher(layout)
  using input = new SaltedInput(layout, ledger.versions)
  const { bufferBytes, dataBytes } = ledger.plan
  for (let position = 0; position < dataBytes; position += staging.byteLength) {
    const memory = staging.subarray(0, Math.min(staging.byteLength, dataBytes - position))
    input.read(position, memory)
    ledger.record(position, memory)
    hasher.update(memory, (item, digest) => hashes.set(item, digest))
    for (let start = 0; start < memory.byteLength; ) {
      const offset = (position + start) % bufferBytes
      const length = Math.min(bufferBytes - offset, memory.byteLength - start)
      const buffer = Math.floor((position + start) / bufferBytes)
      await store.write(buffer, offset, memory.subarray(start, start + length))
      start += length
    }
    progress(position + memory.byteLength, dataBytes)
    await nextTurn()
  }
  return hashes
}

/** Bytes that a rehearsal reads. */
const rehearsedBytes = 64 * 1024 * 1024

/**
 * Reads and hashes some of the input into nothing, so that whatever memory the bench itself takes for that (code, heap,
 * hashes) is there before anything is measured. Resolves to the milliseconds that all of the data would take.
 */
export async function rehearse(plan: InputPlan, staging: Uint8Array): Promise<number> {
  const nowhere: BufferStore = {
    write: () => Promise.resolve(),
    read: () => Promise.resolve(),
    touch: () => Promise.resolve(),
    stats: () => undefined,
    [Symbol.asyncDispose]: () => Promise.resolve(),
  }
  const dataBytes = Math.min(plan.dataBytes, Math.ceil(rehearsedBytes / plan.bufferBytes) * plan.bufferBytes)
  const startMs = performance.now()
  await loadData(nowhere, new DataLedger({ ...plan, dataBytes }), staging, () => {})
  return ((performance.now() - startMs) * plan.dataBytes) / dataBytes
}

/** What was found when everything was read back. */
export interface Verification {
  /** Bytes that were read back and belong to files whose SHA-256 is right. */
  readonly verifiedBytes: number
  /** Bytes that were read back and are not what was written. */
  readonly wrongBytes: number
  /** Pages that could not be read back at all. */
  readonly lostPages: number
  readonly wrongFiles: readonly string[]
  readonly errors: string[]
}

/**
 * Reads every file back and compares its SHA-256 with the one of what was written last: kept from loading where nothing
 * was rewritten, computed anew from the real file where something was. The bytes of a file that differs are counted one
 * by one.
 */
export async function verifyData(
  store: BufferStore,
  ledger: DataLedger,
  hashes: ItemHashes,
  staging: Uint8Array,
  progress: Progress,
): Promise<Verification> {
  const { layout } = hashes
  await refreshHashes(ledger, hashes, staging)
  const reader = new BackReader(store, ledger, staging)
  const hasher = new ItemHasher(layout)
  const wrongItems: number[] = []
  let verifiedBytes = 0
  const { dataBytes } = ledger.plan
  for (let position = 0; position < dataBytes; position += staging.byteLength) {
    const memory = await reader.read(position, Math.min(staging.byteLength, dataBytes - position))
    hasher.update(memory, (item, digest) => {
      if (hashes.equals(item, digest)) verifiedBytes += layout.lengthOf(item)
      else wrongItems.push(item)
    })
    progress(position + memory.byteLength, dataBytes)
    await nextTurn()
  }
  let wrongBytes = 0
  for (const item of wrongItems) wrongBytes += await countWrongBytes(reader, ledger, layout, item)
  return {
    verifiedBytes,
    wrongBytes,
    lostPages: reader.lostBlocks.size,
    wrongFiles: wrongItems.slice(0, 20).map((item) => layout.fileOf(item).path),
    errors: reader.errors,
  }
}

/** Computes the hashes anew of items of which something was rewritten: each run of neighbours in one stream. */
async function refreshHashes(ledger: DataLedger, hashes: ItemHashes, staging: Uint8Array): Promise<void> {
  const { layout } = hashes
  const wasRewritten = (item: number) =>
    ledger.versions.wasRewritten(layout.startOf(item), layout.lengthOf(item))
  using input = new SaltedInput(layout, ledger.versions)
  for (let first = 0; first < layout.itemCount; first++) {
    if (!wasRewritten(first)) continue
    let last = first
    while (last + 1 < layout.itemCount && wasRewritten(last + 1)) last++
    const start = layout.startOf(first)
    const end = layout.startOf(last) + layout.lengthOf(last)
    const hasher = new ItemHasher(layout, first)
    for (let position = start - (start % sectorBytes); position < end; position += staging.byteLength) {
      const memory = staging.subarray(0, Math.min(staging.byteLength, roundUp(end - position)))
      input.read(position, memory)
      const skipped = Math.max(0, start - position)
      hasher.update(memory.subarray(skipped, end - position), (item, digest) => hashes.set(item, digest))
      await nextTurn()
    }
    first = last
  }
}

/** Reads data back; what cannot be read is tried block by block, and counted. */
class BackReader {
  readonly lostBlocks = new Set<number>()
  readonly errors: string[] = []
  readonly #store: BufferStore
  readonly #bufferBytes: number
  readonly #staging: Uint8Array

  constructor(store: BufferStore, ledger: DataLedger, staging: Uint8Array) {
    this.#store = store
    this.#bufferBytes = ledger.plan.bufferBytes
    this.#staging = staging
  }

  async read(position: number, lengthBytes: number): Promise<Uint8Array> {
    const memory = this.#staging.subarray(0, lengthBytes)
    try {
      await this.#readInto(position, memory)
    } catch (failure) {
      const error = String(failure)
      if (this.errors.length < 5 && !this.errors.includes(error)) this.errors.push(error)
      for (let start = 0; start < lengthBytes; start += blockBytes) {
        const block = memory.subarray(start, start + blockBytes)
        await this.#readInto(position + start, block).catch(() => {
          block.fill(0)
          this.lostBlocks.add((position + start) / blockBytes)
        })
      }
    }
    return memory
  }

  async #readInto(position: number, memory: Uint8Array): Promise<void> {
    for (let start = 0; start < memory.byteLength; ) {
      const offset = (position + start) % this.#bufferBytes
      const length = Math.min(this.#bufferBytes - offset, memory.byteLength - start)
      const buffer = Math.floor((position + start) / this.#bufferBytes)
      await this.#store.read(buffer, offset, memory.subarray(start, start + length))
      start += length
    }
  }
}

/** Compares one item byte by byte with the real file; blocks that cannot be read are lost, not wrong. */
async function countWrongBytes(
  reader: BackReader,
  ledger: DataLedger,
  layout: ItemLayout,
  item: number,
): Promise<number> {
  const expected = new Uint8Array(blockBytes)
  using input = new SaltedInput(layout, ledger.versions)
  const start = layout.startOf(item)
  const end = start + layout.lengthOf(item)
  let wrong = 0
  for (let position = start - (start % blockBytes); position < end; position += blockBytes) {
    const found = await reader.read(position, blockBytes)
    if (reader.lostBlocks.has(position / blockBytes)) continue
    input.read(position, expected)
    for (let at = 0; at < blockBytes; at++) {
      if (position + at >= start && position + at < end && found[at] !== expected[at]) wrong++
    }
  }
  return wrong
}

function roundUp(bytes: number): number {
  return Math.ceil(bytes / sectorBytes) * sectorBytes
}
