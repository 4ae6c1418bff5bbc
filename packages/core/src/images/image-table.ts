import type { ImageBlock, ImageContent, LoadedImage } from '../contract.ts'
import { SpillwayError, staleHandleError } from '../errors.ts'
import { HandleRuns } from '../handle-runs.ts'
import { pace } from '../pace.ts'

/** What counting one page costs, as bytes that are copied in the same time, and what a run costs. */
const countedPageBytes = 8
const countedRunBytes = 64

/** What a save makes of an image: all blocks as they are then, and which of them are new. */
export interface ImageChange {
  readonly name: string
  readonly revision: string
  readonly blockCount: number
  /** Blocks that are new or changed, in rising order, and what each keeps. */
  readonly changed: readonly ImageBlock[]
  readonly keeps: readonly HandleRuns[]
}

/**
 * Where a backend keeps images. Calls come one after the other. `Place` is what it has to know of an image to find it again.
 */
export interface ImageMedium<Place> {
  /**
   * Makes a change durable, on top of `before` for blocks that did not change, and gives the new place. When it throws, the image is
   * what it was, unless `isUncertain` says otherwise.
   */
  write(change: ImageChange, before: Place | undefined): Promise<Place>
  /** Throws `EBADMSG` for an image of which not enough is known to change it. */
  assertWhole?(name: string, place: Place): void
  /** All blocks of an image. */
  read(name: string, place: Place): Promise<Uint8Array[]>
  /** Makes it durable that the image is gone; throws as `write` does. */
  remove(name: string, place: Place): Promise<void>
  /** The place is not used any more. */
  forget(place: Place): void | Promise<void>
  /** Whether a change that failed may have become durable all the same: then nothing of either side is released. */
  readonly isUncertain: boolean
}

/** Who names pages, as `ImageTable` needs it. */
export interface ImagePages {
  /** The first of these handles that is not live, or `undefined`. */
  firstNotLive(runs: HandleRuns): number | undefined
  /** Gives a holder one hold on each page. */
  hold(runs: HandleRuns): void
  /** Gives an image one hold on each page. */
  keep(runs: HandleRuns): void
  /** Returns one hold of an image on each page, and releases those that nobody names now. */
  unkeep(runs: HandleRuns): void
}

/** An image that is there. */
export interface KeptImage<Place> {
  readonly revision: string
  readonly place: Place
  /** By block: what it keeps. */
  readonly keeps: readonly HandleRuns[]
}

/** The images of a backup: names, revisions, holds, and the order of saves. What is durable is the medium's. */
export class ImageTable<Place> {
  readonly #backup: string
  readonly #pages: ImagePages
  readonly #medium: ImageMedium<Place>
  readonly #images: Map<string, KeptImage<Place>>
  #last: Promise<unknown> = Promise.resolve()

  /** `images` are those that were found when the backup was opened; their pages are kept already. */
  constructor(
    backup: string,
    pages: ImagePages,
    medium: ImageMedium<Place>,
    images: Map<string, KeptImage<Place>> = new Map(),
  ) {
    this.#backup = backup
    this.#pages = pages
    this.#medium = medium
    this.#images = images
  }

  get count(): number {
    return this.#images.size
  }

  names(): string[] {
    return [...this.#images.keys()].sort()
  }

  load(name: string): Promise<LoadedImage> {
    return this.#inTurn(async () => {
      const image = this.#images.get(name)
      if (image === undefined) throw this.#missing(name)
      const body = await this.#medium.read(name, image.place)
      const pages = await this.#eachSlice(image.keeps, (runs) => this.#pages.hold(runs))
      return { body, keeps: image.keeps, revision: image.revision, pages }
    })
  }

  save(name: string, content: ImageContent): Promise<string> {
    return this.#inTurn(async () => {
      const { body, since } = content
      const keeps = content.keeps.map((runs) => HandleRuns.of(runs))
      const kept: HandleRuns[] = []
      try {
        await this.#eachSlice(keeps, (runs) => {
          const stale = this.#pages.firstNotLive(runs)
          if (stale !== undefined) throw staleHandleError(this.#backup, stale)
          this.#pages.keep(runs)
          kept.push(runs)
        })
        return await this.#save(name, body, keeps, since)
      } catch (failure) {
        if (!this.#medium.isUncertain) await this.#eachSlice(kept, (runs) => this.#pages.unkeep(runs))
        throw failure
      }
    })
  }

  remove(name: string): Promise<void> {
    return this.#inTurn(async () => {
      const image = this.#images.get(name)
      if (image === undefined) throw this.#missing(name)
      await this.#medium.remove(name, image.place)
      this.#images.delete(name)
      await this.#eachSlice(image.keeps, (runs) => this.#pages.unkeep(runs))
      await this.#medium.forget(image.place)
    })
  }

  async #save(
    name: string,
    changed: readonly ImageBlock[],
    keptByChanged: readonly HandleRuns[],
    since: string | null | undefined,
  ): Promise<string> {
    const before = this.#images.get(name)
    this.#assertFollows(name, before, since)
    const goesOn = typeof since === 'string' && before !== undefined
    if (goesOn) this.#medium.assertWhole?.(name, before.place)
    const keeps = goesOn ? [...before.keeps] : []
    const replaced: HandleRuns[] = goesOn ? [] : [...(before?.keeps ?? [])]
    for (const [position, { index }] of changed.entries()) {
      if (index > keeps.length) throw new RangeError(`block ${keeps.length} of image ${name} is missing`)
      if (index < keeps.length) replaced.push(keeps[index])
      keeps[index] = keptByChanged[position]
    }
    const revision = crypto.randomUUID()
    const change = { name, revision, blockCount: keeps.length, changed, keeps: keptByChanged }
    const place = await this.#medium.write(change, goesOn ? before.place : undefined)
    this.#images.set(name, { revision, place, keeps })
    await this.#eachSlice(replaced, (runs) => this.#pages.unkeep(runs))
    if (before !== undefined) await this.#medium.forget(before.place)
    return revision
  }

  #assertFollows(name: string, before: KeptImage<Place> | undefined, since: string | null | undefined): void {
    if (since === undefined) return
    if (since === null && before === undefined) return
    if (before === undefined) throw this.#missing(name)
    if (before.revision === since) return
    const fields = { backup: this.#backup }
    throw new SpillwayError('EEXIST', `backup ${this.#backup} has another image ${name}`, fields)
  }

  #inTurn<Result>(work: () => Promise<Result>): Promise<Result> {
    const result = this.#last.then(work)
    this.#last = result.catch(() => {})
    return result
  }

  #missing(name: string): SpillwayError {
    const fields = { backup: this.#backup }
    return new SpillwayError('ENOENT', `backup ${this.#backup} has no image ${name}`, fields)
  }

  /** Visits the pages of blocks; the event loop has its turns between. Returns how many pages those are. */
  async #eachSlice(blocks: readonly HandleRuns[], visit: (runs: HandleRuns) => void): Promise<number> {
    let pages = 0
    for (const runs of blocks) {
      visit(runs)
      pages += runs.handleCount
      const turn = pace(runs.handleCount * countedPageBytes + runs.length * countedRunBytes)
      if (turn !== undefined) await turn
    }
    return pages
  }
}
