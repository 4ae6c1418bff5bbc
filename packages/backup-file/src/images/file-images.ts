import type { HandleRun, ImageChange, ImageMedium } from '@spillway/core'
import {
  bodyOf,
  damaged,
  encodeLeaves,
  encodeNode,
  ImageBlocks,
  nodeReferences,
  type Reference,
} from './image-blocks.ts'
import { encodeRoot, type ImageEntry, type Root, rootOffset } from './root.ts'
import { type StoreFile, type StoreLayout, StoreSync } from './store-file.ts'

/** Where an image lies. */
export interface ImagePlace {
  /** First the leaves, by block; then the nodes above, each of up to 64; at last only the top. */
  readonly levels: readonly (readonly Reference[])[]
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
  sumsOf(runs: readonly HandleRun[]): Int32Array
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
 *   2   leaves and nodes, to slots that no durable root names
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
    const { backup, file, layout, key } = parts
    this.sync = new StoreSync(backup, file)
    this.#parts = parts
    this.#blocks = new ImageBlocks(file, layout, key)
    this.#root = root
  }

  get isUncertain(): boolean {
    return this.sync.hasFailed
  }

  async write(change: ImageChange, before: ImagePlace | undefined): Promise<ImagePlace> {
    this.sync.assertSound()
    if (before?.isDamaged) throw damaged(`metadata of image ${change.name} is damaged`)
    const taken: HandleRun[] = []
    let written: { place: ImagePlace; replaced: readonly Reference[] }
    let root: Root
    let bytes: Uint8Array
    try {
      written = await this.#writeTree(change, before, taken)
      const { revision, blockCount } = change
      const top = blockCount === 0 ? undefined : written.place.levels.at(-1)![0]
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

  async read(name: string, place: ImagePlace): Promise<Uint8Array[]> {
    if (place.isDamaged) throw damaged(`metadata of image ${name} is damaged`)
    return (await this.#blocks.read(place.levels[0]!)).map(bodyOf)
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
    const unused = place.replaced ?? place.levels.flat()
    this.#parts.slots.giveBack(unused.flatMap(({ runs }) => runs))
  }

  /** Writes the blocks that changed and the nodes above them; what it takes goes to `taken`. */
  async #writeTree(
    { blockCount, changed, keeps }: ImageChange,
    before: ImagePlace | undefined,
    taken: HandleRun[],
  ): Promise<{ place: ImagePlace; replaced: readonly Reference[] }> {
    const { slots } = this.#parts
    const take = async (count: number) => {
      const runs = await slots.take(count)
      taken.push(...runs)
      return runs
    }
    const levels: Reference[][] = []
    const replaced: Reference[] = []
    let positions = changed.map(({ index }) => index)
    let blocks = await encodeLeaves(
      (function* () {
        for (const [index, { bytes }] of changed.entries())
          yield { bytes, keeps: keeps[index]!, sums: slots.sumsOf(keeps[index]!) }
      })(),
    )
    for (let length = blockCount; ; length = Math.ceil(length / nodeReferences)) {
      const old = before?.levels[levels.length] ?? []
      const level = [...old]
      const references = await this.#blocks.write(blocks, take)
      for (const [index, position] of positions.entries()) {
        if (old[position] !== undefined) replaced.push(old[position])
        level[position] = references[index]!
      }
      levels.push(level)
      if (length <= 1) break
      positions = [...new Set(positions.map((position) => Math.floor(position / nodeReferences)))]
      blocks = positions.map((node) =>
        encodeNode(level.slice(node * nodeReferences, (node + 1) * nodeReferences)),
      )
    }
    return { place: { levels, isDamaged: false }, replaced }
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
