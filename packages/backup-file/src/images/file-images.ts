import { type HandleRun, type HandleRuns, type ImageChange, type ImageMedium, pace } from '@spillway/core'
import { damaged, ImageBlocks } from './image-blocks.ts'
import {
  type BlockEntry,
  encodeEntries,
  encodePages,
  encodeReferences,
  isReference,
  nodeEntries,
  type Reference,
} from './image-code.ts'
import { encodeRoot, type ImageEntry, type Root, rootOffset } from './root.ts'
import { type StoreFile, type StoreLayout, StoreSync } from './store-file.ts'

/** Bytes that are copied while one is encoded. */
const encodedFactor = 16
/** Blocks of a body that are encoded before they are written. */
const encodedBlocks = 256

/** Where an image lies. */
export interface ImagePlace {
  /** By block of the body. */
  readonly entries: readonly BlockEntry[]
  /** First the nodes above up to 64 blocks each; then those above up to 64 of them; at last only the top. */
  readonly nodes: readonly (readonly Reference[])[]
  /** Whether metadata of it did not match when the store was opened; then nothing is known of what it keeps. */
  readonly isDamaged: boolean
  /** What another image that follows this one does not use; all of it when there is none. */
  replaced?: readonly Reference[]
}

/** The slots that metadata takes, and what is known of the pages that images keep. */
export interface ImageSlots {
  /** So many slots, or rejects with `ENOSPC` and takes none. */
  take(count: number): Promise<readonly HandleRun[]>
  giveBack(runs: readonly HandleRun[]): void
  /** An image whose slots are not known is gone. */
  forgetDamaged(): Promise<void>
  /** The sums of these pages, in order. */
  sumsOf(runs: HandleRuns): Int32Array
  /** The last generation that slots were given. */
  readonly generation: number
}

export interface FileImagesParts {
  readonly backup: string
  readonly file: StoreFile
  readonly layout: StoreLayout
  /** Random, of this store alone. */
  readonly key: Uint8Array
  readonly slots: ImageSlots
}

/**
 * Images in the slots of a file. A save writes
 *
 *   1   pages of the buffer, before, by whoever stores them
 *   2   blocks and nodes, to slots that no durable root names
 *   3   sync: all that the new root names is durable before the root is written
 *   4   the root with the next sequence, over the older one
 *   5   sync: the root is durable before the save resolves and before a slot is used again
 *   6   nothing: slots that only the old image named are free
 *
 * A failure in 2 gives back what was taken; nothing durable was touched. From a failure in 3 to 5 on nothing is saved any more.
 */
export class FileImages implements ImageMedium<ImagePlace> {
  readonly sync: StoreSync
  readonly #parts: FileImagesParts
  readonly #blocks: ImageBlocks
  #root: Root

  /** `root` is the one that was found. */
  constructor(parts: FileImagesParts, root: Root) {
    const { backup, file, layout } = parts
    this.sync = new StoreSync(backup, file)
    this.#parts = parts
    this.#blocks = new ImageBlocks(file, layout)
    this.#root = root
  }

  get isUncertain(): boolean {
    return this.sync.hasFailed
  }

  async write(change: ImageChange, before: ImagePlace | undefined): Promise<ImagePlace> {
    this.sync.assertSound()
    const taken: HandleRun[] = []
    let written: { place: ImagePlace; replaced: readonly Reference[] }
    let root: Root
    let bytes: Uint8Array
    try {
      written = await this.#writeTree(change, before, taken)
      const { revision, blockCount } = change
      const top = written.place.nodes.at(-1)?.[0]
      const entry = { revision, blockCount, top }
      root = this.#nextRoot(change.name, new Map(this.#root.images).set(change.name, entry))
      bytes = this.#encoded(root)
      await this.#parts.file.assertUnchanged?.()
    } catch (failure) {
      this.#parts.slots.giveBack(taken)
      throw failure
    }
    await this.sync.sync()
    await this.#publish(root, bytes)
    if (before !== undefined) before.replaced = written.replaced
    return written.place
  }

  assertWhole(name: string, place: ImagePlace): void {
    if (place.isDamaged) throw damaged(`metadata of image ${name} is damaged`)
  }

