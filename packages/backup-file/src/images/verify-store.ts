import * as nodeFileSystem from 'node:fs'
import { abortError, assertKnownOptions, type HandleRuns, pace, systemError } from '@spillway/core'
import { ChecksumTable } from '../checksum-table.ts'
import { type FileSystem, Files } from '../file-system.ts'
import { messageOf, type NativeModule, optionalNative } from '../native.ts'
import { openWhenFree } from '../owner-wait.ts'
import { openPageSums } from '../page-sum.ts'
import { type FoundImage, findImage } from './find-images.ts'
import { ImageBlocks } from './image-blocks.ts'
import { openStoreToLook } from './persistent-file.ts'
import { findRoot, type ImageEntry } from './root.ts'
import { offsetOf, type StoreFile, type StoreLayout, slotOf } from './store-file.ts'
import { keyOf, layoutOf, type StoreHeader } from './store-header.ts'
import { storeFileOf } from './system-store-file.ts'

export interface VerifyStoreOptions {
  readonly path: string
  /** How long to wait, in milliseconds, for another who has the file. @default 1000 */
  readonly ownerWaitMs?: number | undefined
  /** Is told of each image as soon as it was read. */
  readonly onImage?: ((report: ImageReport) => void) | undefined
  readonly signal?: AbortSignal | undefined
}

/** What was found in a store. */
export interface StoreReport {
  readonly pageSizeBytes: number
  readonly images: readonly ImageReport[]
  /** What is wrong with the store itself, in words. */
  readonly problems: readonly string[]
}

/** What was found of an image. */
export interface ImageReport {
  readonly name: string
  /** Pages that it keeps; 0 when that is not known. */
  readonly pages: number
  /** What is wrong with it, in words; nothing: every page is what was saved. */
  readonly problems: readonly string[]
}

/** What is read at once. */
const readBytes = 2 ** 20

/**
 * Reads every page of every image of a persistent file, past the page cache where that works, and says what is wrong. Nobody can open the
 * file meanwhile, and nothing in it is changed. Rejects with `ENOENT`, `EEXIST` (it is no store), `EBUSY` (it is open elsewhere), `EBADMSG` (its
 * header or both its roots are damaged), `ENOTSUP` (a newer version), `ENOSYS` (no locks), `EINTR` (`signal`).
 */
export async function verifyStore(options: VerifyStoreOptions): Promise<StoreReport> {
  assertKnownOptions(options, ['path', 'ownerWaitMs', 'onImage', 'signal'], 'verifyStore')
  const { path, onImage, signal } = options
  const system: FileSystem = nodeFileSystem
  const files = new Files(system, true)
  const { native } = await optionalNative.load()
  await openPageSums()
  const store = await openWhenFree(() => openStoreToLook(files, path, native), options)
  try {
    const file = directly(storeFileOf(files, store.fileDescriptor), store.fileDescriptor, native)
    const verifier = new StoreVerifier(file, store.header, signal)
    const images: ImageReport[] = []
    const problems: string[] = []
    const { root, isOtherTorn } = await findRoot(file, verifier.layout, keyOf(store.header))
    if (isOtherTorn)
      problems.push(
        'one of its two roots is damaged, or its save was not finished; these are the images of the other',
      )
    for (const name of [...root.images.keys()].sort()) {
      const report = await verifier.verify(name, root.images.get(name)!)
      images.push(report)
      onImage?.(report)
    }
    return { pageSizeBytes: store.header.pageSizeBytes, images, problems }
  } catch (failure) {
    throw systemError(failure, `${path} cannot be read`)
  } finally {
    await store.release()
  }
}

/** The same file past the page cache, which may have what the disk has not; through it from the first direct read on that fails. */
function directly(file: StoreFile, fileDescriptor: number, native: NativeModule['native']): StoreFile {
  let isDirect = false
  try {
    native!.setDirect(fileDescriptor, true)
    isDirect = true
  } catch {
    // The file system has no direct I/O.
  }
  const read: StoreFile['read'] = async (into, offsetBytes) => {
    const wasDirect = isDirect
    try {
      await file.read(into, offsetBytes)
    } catch (failure) {
      if (!wasDirect) throw failure
      // Another may have been refused meanwhile.
      if (isDirect) native!.setDirect(fileDescriptor, false)
      isDirect = false
      await file.read(into, offsetBytes)
    }
  }
  return { ...file, read }
}

