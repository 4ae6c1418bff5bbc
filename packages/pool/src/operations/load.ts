import {
  abortError,
  type Backup,
  decodeImageBlock,
  decodeImageHead,
  type HandleRun,
  type ImageHead,
  type ImageStore,
  type LoadedImage,
  orAbort,
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
    loading.then(({ keeps }) => backup.drop(keeps.flat())).catch(() => {})
    throw failure
  }
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
  #filled = 1

  constructor(residents: ResidentSet, buffer: BufferState, image: LoadedImage) {
    this.#residents = residents
    this.#buffer = buffer
    this.#image = image
  }

  /** The runs that the buffer did not get. */
  get left(): HandleRun[] {
    return this.#image.keeps.slice(this.#filled).flat()
  }

  /** Rejects with `EBADMSG` at the first block that is damaged, and with `EBADF` when the buffer is freed. */
  async fill(name: string, label: string): Promise<void> {
    const buffer = this.#buffer
    const { body, revision } = this.#image
    // Whoever frees the buffer waits for it.
    buffer.operations++
    try {
      for (; this.#filled < body.length; this.#filled++) {
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

  #fillBlock(index: number): void {
    const { body, keeps } = this.#image
    const { table } = this.#buffer
    const kept = keeps[index]!
    const pages: number[] = []
    decodeImageBlock(index, body[index]!, (page, handle, count) => {
      const run = kept[pages.length]
      const isKept = run !== undefined && run.first === handle && run.count === count
      if (isKept && page + count <= table.pageCount) pages.push(page)
      else throw new RangeError(`page ${page} is not one that the image keeps`)
    })
    if (pages.length < kept.length) throw damaged(index)
    for (const [position, page] of pages.entries())
      this.#residents.setStored(this.#buffer, page, kept[position]!)
  }
}

function damaged(index: number): SpillwayError {
  return new SpillwayError('EBADMSG', `block ${index} of the image does not have all that it keeps`)
}