  async read(name: string, place: ImagePlace): Promise<Uint8Array[]> {
    this.assertWhole(name, place)
    const body: Uint8Array[] = []
    // A copy: the caller may keep it, and what it was read with is larger.
    await this.#blocks.readPieces(
      place.entries.map((entry) => entry.body),
      (bytes) => void body.push(bytes.slice()),
    )
    return body
  }

  async remove(name: string): Promise<void> {
    this.sync.assertSound()
    const images = new Map(this.#root.images)
    images.delete(name)
    const root = this.#nextRoot(name, images)
    await this.#parts.file.assertUnchanged?.()
    await this.#publish(root, this.#encoded(root))
  }

  async forget(place: ImagePlace): Promise<void> {
    if (place.isDamaged) return await this.#parts.slots.forgetDamaged()
    const unused = place.replaced ?? referencesOf(place)
    this.#parts.slots.giveBack(unused.flatMap(({ runs }) => runs))
  }

  /** Writes the blocks that changed and the nodes above them; what it takes goes to `taken`. */
  async #writeTree(
    change: ImageChange,
    before: ImagePlace | undefined,
    taken: HandleRun[],
  ): Promise<{ place: ImagePlace; replaced: readonly Reference[] }> {
    const take = async (count: number) => {
      const runs = await this.#parts.slots.take(count)
      taken.push(...runs)
      return runs
    }
    const replaced: Reference[] = []
    const entries = [...(before?.entries ?? [])]
    let changed = change.changed.map(({ index }) => index)
    for (const index of changed) if (entries[index] !== undefined) replaced.push(...partsOf(entries[index]))
    await this.#writeBlocks(change, entries, take)
    const nodes: Reference[][] = []
    for (let above = entries.length; above > 1 || nodes.length === 0; ) {
      above = Math.ceil(above / nodeEntries)
      if (above === 0) break
      changed = [...new Set(changed.map((position) => Math.floor(position / nodeEntries)))]
      const blocks = changed.map((node) => encodeNode(node, entries, nodes.at(-1)))
      const old = before?.nodes[nodes.length] ?? []
      const level = [...old]
      const references = await this.#blocks.write(blocks, take)
      for (const [index, node] of changed.entries()) {
        if (old[node] !== undefined) replaced.push(old[node])
        level[node] = references[index]!
      }
      nodes.push(level)
    }
    return { place: { entries, nodes, isDamaged: false }, replaced }
  }

  /** Writes the changed blocks, those of many side by side: first what is read at an opening, then what a load reads. */
  async #writeBlocks(
    { changed, keeps }: ImageChange,
    entries: BlockEntry[],
    take: (count: number) => Promise<readonly HandleRun[]>,
  ): Promise<void> {
    for (let first = 0; first < changed.length; first += encodedBlocks) {
      const some = changed.slice(first, first + encodedBlocks)
      const kept: Uint8Array[] = []
      for (const position of some.keys()) {
        const runs = keeps[first + position]!
        kept.push(encodePages(runs, this.#parts.slots.sumsOf(runs)))
        const turn = pace(kept[position]!.byteLength * encodedFactor)
        if (turn !== undefined) await turn
      }
      const pages = await this.#blocks.writePieces(kept, take)
      const bodies = await this.#blocks.writePieces(
        some.map(({ bytes }) => bytes),
        take,
      )
      // A copy of what lies in nodes: the caller's memory is his own afterwards.
      for (const [position, { index }] of some.entries()) {
        const body = bodies[position]!
        entries[index] = { body: isReference(body) ? body : body.slice(), pages: pages[position]! }
      }
    }
  }

  /** Notes for the next opening which images are damaged, unless it is known: what is stored from now on is not theirs. */
  async noteDamaged(damaged: ReadonlyMap<string, number>): Promise<void> {
    const { images, damaged: known } = this.#root
    this.#root = { ...this.#root, damaged }
    if ([...damaged.keys()].every((name) => known.has(name))) return
    const root = { ...this.#nextRoot(undefined, images), damaged }
    await this.#publish(root, this.#encoded(root))
  }

  /** `changed`: the image that is saved or removed, and not damaged any more. */
  #nextRoot(changed: string | undefined, images: ReadonlyMap<string, ImageEntry>): Root {
    const damaged = new Map([...this.#root.damaged].filter(([name]) => name !== changed))
    return { sequence: this.#root.sequence + 1, generation: this.#parts.slots.generation, images, damaged }
  }

  #encoded(root: Root): Uint8Array {
    return encodeRoot(root, this.#parts.key, this.#parts.layout)
  }

  async #publish(root: Root, bytes: Uint8Array): Promise<void> {
    await this.sync.writeDurably(bytes, rootOffset(root, this.#parts.layout))
    this.#root = root
  }
}

/** A node above blocks, or above nodes where there are some. */
function encodeNode(
  node: number,
  entries: readonly BlockEntry[],
  nodes: readonly Reference[] | undefined,
): Uint8Array {
  const [from, to] = [node * nodeEntries, (node + 1) * nodeEntries]
  return nodes === undefined
    ? encodeEntries(entries.slice(from, to))
    : encodeReferences(nodes.slice(from, to))
}

function partsOf({ body, pages }: BlockEntry): Reference[] {
  return [body, pages].filter(isReference)
}

/** All blocks of metadata that an image has in slots. */
export function referencesOf({ entries, nodes }: ImagePlace): Reference[] {
  return [...entries.flatMap(partsOf), ...nodes.flat()]
}
