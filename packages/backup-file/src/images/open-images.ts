import { type HandleRuns, ImageTable, PageHolds, pace } from '@spillway/core'
import type { ChecksumTable } from '../checksum-table.ts'
import type { Files } from '../file-system.ts'
import type { SlotSpace } from '../slot-space.ts'
import { FileImages, type ImagePlace, referencesOf } from './file-images.ts'
import { type FoundImages, findImages, type NoteSums } from './find-images.ts'
import type { OpenedStore } from './persistent-file.ts'
import { type StoreFile, type StoreSync, slotOf } from './store-file.ts'
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

/** Finds what a store has, before anything is written to its slots; the sums of pages are in `checksums` then. Rejects with `EBADMSG` when both roots are damaged. */
export async function findStore(
  files: Files,
  store: OpenedStore,
  { checksums, signal }: { readonly checksums: ChecksumTable; readonly signal: AbortSignal | undefined },
): Promise<FoundStore> {
  const { header } = store
  const layout = layoutOf(header)
  const noteSums: NoteSums = ({ keeps, sums }) =>
    checksums.restore(keeps, sums, (handle) => slotOf(handle, layout))
  const file = storeFileOf(files, store.file.fileDescriptor, store.assertUnchanged)
  const found = await findImages(file, layout, keyOf(header), { noteSums, signal })
  const { size } = await files.fstat(store.file.fileDescriptor)
  const pagesOfFile = Math.ceil(Math.max(0, size - header.dataOffsetBytes) / header.pageSizeBytes)
  // Longer it is where an opening was killed while it tried out what the file system can.
  const endSlot = Math.min(header.slots, pagesOfFile)
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
  const holds = new PageHolds((handle) => space.slots.slotOf(handle))
  const damaged = damagedOf(found, endSlot)
  let damagedImages = damaged.size
  await adoptPages(found, space, holds)
  // What a damaged image keeps is not known. It may be whole at the next opening, as after a fault of the memory or of a cable.
  await space.found.adoptRest(endSlot, { withheldEndSlot: Math.max(0, ...damaged.values()) })
  const images = [...found.images].map(([image, { revision, place, keeps }]) => {
    return [image, { revision, place, keeps }] as const
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
        sumsOf: (runs) => checksums.sumsOf(runs, (handle) => space.slots.slotOf(handle)),
        get generation() {
          return space.slots.generation
        },
      },
    },
    found.root,
  )
  await medium.noteDamaged(damaged)
  const pages = {
    firstNotLive: (runs: HandleRuns) => space.firstNotLive([...runs]),
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

/** The slots that images name are in use again. */
async function adoptPages({ images }: FoundImages, space: SlotSpace, holds: PageHolds): Promise<void> {
  for (const { place, keeps } of images.values()) {
    for (const { runs } of referencesOf(place)) space.found.adoptMetadata(runs)
    for (const runs of keeps) {
      space.found.adopt(runs)
      holds.keep(runs)
      const turn = pace(runs.handleCount * adoptedPageBytes + runs.length * adoptedRunBytes)
      if (turn !== undefined) await turn
    }
  }
}
