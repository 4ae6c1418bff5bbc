import { ByteReader, ByteWriter, type HandleRun, pace, SpillwayError } from '@spillway/core'
import {
  handleCount,
  isSameSum,
  keyedSum,
  offsetOf,
  type StoreFile,
  type StoreLayout,
  sumBytes,
} from './store-file.ts'

/** Where a block of metadata lies, and how to tell that it is the one that was meant. */
export interface Reference {
  /** Slots, as handles. */
  readonly runs: readonly HandleRun[]
  readonly lengthBytes: number
  readonly sum: Uint8Array
}

/** One block of the body of an image, what it keeps, and the sums of those pages. */
export interface Leaf {
  readonly bytes: Uint8Array
  readonly keeps: readonly HandleRun[]
  /** By page of `keeps`, in order. */
  readonly sums: Int32Array
}

/** References of one node. */
export const nodeReferences = 64
/** Bytes that are copied while one is encoded, or decoded. */
const encodedFactor = 16
const decodedFactor = 4
/** Bytes that are copied while one goes through SHA-256. */
const summedFactor = 8
/** What is read or written at once. */
const batchBytes = 2 ** 20

function encodeLeaf({ bytes, keeps, sums }: Leaf): Uint8Array {
  const writer = new ByteWriter()
  writer.number(bytes.byteLength)
  writer.raw(bytes)
  writeRuns(writer, keeps)
  for (const sum of sums) writer.word(sum)
  return writer.bytes
}

/** What a leaf has of the body. Throws `RangeError` for what is no leaf. */
export function bodyOf(block: Uint8Array): Uint8Array {
  const reader = new ByteReader(block)
  return reader.raw(reader.number())
}

/** Throws `RangeError` for what is no leaf. */
function decodeLeaf(block: Uint8Array): Leaf {
  const reader = new ByteReader(block)
  const bytes = reader.raw(reader.number())
  const keeps = readRuns(reader)
  return { bytes, keeps, sums: wordsOf(reader.raw(handleCount(keeps) * 4)) }
}

/** Words of 32 bits, the lowest byte first: there are millions of them. */
function wordsOf(bytes: Uint8Array): Int32Array {
  const words = new Int32Array(bytes.byteLength / 4)
  if (isLittleEndian) {
    new Uint8Array(words.buffer).set(bytes)
  } else {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    for (let index = 0; index < words.length; index++) words[index] = view.getInt32(index * 4, true)
  }
  return words
}

const isLittleEndian = new Uint8Array(Uint32Array.of(1).buffer)[0] === 1

/** Leaves of many blocks, with turns of the event loop between. */
export async function decodeLeaves(blocks: readonly Uint8Array[]): Promise<Leaf[]> {
  const leaves: Leaf[] = []
  for (const block of blocks) {
    leaves.push(decodeLeaf(block))
    const turn = pace(block.byteLength * decodedFactor)
    if (turn !== undefined) await turn
  }
  return leaves
}

/** The other way about. */
export async function encodeLeaves(leaves: Iterable<Leaf>): Promise<Uint8Array[]> {
  const blocks: Uint8Array[] = []
  for (const leaf of leaves) {
    const block = encodeLeaf(leaf)
    blocks.push(block)
    const turn = pace(block.byteLength * encodedFactor)
    if (turn !== undefined) await turn
  }
  return blocks
}

export function encodeNode(references: readonly Reference[]): Uint8Array {
  const writer = new ByteWriter()
  writer.number(references.length)
  for (const reference of references) writeReference(writer, reference)
  return writer.bytes
}

/** Throws `RangeError` for what is no node. */
export function decodeNode(block: Uint8Array): Reference[] {
  const reader = new ByteReader(block)
  return Array.from({ length: reader.number() }, () => readReference(reader))
}

export function writeReference(writer: ByteWriter, { runs, lengthBytes, sum }: Reference): void {
  writeRuns(writer, runs)
  writer.number(lengthBytes)
  writer.raw(sum)
}

export function readReference(reader: ByteReader): Reference {
  return { runs: readRuns(reader), lengthBytes: reader.number(), sum: reader.raw(sumBytes).slice() }
}

function writeRuns(writer: ByteWriter, runs: readonly HandleRun[]): void {
  writer.number(runs.length)
  for (const { first, count } of runs) {
    writer.number(first)
    writer.number(count)
  }
}

function readRuns(reader: ByteReader): HandleRun[] {
  return Array.from({ length: reader.number() }, () => ({ first: reader.number(), count: reader.number() }))
}

/** Blocks of metadata in slots of a file. */
export class ImageBlocks {
  readonly #file: StoreFile
  readonly #layout: StoreLayout
  readonly #key: Uint8Array

  constructor(file: StoreFile, layout: StoreLayout, key: Uint8Array) {
    this.#file = file
    this.#layout = layout
    this.#key = key
  }