class StoreVerifier {
  readonly layout: StoreLayout
  readonly #file: StoreFile
  readonly #header: StoreHeader
  readonly #signal: AbortSignal | undefined
  readonly #blocks: ImageBlocks
  readonly #checksums: ChecksumTable
  readonly #slotOf: (handle: number) => number

  constructor(file: StoreFile, header: StoreHeader, signal: AbortSignal | undefined) {
    this.layout = layoutOf(header)
    this.#file = file
    this.#header = header
    this.#signal = signal
    this.#blocks = new ImageBlocks(file, this.layout)
    this.#checksums = new ChecksumTable(header.salt)
    this.#slotOf = (handle) => slotOf(handle, this.layout)
  }

  async verify(name: string, entry: ImageEntry): Promise<ImageReport> {
    let found: FoundImage
    try {
      found = await findImage(this.#blocks, entry, ({ keeps, sums }) =>
        this.#checksums.restore(keeps, sums, this.#slotOf),
      )
    } catch (failure) {
      return { name, pages: 0, problems: [`its metadata cannot be read: ${messageOf(failure)}`] }
    }
    if (found.place.isDamaged) return { name, pages: 0, problems: ['its metadata is damaged'] }
    const problems: string[] = []
    try {
      await this.#blocks.readPieces(
        found.place.entries.map(({ body }) => body),
        () => {},
      )
    } catch (failure) {
      problems.push(`what it says of its pages cannot be read: ${messageOf(failure)}`)
    }
    let pages = 0
    for (const [index, runs] of found.keeps.entries()) {
      pages += runs.handleCount
      problems.push(...(await this.#verifyBlock(index, runs)))
    }
    return { name, pages, problems }
  }

  async #verifyBlock(index: number, keeps: HandleRuns): Promise<string[]> {
    const changed: number[] = []
    const unread: number[] = []
    let why = ''
    const most = Math.max(1, Math.floor(readBytes / this.#header.pageSizeBytes))
    for (const { first, count } of keeps) {
      for (let at = first; at < first + count; at += most) {
        const end = Math.min(at + most, first + count)
        const failure = await this.#check(at, end - at, changed)
        // One by one, to find those that can be read.
        for (let page = at; failure !== undefined && page < end; page++) {
          const own = await this.#check(page, 1, changed)
          if (own === undefined) continue
          unread.push(page)
          why = messageOf(own)
        }
      }
    }
    const told = (handles: readonly number[], what: string) => {
      const offsetBytes = offsetOf(handles[0]!, this.layout)
      return `block ${index}: ${handles.length} of ${keeps.handleCount} pages ${what}, the first at byte ${offsetBytes} of the file`
    }
    const problems: string[] = []
    if (changed.length > 0) problems.push(told(changed, 'are not what was saved'))
    if (unread.length > 0) problems.push(told(unread, `cannot be read (${why})`))
    return problems
  }

  /** Reads adjacent pages; those that do not match go to `changed`. Gives what prevented the reading. */
  async #check(handle: number, count: number, changed: number[]): Promise<unknown> {
    if (this.#signal?.aborted) throw abortError(this.#signal)
    const { pageSizeBytes } = this.#header
    const pages = new Uint8Array(count * pageSizeBytes)
    try {
      await this.#file.read(pages, offsetOf(handle, this.layout))
    } catch (failure) {
      return failure
    }
    const turn = pace(pages.byteLength)
    if (turn !== undefined) await turn
    const slot = this.#slotOf(handle)
    const next = (from: number) =>
      this.#checksums.firstMismatch(handle, slot, pages, pageSizeBytes, from, count)
    for (let page = next(0); page < count; page = next(page + 1)) changed.push(handle + page)
    return undefined
  }
}
