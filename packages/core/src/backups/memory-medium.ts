import type { BackupStats, HandleRun } from '../contract.ts'
import { SpillwayError } from '../errors.ts'
import type { HandleRuns } from '../handle-runs.ts'
import { type ImageChange, type ImageMedium, ImageTable, type KeptImage } from '../images/image-table.ts'
import { PageHolds } from '../images/page-holds.ts'
import { SlotAllocator } from '../slots/slot-allocator.ts'
import { SlabStore } from './slab-store.ts'

/** Bodies of images by block. */
type Body = readonly Uint8Array[]

/**
 * What a memory backup leaves: images and their pages. One backup at a time is open in it; the next one finds the images, and of the
 * pages those that images name.
 */
export class MemoryMedium {
  #kept: KeptPages | undefined
  #isOpen = false

  /** @internal Throws `EBUSY` when a backup is open in it, `EINVAL` when it has pages of another size or another capacity. */
  open(backup: string, pageSizeBytes: number, capacityPages: number): KeptPages {
    if (this.#isOpen) throw new SpillwayError('EBUSY', 'another backup is open in the medium', { backup })
    this.#kept ??= new KeptPages(pageSizeBytes, capacityPages, () => {
      this.#isOpen = false
    })
    const { pageSizeBytes: foundBytes, slots } = this.#kept
    if (foundBytes !== pageSizeBytes || slots.capacitySlots !== capacityPages) {
      const found = `${slots.capacitySlots} pages of ${foundBytes} bytes`
      throw new SpillwayError('EINVAL', `the medium was made for ${found}`, { backup })
    }
    this.#isOpen = true
    return this.#kept
  }
}

/** The pages of a memory backup; where there are images, who names them, and the images. */
export class KeptPages implements ImageMedium<Body> {
  readonly pageSizeBytes: number
  readonly slots: SlotAllocator
  readonly slabs: SlabStore
  readonly holds: PageHolds | undefined
  readonly isUncertain = false
  readonly #images = new Map<string, KeptImage<Body>>()
  readonly #closed: (() => void) | undefined

  /** `closed` is called when a backup in it was closed; without it there are no images, and nothing is left. */
  constructor(pageSizeBytes: number, capacityPages: number, closed?: () => void) {
    this.pageSizeBytes = pageSizeBytes
    this.slots = new SlotAllocator({ capacitySlots: capacityPages })
    this.slabs = new SlabStore(pageSizeBytes, capacityPages)
    if (closed !== undefined) this.holds = new PageHolds((handle) => this.slots.slotOf(handle))
    this.#closed = closed
  }

  get figures(): Pick<BackupStats, 'images'> & { readonly livePages?: number } {
    if (this.holds === undefined) return {}
    const images = { count: this.#images.size, onlyPages: this.holds.pagesOnlyOfImages }
    return { livePages: this.slots.liveSlots, images }
  }

  /** Returns one hold of each page, or none and the first handle that has none. */
  drop(handles: readonly HandleRun[]): number | undefined {
    if (this.holds === undefined) return this.#release(handles)
    const notLive = this.slots.firstNotLive(handles)
    if (notLive !== undefined) return notLive
    const { released, stale } = this.holds.drop(handles)
    return stale ?? this.#release(released)
  }

  imagesOf(backup: string, holds: PageHolds): ImageTable<Body> {
    const pages = {
      firstNotLive: (runs: HandleRuns) => this.slots.firstNotLive([...runs]),
      hold: (runs: HandleRuns) => holds.holdKept(runs),
      keep: (runs: HandleRuns) => holds.keep(runs),
      unkeep: (runs: HandleRuns) => {
        this.#release(holds.unkeep(runs))
      },
    }
    return new ImageTable(backup, pages, this, this.#images)
  }

  async write(change: ImageChange, before: Body | undefined): Promise<Body> {
    const body = [...(before ?? [])]
    for (const { index, bytes } of change.changed) body[index] = bytes.slice()
    return body
  }

  async read(_name: string, place: Body): Promise<Uint8Array[]> {
    return place.map((bytes) => bytes.slice())
  }

  async remove(): Promise<void> {}

  forget(): void {}

  /** Releases what no image names. */
  close(): void {
    if (this.holds === undefined) this.slabs.clear()
    else this.#release(this.holds.forgetHolders([...this.slots.liveRuns()]))
    this.#closed?.()
  }

  /** Frees pages, or none of them and gives the first that is not live. */
  #release(runs: readonly HandleRun[]): number | undefined {
    return this.slots.free(runs, (firstSlot, count) => this.slabs.free(firstSlot, count))
  }
}
