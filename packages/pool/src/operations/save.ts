import {
  abortError,
  assertImageName,
  delay,
  encodeImageBlock,
  encodeImageHead,
  type HandleRun,
  type ImageBlock,
  type ImageStore,
  imageBlockCount,
  isSpillwayError,
  orAbort,
  SpillwayError,
} from '@spillway/core'
import { pace } from '../ground/pace.ts'
import { asError, type BackingStore } from '../residency/backing-store.ts'
import type { BufferState } from '../residency/buffer-state.ts'
import { located } from '../residency/failures.ts'
import { ImageState, type Snapshot } from '../residency/image-state.ts'
import type { PageOut } from '../residency/page-out.ts'
import type { ResidentSet } from '../residency/resident-set.ts'
import { dirty, pageIn, pageOut } from '../table/chunks.ts'
import { assertMayLeave } from './discards.ts'
import { whoHoldsImages } from './load.ts'

export interface SaveOptions {
  /** Ends the call with `EINTR`, until the image is handed over to the backup: from then on it is saved. */
  readonly signal?: AbortSignal | undefined
  /** Replace an image that this buffer was neither loaded from nor saved as. Default false: `EEXIST`. */
  readonly replace?: boolean | undefined
  /** `'wait'`: the moment of the image is the first without pins that write, and new ones wait for it. Default `'fail'`: `EBUSY`. */
  readonly pins?: 'fail' | 'wait' | undefined
}

/** What a save is about; all of it stays the same until it ends. */
interface Saving {
  readonly buffer: BufferState
  readonly name: string
  readonly store: BackingStore
  readonly images: ImageStore
  readonly state: ImageState
  readonly snapshot: Snapshot
  readonly options: SaveOptions
  /** Resolves when the saves before it are over. */
  readonly before: Promise<void>
  /** To be called when this one is. */
  readonly over: () => void
}

/**
 * Saves buffers as images:
 *
 *   moment    no pin writes; dirty chunks are marked as being stored, so that who writes to one waits until it is. Blocks of
 *             the image that change from now on are looked at before they do
 *   store     what is dirty, in batches; it stays in memory, clean
 *   commit    after the saves before it: blocks that changed since the last image, to the backup
 *   end       handles that only the image, or not even that, names are dropped
 */
export class Saves {
  readonly #residents: ResidentSet
  readonly #pageOut: PageOut
  readonly #pageSizeBytes: number
  readonly #last = new WeakMap<BufferState, Promise<void>>()

  constructor(residents: ResidentSet, pageOut: PageOut, pageSizeBytes: number) {
    this.#residents = residents
    this.#pageOut = pageOut
    this.#pageSizeBytes = pageSizeBytes
  }