  /** Writes blocks, none of them empty, to slots that `take` gives for so many. */
  async write(
    blocks: readonly Uint8Array[],
    take: (slots: number) => Promise<readonly HandleRun[]>,
  ): Promise<Reference[]> {
    const references: Reference[] = []
    for (const batch of this.#batches(blocks, ({ byteLength }) => byteLength)) {
      const counts = batch.map(({ byteLength }) => this.#slotsOf(byteLength))
      const slots = counts.reduce((sum, count) => sum + count, 0)
      const left = (await take(slots)).map((run) => ({ ...run }))
      const { pageSizeBytes } = this.#layout
      const memory = new Uint8Array(slots * pageSizeBytes)
      let slot = 0
      for (const [index, block] of batch.entries()) {
        memory.set(block, slot * pageSizeBytes)
        const runs = draw(left, counts[index]!)
        references.push({ runs, lengthBytes: block.byteLength, sum: keyedSum(this.#key, block) })
        slot += counts[index]!
      }
      await this.#move(references.slice(-batch.length), memory, (part, offset) =>
        this.#file.write(part, offset),
      )
      const turn = pace(memory.byteLength * summedFactor)
      if (turn !== undefined) await turn
    }
    return references
  }

  /** Reads blocks. Rejects with `EBADMSG` for one that is not what its reference says. */
  async read(references: readonly Reference[]): Promise<Uint8Array[]> {
    const blocks: Uint8Array[] = []
    const { pageSizeBytes } = this.#layout
    for (const batch of this.#batches(references, ({ lengthBytes }) => lengthBytes)) {
      const memory = new Uint8Array(handleCount(batch.flatMap(({ runs }) => runs)) * pageSizeBytes)
      await this.#move(batch, memory, (part, offset) => this.#file.read(part, offset))
      let at = 0
      for (const { runs, lengthBytes, sum } of batch) {
        const block = memory.subarray(at, at + lengthBytes)
        if (!isSameSum(keyedSum(this.#key, block), sum)) throw damaged()
        blocks.push(block)
        at += handleCount(runs) * pageSizeBytes
      }
      const turn = pace(memory.byteLength * summedFactor)
      if (turn !== undefined) await turn
    }
    return blocks
  }

  /** Moves the slots of these references, one after the other in `memory`; adjacent ones at once. */
  async #move(
    references: readonly Reference[],
    memory: Uint8Array,
    part: (bytes: Uint8Array, offsetBytes: number) => Promise<void>,
  ): Promise<void> {
    const { pageSizeBytes } = this.#layout
    let at = 0
    for (const { offsetBytes, lengthBytes } of this.#extents(references)) {
      await part(memory.subarray(at, at + lengthBytes), offsetBytes)
      at += lengthBytes
    }
    if (at !== memory.byteLength) throw new RangeError(`${at / pageSizeBytes} slots of metadata are not all`)
  }

  #extents(references: readonly Reference[]): { offsetBytes: number; lengthBytes: number }[] {
    const extents: { offsetBytes: number; lengthBytes: number }[] = []
    for (const { first, count } of references.flatMap(({ runs }) => runs)) {
      const offsetBytes = offsetOf(first, this.#layout)
      const lengthBytes = count * this.#layout.pageSizeBytes
      const last = extents.at(-1)
      if (last !== undefined && last.offsetBytes + last.lengthBytes === offsetBytes)
        last.lengthBytes += lengthBytes
      else extents.push({ offsetBytes, lengthBytes })
    }
    return extents
  }

  #slotsOf(lengthBytes: number): number {
    return Math.ceil(lengthBytes / this.#layout.pageSizeBytes)
  }

  *#batches<Item>(items: readonly Item[], lengthOf: (item: Item) => number): Generator<Item[]> {
    let batch: Item[] = []
    let bytes = 0
    for (const item of items) {
      const length = this.#slotsOf(lengthOf(item)) * this.#layout.pageSizeBytes
      if (batch.length > 0 && bytes + length > batchBytes) {
        yield batch
        batch = []
        bytes = 0
      }
      batch.push(item)
      bytes += length
    }
    if (batch.length > 0) yield batch
  }
}

/** Takes the first `count` handles off these runs. */
function draw(left: { first: number; count: number }[], count: number): HandleRun[] {
  const runs: HandleRun[] = []
  for (let wanted = count; wanted > 0; ) {
    const run = left[0]!
    const taken = Math.min(wanted, run.count)
    runs.push({ first: run.first, count: taken })
    run.first += taken
    run.count -= taken
    wanted -= taken
    if (run.count === 0) left.shift()
  }
  return runs
}

export function damaged(what = 'metadata of an image is damaged'): SpillwayError {
  return new SpillwayError('EBADMSG', what)
}
