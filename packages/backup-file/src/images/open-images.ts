import { type HandleRuns, ImageTable, PageHolds, pace } from '@spillway/core'
import type { ChecksumTable } from '../checksum-table.ts'
import type { Files } from '../file-system.ts'
import type { SlotSpace } from '../slot-space.ts'
import { FileImages, type ImagePlace, referencesOf } from './file-images.ts'
import { type FoundImages, findImages } from './find-images.ts'
import type { OpenedStore } from './persistent-file.ts'
import type { StoreFile, StoreSync } from './store-file.ts'
import { keyOf, layoutOf } from './store-header.ts'
import { storeFileOf } from './system-store-file.ts'

/** What taking over a page costs, and a run, as bytes that are copied in the same time. */
const adoptedPageBytes = 16
const adoptedRunBytes = 512

/** The images of an open store, and who holds its pages. */
export interface OpenImages {
  readonly table: ImageTable<ImagePlace>
  readonly holds: PageHolds
  readonly sync: StoreSync
  /** Whether the store had only one whole root when it was opened, and a part of another. */
  readonly rootTorn: boolean
  /** Images whose metadata did not match when the store was opened, and that were neither removed nor replaced since. */
  readonly damagedImages: number
}

/** What was found when a store was opened. */
export interface FoundStore {
  readonly store: OpenedStore
  readonly file: StoreFile
  readonly found: FoundImages
  /** The file has no slots from this one on. */
  readonly endSlot: number
}

/** Finds what a store has, before anything is written to its slots. Rejects with `EBADMSG` when both roots are damaged. */
export async function findStore(
  files: Files,
  store: OpenedStore,
  signal: AbortSignal | undefined,
): Promise<FoundStore> {
  const { header } = store
  const file = storeFileOf(files, store.file.fileDescriptor, store.assertUnchanged)
  const found = await findImages(file, layoutOf(header), keyOf(header), signal)
  const { size } = await files.fstat(store.file.fileDescriptor)
  const endSlot = Math.ceil(Math.max(0, size - header.dataOffsetBytes) / header.pageSizeBytes)
  if (found.rootTorn) {
    const what = `a save in ${store.file.place} was not finished, or its root was damaged later; the images before it are used`
    process.emitWarning(what, { type: 'SpillwayWarning', code: 'SPILLWAY_ROOT_TORN' })
  }
  for (const [name, { place }] of found.images) {
    if (!place.isDamaged) continue
    const what = `metadata of image ${name} in ${store.file.place} is damaged; space that it may name is not used before it is removed or replaced`
    process.emitWarning(what, { type: 'SpillwayWarning', code: 'SPILLWAY_IMAGE_DAMAGED' })
  }
  return { store, file, found, endSlot }
}

interface AdoptingParts {
  readonly name: string
  readonly space: SlotSpace
  readonly checksums: ChecksumTable
}

/** Takes over what was found: its slots are in use again, and all others are free. */
export async function openImages(
  { store, file, found, endSlot }: FoundStore,
  parts: AdoptingParts,
): Promise<OpenImages> {
  const { name, space, checksums } = parts
  const slotOf = (handle: number) => space.slots.slotOf(handle)
  const holds = new PageHolds(slotOf)
  const damaged = damagedOf(found, endSlot)
  let damagedImages = damaged.size
  await adoptPages(found, parts, holds)
  // What a damaged image keeps is not known. It may be whole at the next opening, as after a fault of the memory or of a cable.
  await space.found.adoptRest(endSlot, { withheldEndSlot: Math.max(0, ...damaged.values()) })
  const images = [...found.images].map(([image, { revision, place, kept: blocks }]) => {
    return [image, { revision, place, keeps: blocks.map(({ keeps }) => keeps) }] as const
  })
  const medium = new FileImages(
    {
      backup: name,
      file,
      layout: layoutOf(store.header),
      key: keyOf(store.header),
      slots: {
        take: (count) => space.takeForMetadata(count),
        giveBack: (runs) => space.dropMetadata(runs),
        forgetDamaged: async () => {
          damagedImages--
          if (damagedImages === 0) await space.found.releaseWithheld()
        },
        sumsOf: (runs) => checksums.sumsOf(runs, slotOf),
        get generation() {
          return space.slots.generation
        },
      },
    },
    found.root,
  )
  await medium.noteDamaged(damaged)
  const pages = {
    firstNotLive: (runs: HandleRuns) => space.firstNotLiveIn(runs),
    hold: (runs: HandleRuns) => holds.holdKept(runs),
    keep: (runs: HandleRuns) => holds.keep(runs),
    unkeep: (runs: HandleRuns) => void space.drop(holds.unkeep(runs)),
  }
  const table = new ImageTable(name, pages, medium, new Map(images))
  return {
    table,
    holds,
    sync: medium.sync,
    rootTorn: found.rootTorn,
    get damagedImages() {
      return damagedImages
    },
  }
}

/** Images that are damaged, by name: the file had no slots from this one on when that was found. */
function damagedOf({ images, root }: FoundImages, endSlot: number): Map<string, number> {
  const damaged = new Map<string, number>()
  for (const [name, { place }] of images)
    if (place.isDamaged) damaged.set(name, root.damaged.get(name) ?? endSlot)
  return damaged
}

/** The slots that images name are in use again, and the sums of pages are known. */
async function adoptPages(
  { images }: FoundImages,
  { space, checksums }: AdoptingParts,
  holds: PageHolds,
): Promise<void> {
  const slotOf = (handle: number) => space.slots.slotOf(handle)
  for (const { place, kept } of images.values()) {
    for (const { runs } of referencesOf(place)) space.found.adoptMetadata(runs)
    for (const { keeps, sums } of kept) {
      space.found.adopt(keeps)
      holds.keep(keeps)
      checksums.restore(keeps, sums, slotOf)
      const turn = pace(keeps.handleCount * adoptedPageBytes + keeps.length * adoptedRunBytes)
      if (turn !== undefined) await turn
    }
  }
}
