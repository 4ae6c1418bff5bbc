import { abortError } from '@spillway/core'
import type { ImagePlace } from './file-images.ts'
import {
  damaged,
  decodeLeaves,
  decodeNode,
  ImageBlocks,
  type Leaf,
  nodeReferences,
  type Reference,
} from './image-blocks.ts'
import { findRoot, type ImageEntry, type Root, rootOffset } from './root.ts'
import type { StoreFile, StoreLayout } from './store-file.ts'

/** An image that was found. */
export interface FoundImage {
  readonly revision: string
  readonly place: ImagePlace
  /** By block; none of a damaged image. */
  readonly leaves: readonly Omit<Leaf, 'bytes'>[]
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
  signal?: AbortSignal,
): Promise<FoundImages> {
  const { root, bytes, isOtherTorn } = await findRoot(file, layout, key)
  await file.write(bytes, rootOffset(root, layout))
  await file.sync()
  const blocks = new ImageBlocks(file, layout, key)
  const images = new Map<string, FoundImage>()
  for (const [name, entry] of root.images) {
    if (signal?.aborted) throw abortError(signal)
    images.set(name, await findImage(blocks, entry))
  }
  return { root, rootTorn: isOtherTorn, images }
}

/** Rejects when metadata cannot be read; metadata that was read and does not match is the image's damage. */
export async function findImage(blocks: ImageBlocks, entry: ImageEntry): Promise<FoundImage> {
  const { revision, blockCount, top } = entry
  try {
    const levels = await readLevels(blocks, top, blockCount)
    const leaves = await decodeLeaves(await blocks.read(levels[0]!))
    return {
      revision,
      place: { levels, isDamaged: false },
      leaves: leaves.map(({ keeps, sums }) => ({ keeps, sums })),
    }
  } catch (failure) {
    const isDamaged = failure instanceof RangeError || (failure as { code?: string }).code === 'EBADMSG'
    if (!isDamaged) throw failure
    return { revision, place: { levels: [[]], isDamaged }, leaves: [] }
  }
}

/** From the leaves on up. */
async function readLevels(
  blocks: ImageBlocks,
  top: Reference | undefined,
  blockCount: number,
): Promise<Reference[][]> {
  if (top === undefined) return [[]]
  const levels = [[top]]
  for (let reach = nodeReferences; levels[0]!.length < blockCount; reach *= nodeReferences) {
    if (reach > blockCount * nodeReferences) throw damaged()
    levels.unshift((await blocks.read(levels[0]!)).flatMap(decodeNode))
  }
  if (levels[0]!.length !== blockCount) throw damaged()
  return levels
}
