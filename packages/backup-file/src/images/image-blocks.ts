import { type HandleRun, pace, SpillwayError } from '@spillway/core'
import { isReference, mostInlineBytes, type Piece, type Reference } from './image-code.ts'
import { blockSum, handleCount, isSameSum, offsetOf, type StoreFile, type StoreLayout } from './store-file.ts'

/** Bytes that are copied while one goes through SHA-256. */
const summedFactor = 8
/** What is read or written at once. */
const batchBytes = 2 ** 20

/** Blocks of metadata in slots of a file. */
export class ImageBlocks {
  readonly #file: StoreFile
  readonly #layout: StoreLayout

  constructor(file: StoreFile, layout: StoreLayout) {
    this.#file = file
    this.#layout = layout
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
        references.push({ runs, lengthBytes: block.byteLength, sum: blockSum(block) })
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

  /** The same, but for those that are short enough to lie in a node. */
  async writePieces(
    blocks: readonly Uint8Array[],
    take: (slots: number) => Promise<readonly HandleRun[]>,
  ): Promise<Piece[]> {
    const isLong = ({ byteLength }: Uint8Array) => byteLength > mostInlineBytes
    const references = await this.write(blocks.filter(isLong), take)
    let next = 0
    return blocks.map((block) => (isLong(block) ? references[next++]! : block))
  }

  /** Reads blocks. Rejects with `EBADMSG` for one that is not what its reference says. */
  async read(references: readonly Reference[]): Promise<Uint8Array[]> {
    const blocks: Uint8Array[] = []
    await this.#readEach(references, (block) => void blocks.push(block.slice()))
    return blocks
  }

  /** Reads pieces and shows them one after the other, each for the moment. Rejects as `read`, and with what `visit` throws. */
  async readPieces(pieces: readonly Piece[], visit: (bytes: Uint8Array) => void): Promise<void> {
    let next = 0
    const visitInline = () => {
      for (; next < pieces.length; next++) {
        const piece = pieces[next]!
        if (isReference(piece)) return
        visit(piece)
      }
    }
    await this.#readEach(pieces.filter(isReference), (block) => {
      visitInline()
      next++
      visit(block)
    })
    visitInline()
  }

  /** Shows each block for the moment. While one is looked at, those that come next are being read. */
  async #readEach(references: readonly Reference[], visit: (block: Uint8Array) => void): Promise<void> {
    const batches = this.#batches(references, ({ lengthBytes }) => lengthBytes)
    let [memory, other] = [new Uint8Array(0), new Uint8Array(0)]
    const read = async (batch: readonly Reference[] | undefined) => {
      if (batch === undefined) return undefined
      const bytes = batch.reduce((sum, { runs }) => sum + handleCount(runs), 0) * this.#layout.pageSizeBytes
      ;[memory, other] = [other.byteLength < bytes ? new Uint8Array(bytes) : other, memory]
      const filled = memory.subarray(0, bytes)
      await this.#move(batch, filled, (part, offset) => this.#file.read(part, offset))
      return { batch, filled }
    }
    let coming = read(batches.next().value)
    try {
      for (let found = await coming; found !== undefined; found = await coming) {
        coming = read(batches.next().value)
        // Whether it failed is seen when what came before it was shown.
        coming.catch(() => {})
        await this.#show(found.batch, found.filled, visit)
      }
    } finally {
      // Nobody reads from a file that may be closed next.
      await coming.catch(() => {})
    }
  }

  async #show(
    references: readonly Reference[],
    memory: Uint8Array,
    visit: (block: Uint8Array) => void,
  ): Promise<void> {
    let at = 0
    for (const { runs, lengthBytes, sum } of references) {
      const turn = pace(lengthBytes * summedFactor)
      if (turn !== undefined) await turn
      const block = memory.subarray(at, at + lengthBytes)
      if (!isSameSum(blockSum(block), sum)) throw damaged()
      visit(block)
      at += handleCount(runs) * this.#layout.pageSizeBytes
    }
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