  /** All checks are made, and without `pins: 'wait'` the moment is taken, before this returns. */
  save(buffer: BufferState, name: string, options: SaveOptions): Promise<void> {
    const { signal, pins } = options
    if (signal?.aborted) throw abortError(signal, { buffer: buffer.label })
    this.#assertCanSave(buffer)
    const { writePins } = buffer
    if (pins === 'wait' && (writePins.count > 0 || writePins.isShut)) {
      return writePins
        .whenNone(signal, () => this.#begin(buffer, name, options))
        .then((saving) => this.#save(saving))
    }
    if (writePins.count > 0) throw writePins.refusal()
    return this.#save(this.#begin(buffer, name, options))
  }

  #assertCanSave(buffer: BufferState): { store: BackingStore; images: ImageStore } {
    const { label, store } = buffer
    if (buffer.growth !== undefined)
      throw new SpillwayError('ENOTSUP', `buffer ${label} grows; only others can be saved`, { buffer: label })
    const images = store?.backup.images
    if (store === undefined || images === undefined) {
      const what = store === undefined ? 'no backup' : `backup ${store.name}, which holds no images`
      throw new SpillwayError('ENOTSUP', `buffer ${label} has ${what}; ${whoHoldsImages}`, {
        buffer: label,
        backup: store?.name,
      })
    }
    if (buffer.purgeable) {
      const what = `buffer ${label} is purgeable: its content may be dropped at any moment`
      throw new SpillwayError('EINVAL', what, { buffer: label })
    }
    assertMayLeave(this.#residents, buffer)
    return { store, images }
  }

  /** The moment of the image. */
  #begin(buffer: BufferState, name: string, options: SaveOptions): Saving {
    const { store, images } = this.#assertCanSave(buffer)
    const { chunks } = this.#residents
    const dirtyChunks: number[] = []
    let lost = 0
    if (buffer.dirtyPages > 0) {
      chunks.find(buffer.id, (chunk) => {
        if ((chunks.flagsOf(chunk) & (dirty | pageIn)) !== dirty) return false
        dirtyChunks.push(chunk)
        if (!this.#residents.isIntact(chunk)) lost = chunk
        return lost !== 0
      })
    }
    if (lost !== 0) {
      const page = chunks.firstPageOf(lost)
      const what = `the memory of buffer ${buffer.label} page ${page} was resized or detached outside of the pool`
      throw new SpillwayError('EFAULT', what, { buffer: buffer.label, page })
    }
    buffer.images ??= new ImageState(buffer.table, chunks)
    const state = buffer.images
    const snapshot = state.begin()
    this.#pageOut.begins()
    for (const chunk of dirtyChunks) {
      snapshot.await(chunk)
      if (chunks.has(chunk, pageOut)) continue
      this.#residents.beginPageOut(chunk)
      snapshot.store(chunk)
    }
    const before = this.#last.get(buffer) ?? Promise.resolve()
    const { promise, resolve: over } = Promise.withResolvers<void>()
    this.#last.set(buffer, promise)
    return { buffer, name, store, images, state, snapshot, options, before, over }
  }

  async #save(saving: Saving): Promise<void> {
    const { buffer, name, state, snapshot, store, before } = saving
    let revision: string | undefined
    try {
      try {
        await this.#storePending(saving)
      } finally {
        for (const chunk of snapshot.fail()) this.#residents.pageOutFailed(chunk)
        this.#pageOut.settled()
      }
      await orAbort(before, saving.options.signal)
      revision = await this.#commit(saving)
      state.savedLabel = buffer.label
    } catch (failure) {
      const fields = { buffer: buffer.label, backup: store.name }
      throw located(asError(failure), `saving ${name} of`, fields)
    } finally {
      store.dropRuns(state.end(snapshot, revision === undefined ? undefined : { name, revision }))
      // One that was aborted while it waited is over, and the save before it may not be.
      void before.then(saving.over)
    }
  }

  /** Stores what was dirty at the moment. Throws what stopped it; then nothing is under way any more. */
  async #storePending(saving: Saving): Promise<void> {
    const { snapshot, store, options } = saving
    const { signal } = options
    const { operations } = this.#residents
    const calls = new Set<Promise<void>>()
    let failure: Error | undefined
    const stop = (error: Error) => {
      failure ??= error
    }
    while (snapshot.hasPending && failure === undefined && signal?.aborted !== true) {
      const batch = snapshot.takeBatch(store.batchPages, (chunk) => operations.isWriting(chunk))
      if (batch.length > 0) {
        const call = this.#storeBatch(saving, batch).then((error) => {
          calls.delete(call)
          if (error !== undefined) stop(error)
        })
        calls.add(call)
      }
      if (calls.size >= store.callsInFlight || (batch.length === 0 && calls.size > 0)) {
        await Promise.race(calls)
      } else if (batch.length === 0) {
        // What an operation is writing to is free soon.
        const news = snapshot.hasForeign ? snapshot.news() : delay(0)
        await orAbort(news, signal).catch(stop)
      }
      const turn = pace()
      if (turn !== undefined) await turn
    }
    await Promise.all(calls)
    if (failure !== undefined) throw failure
    if (snapshot.hasPending && signal?.aborted) throw abortError(signal)
  }

  async #storeBatch(
    { snapshot, store, options: { signal } }: Saving,
    chunks: readonly number[],
  ): Promise<Error | undefined> {
    const stored = await this.#pageOut.store(store, chunks, { signal, destination: 'stay', isMarked: true })
    // What is not stored is not to be taken over by the save that has failed.
    const left = stored.error === undefined ? [] : snapshot.fail()
    for (const chunk of left) this.#residents.pageOutFailed(chunk)
    return this.#pageOut.commit(stored, 'stay').error
  }

  /** Hands the image over, as little of it as will do; gives its revision. */
  async #commit(saving: Saving): Promise<string> {
    const { name, state, options } = saving
    const known = state.revisions.get(name)
    const replace = options.replace === true
    let since = replace ? undefined : (known ?? null)
    if (known !== undefined) {
      try {
        return await this.#put(saving, known, state.base !== name)
      } catch (failure) {
        const code = isSpillwayError(failure) ? failure.code : undefined
        if (code !== 'ENOENT' && !(code === 'EEXIST' && replace)) throw failure
        // Somebody removed it, or has replaced it and is replaced himself.
        since = replace ? undefined : null
      }
    }
    return this.#put(saving, since, true)
  }

  async #put(saving: Saving, since: string | null | undefined, isWhole: boolean): Promise<string> {
    const { buffer, name, images, state, snapshot, options } = saving
    const body: ImageBlock[] = []
    const keeps: HandleRun[][] = []
    if (isWhole || state.savedLabel !== buffer.label) {
      const { sizeBytes, label } = buffer
      body.push({
        index: 0,
        bytes: encodeImageHead({ pageSizeBytes: this.#pageSizeBytes, sizeBytes, label }),
      })
      keeps.push([])
    }
    const blocks = imageBlockCount(buffer.table.pageCount) - 1
    for (let block = isWhole ? 0 : snapshot.changed.endOfClear(0, blocks); block < blocks; ) {
      const runs = snapshot.runsOf(block)
      body.push({ index: block + 1, bytes: encodeImageBlock(block + 1, runs) })
      keeps.push(runs.map(({ handle, count }) => ({ first: handle, count })))
      block = isWhole ? block + 1 : snapshot.changed.endOfClear(block + 1, blocks)
      const turn = pace()
      if (turn !== undefined) await turn
    }
    if (options.signal?.aborted) throw abortError(options.signal)
    return images.save(name, { body, keeps, since })
  }
}

/** The name that a buffer is saved under. Throws `TypeError` where neither a name nor a label was given, or it cannot be one. */
export function imageNameOf(buffer: BufferState, name: string | undefined): string {
  if (name === undefined && !buffer.hasName) {
    throw new TypeError(`buffer ${buffer.label} has no label; give its image a name`)
  }
  const found = name ?? buffer.label
  assertImageName(found)
  return found
}
