import {
  abortError,
  type Backup,
  decodeImageBlock,
  decodeImageHead,
  type HandleRun,
  type HandleRuns,
  type ImageHead,
  type ImageStore,
  imageBlockPages,
  type LoadedImage,
  orAbort,
  type PageReceiver,
  type PageRun,
  SpillwayError,
} from '@spillway/core'
import { pace } from '../ground/pace.ts'
import type { BufferState } from '../residency/buffer-state.ts'
import { closedBuffer } from '../residency/closed.ts'
import { ImageState } from '../residency/image-state.ts'
import type { ResidentSet } from '../residency/resident-set.ts'

/** What to do about a backup without images. */
export const whoHoldsImages = 'openFileBackup({ path, persistent: true }) opens a backup that holds images'

/** The images of a backup. Throws `ENOTSUP` when it holds none, or there is none. */
export function imagesOf(backup: Backup | undefined): { backup: Backup; images: ImageStore } {
  if (backup?.images !== undefined) return { backup, images: backup.images }
  const what =
    backup === undefined ? 'there is no backup to load from' : `backup ${backup.name} holds no images`
  throw new SpillwayError('ENOTSUP', `${what}; ${whoHoldsImages}`, { backup: backup?.name })
}

/** Loads an image; an abort ends the wait with `EINTR`, and what comes then is given back. */
export async function loadedImage(
  { backup, images }: { readonly backup: Backup; readonly images: ImageStore },
  name: string,
  signal: AbortSignal | undefined,
): Promise<LoadedImage> {
  if (signal?.aborted) throw abortError(signal)
  const loading = images.load(name)
  try {
    return await orAbort(loading, signal)
  } catch (failure) {
    loading.then((image) => backup.drop(keptRuns(image))).catch(() => {})
    throw failure
  }
}

/** All runs that an image keeps in its blocks from one of them on. */
export function keptRuns({ keeps }: LoadedImage, firstBlock = 0): HandleRun[] {
  return keeps.slice(firstBlock).flatMap((runs) => [...runs])
}

/** What a buffer of an image is. Throws `EINVAL` for one with other pages than the pool's, `EBADMSG`, `ENOTSUP`. */
export function headOf({ body }: LoadedImage, name: string, pageSizeBytes: number): ImageHead {
  const head = decodeImageHead(body)
  if (head.pageSizeBytes === pageSizeBytes) return head
  const found = `image ${name} has pages of ${head.pageSizeBytes} bytes`
  throw new SpillwayError('EINVAL', `${found}; the pool's have ${pageSizeBytes}`)
}

/** Gives a buffer that is new the content of an image, and reads none of it. */
export class ImageFilling {
  readonly #residents: ResidentSet
  readonly #buffer: BufferState
  readonly #image: LoadedImage
  /** Blocks whose pages are the buffer's now. */
  #filled = 0

  constructor(residents: ResidentSet, buffer: BufferState, image: LoadedImage) {
    this.#residents = residents
    this.#buffer = buffer
    this.#image = image
  }

  /** The runs that the buffer did not get. */
  get left(): HandleRun[] {
    return keptRuns(this.#image, this.#filled)
  }

  /** Rejects with `EBADMSG` at the first block that is damaged, and with `EBADF` when the buffer is freed. */
  async fill(name: string, label: string): Promise<void> {
    const buffer = this.#buffer
    const { body, keeps, revision } = this.#image
    // Whoever frees the buffer waits for it.
    buffer.operations++
    try {
      if (keeps[0]!.length > 0) throw damaged(0)
      for (this.#filled = 1; this.#filled < body.length; this.#filled++) {
        if (buffer.closing) throw closedBuffer(buffer)
        this.#fillBlock(this.#filled)
        const turn = pace()
        if (turn !== undefined) await turn
      }
      if (buffer.closing) throw closedBuffer(buffer)
    } finally {
      buffer.endOperation()
    }
    const state = new ImageState(buffer.table, this.#residents.chunks)
    state.revisions.set(name, revision)
    state.base = name
    state.savedLabel = label
    buffer.images = state
  }

  /** All or nothing of a block. */
  #fillBlock(index: number): void {
    const { body, keeps } = this.#image
    const pages = new BlockPages(keeps[index]!, this.#buffer.table.pageCount)
    decodeImageBlock(index, body[index]!, pages)
    if (!pages.isWhole) throw damaged(index)
    for (const { page, handle, count } of pages.runs)
      this.#residents.setStored(this.#buffer, page, { first: handle, count })
    if (pages.scattered !== undefined)
      this.#residents.setStoredPages(this.#buffer, (index - 1) * imageBlockPages, pages.scattered)
  }
}

/** Where the pages of a block are, as far as they are pages of the buffer under just the handles that the image keeps for it. */
class BlockPages implements PageReceiver {
  readonly runs: PageRun[] = []
  scattered: Float64Array | undefined
  readonly #kept: HandleRuns
  readonly #pageCount: number
  /** Runs that were told of, and handles of the next. */
  #keptRuns = 0
  #keptHandles = 0

  constructor(kept: HandleRuns, pageCount: number) {
    this.#kept = kept
    this.#pageCount = pageCount
  }

  /** Whether all that the image keeps for the block was told. */
  get isWhole(): boolean {
    return this.#keptRuns === this.#kept.length && this.#keptHandles === 0
  }

  run(page: number, handle: number, count: number): void {
    const run = this.#keptRuns++
    const isKept = this.#kept.firsts[run] === handle && this.#kept.countOf(run) === count
    if (!isKept || page + count > this.#pageCount)
      throw new RangeError(`page ${page} is not one that the image keeps`)
    this.runs.push({ page, handle, count })
  }

  pages(firstPage: number, handles: Float64Array): void {
    for (let index = 0; index < handles.length; index++) {
      const handle = handles[index]!
      if (handle === 0) continue
      const run = this.#keptRuns
      const isKept = this.#kept.firsts[run]! + this.#keptHandles === handle
      if (!isKept || firstPage + index >= this.#pageCount)
        throw new RangeError(`page ${firstPage + index} is not one that the image keeps`)
      this.#keptHandles++
      if (this.#keptHandles < this.#kept.countOf(run)) continue
      this.#keptRuns++
      this.#keptHandles = 0
    }
    this.scattered = handles
  }
}

function damaged(index: number): SpillwayError {
  return new SpillwayError('EBADMSG', `block ${index} of the image does not have all that it keeps`)
}
