import { abortError, type HandleRuns } from '@spillway/core'
import type { ImagePlace } from './file-images.ts'
import { damaged, ImageBlocks } from './image-blocks.ts'
import {
  type BlockEntry,
  decodeEntries,
  decodePages,
  decodeReferences,
  type KeptPages,
  nodeEntries,
  type Reference,
} from './image-code.ts'
import { findRoot, type ImageEntry, type Root, rootOffset } from './root.ts'
import type { StoreFile, StoreLayout } from './store-file.ts'

/** An image that was found. */
export interface FoundImage {
  readonly revision: string
  readonly place: ImagePlace
  /** By block; none of a damaged image. */
  readonly keeps: readonly HandleRuns[]
}

/** Is shown the pages of each block for the moment, also of images that turn out to be damaged: only the sums are to be kept. */
export type NoteSums = (kept: KeptPages) => void

export interface FindingOptions {
  readonly noteSums: NoteSums
  readonly signal?: AbortSignal | undefined
}

export interface FoundImages {
  readonly root: Root
  readonly rootTorn: boolean
  readonly images: ReadonlyMap<string, FoundImage>
}

/**
 * Finds the images of a store. Rejects with `EBADMSG` when neither root is whole; damage elsewhere costs the images that need it, and no
 * other.
 *
 * The root that was chosen is written again, to its own place, and synced. It may be only in the page cache, when its writer was
 * killed before his sync or his sync failed, and then the root on the disk still names slots that this one does not. Writing the same bytes cannot
 * tear what is there already, and afterwards it is safe to use those slots.
 */
export async function findImages(
  file: StoreFile,
  layout: StoreLayout,
  key: Uint8Array,
  { noteSums, signal }: FindingOptions,
): Promise<FoundImages> {
  const { root, bytes, isOtherTorn } = await findRoot(file, layout, key)
  await file.write(bytes, rootOffset(root, layout))
  await file.sync()
  const blocks = new ImageBlocks(file, layout)
  const images = new Map<string, FoundImage>()
  for (const [name, entry] of root.images) {
    if (signal?.aborted) throw abortError(signal)
    images.set(name, await findImage(blocks, entry, noteSums))
  }
  return { root, rootTorn: isOtherTorn, images }
}

/** Rejects when metadata cannot be read; metadata that was read and does not match is the image's damage. */
export async function findImage(
  blocks: ImageBlocks,
  entry: ImageEntry,
  noteSums: NoteSums,
): Promise<FoundImage> {
  const { revision, blockCount, top } = entry
  try {
    const { entries, nodes } = await readTree(blocks, top, blockCount)
    const keeps: HandleRuns[] = []
    await blocks.readPieces(
      entries.map(({ pages }) => pages),
      (bytes) => {
        const kept = decodePages(bytes)
        keeps.push(kept.keeps)
        noteSums(kept)
      },
    )
    return { revision, place: { entries, nodes, isDamaged: false }, keeps }
  } catch (failure) {
    const isDamaged = failure instanceof RangeError || (failure as { code?: string }).code === 'EBADMSG'
    if (!isDamaged) throw failure
    return { revision, place: { entries: [], nodes: [], isDamaged }, keeps: [] }
  }
}

/** From the top down to the entries of the blocks. */
async function readTree(
  blocks: ImageBlocks,
  top: Reference | undefined,
  blockCount: number,
): Promise<Pick<ImagePlace, 'entries' | 'nodes'>> {
  if (top === undefined) return { entries: [], nodes: [] }
  const nodes = [[top]]
  for (let reach = nodeEntries; reach < blockCount; reach *= nodeEntries)
    nodes.unshift((await blocks.read(nodes[0]!)).flatMap(decodeReferences))
  const entries: BlockEntry[] = (await blocks.read(nodes[0]!)).flatMap(decodeEntries)
  if (entries.length !== blockCount) throw damaged()
  return { entries, nodes }
}
