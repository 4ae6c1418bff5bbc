/**
 * A random load on a backup whose every byte is known: each page is made from its number, so whatever is restored can be
 * checked without keeping a copy.
 */
import { type Backup, type HandleRun, isSpillwayError, seededRandom } from '@spillway/core'

export const pageBytes = 4096
const pageWords = pageBytes / 4

/** The content of page `id`. */
export function fillPage(into: Uint8Array, id: number): void {
  const words = new Uint32Array(into.buffer, into.byteOffset, pageWords)
  let value = Math.imul(id + 1, 0x9e3779b1) >>> 0
  for (let index = 0; index < pageWords; index++) {
    value = (Math.imul(value, 1664525) + 1013904223) >>> 0
    words[index] = value
  }
}

export function pagesOf(ids: readonly number[]): Uint8Array {
  const memory = new Uint8Array(ids.length * pageBytes)
  ids.forEach((id, index) => {
    fillPage(memory.subarray(index * pageBytes, (index + 1) * pageBytes), id)
  })
  return memory
}

/** Throws unless the memory holds these pages. */
export function assertPages(memory: Uint8Array, ids: readonly number[], what: string): void {
  const expected = new Uint8Array(pageBytes)
  ids.forEach((id, index) => {
    fillPage(expected, id)
    const found = memory.subarray(index * pageBytes, (index + 1) * pageBytes)
    if (Buffer.compare(found, expected) !== 0)
      throw new Error(`${what}: page ${id} came back with wrong bytes`)
  })
}

export function handlesOf(runs: readonly HandleRun[]): number[] {
  return runs.flatMap(({ first, count }) => Array.from({ length: count }, (_, index) => first + index))
}

/** Adjacent handles as runs, in the order given. */
export function runsOf(handles: readonly number[]): HandleRun[] {
  const runs: { first: number; count: number }[] = []
  for (const handle of handles) {
    const last = runs.at(-1)
    if (last !== undefined && last.first + last.count === handle) last.count++
    else runs.push({ first: handle, count: 1 })
  }
  return runs
}

/** A page that the backup acknowledged. */
export interface KeptPage {
  readonly id: number
  readonly handle: number
}

export interface WorkloadOptions {
  readonly seed: number
  /** Pages of one call at most. @default 600 */
  readonly maxBatchPages?: number
  /** Beyond this many pages it drops more than it adds. @default 4000 */
  readonly maxLivePages?: number
  /** Told of pages before the next call is made. */
  readonly onKept?: (pages: readonly KeptPage[]) => Promise<void> | void
  /** Told of pages that are about to be dropped. */
  readonly onDropping?: (pages: readonly KeptPage[]) => Promise<void> | void
}

/** One caller that backs up, restores and drops, one call after the other. */
export class Workload {
  readonly counts = { backedUp: 0, copied: 0, dropped: 0, failedCalls: 0 }
  /** Codes of the errors that calls ended with. */
  readonly errors = new Map<string, number>()
  pages: KeptPage[] = []
  readonly #backup: Backup
  readonly #options: Required<WorkloadOptions>
  readonly #random: () => number
  #nextId: number

  constructor(backup: Backup, options: WorkloadOptions) {
    this.#backup = backup
    this.#options = {
      maxBatchPages: 600,
      maxLivePages: 4000,
      onKept: () => {},
      onDropping: () => {},
      ...options,
    }
    this.#random = seededRandom(options.seed)
    this.#nextId = options.seed * 1_000_000
  }

  /** One random call. */
  async step(): Promise<void> {
    const chance = this.#random()
    const isFull = this.pages.length > this.#options.maxLivePages
    if (this.pages.length === 0 || (chance < 0.45 && !isFull)) await this.#backUp()
    else if (chance < 0.75) await this.#copy()
    else await this.#drop()
  }

  /** Reads every page that is kept and checks it. */
  async verify(): Promise<void> {
    for (let start = 0; start < this.pages.length; start += 1000)
      await this.#restore(this.pages.slice(start, start + 1000), 'verifying')
  }

  /** Drops all that is kept. */
  async dropAll(): Promise<void> {
    await this.#backup.drop(runsOf(this.pages.map(({ handle }) => handle)))
    this.pages = []
  }

  #below(limit: number): number {
    return Math.floor(this.#random() * limit)
  }

  async #backUp(): Promise<void> {
    const count = 1 + Math.floor(this.#options.maxBatchPages * this.#random() ** 3)
    const ids = Array.from({ length: count }, () => this.#nextId++)
    const memory = pagesOf(ids)
    const cut = this.#below(count + 1) * pageBytes
    const spans = [memory.subarray(0, cut), memory.subarray(cut)].filter((span) => span.length > 0)
    const result = await this.#backup.backupPages(spans)
    const handles = handlesOf(result.handles)
    if (result.error !== undefined) this.#failed(result.error)
    else if (handles.length !== count)
      throw new Error(`${handles.length} handles and no error for ${count} pages`)
    const kept = handles.map((handle, index) => ({ id: ids[index]!, handle }))
    this.counts.backedUp += kept.length
    this.pages.push(...kept)
    await this.#options.onKept(kept)
  }

  async #copy(): Promise<void> {
    const start = this.#below(this.pages.length)
    const count = 1 + Math.floor(this.#options.maxBatchPages * this.#random() ** 3)
    const chosen =
      this.#random() < 0.7
        ? this.pages.slice(start, start + count)
        : Array.from({ length: Math.min(count, 50) }, () => this.pages[this.#below(this.pages.length)]!)
    await this.#restore(chosen, 'restoring')
  }

  async #restore(pages: readonly KeptPage[], what: string): Promise<void> {
    const memory = new Uint8Array(pages.length * pageBytes).fill(0xa5)
    const runs = runsOf(pages.map(({ handle }) => handle))
    const { copied, error } = await this.#backup.copyPages(runs, [memory])
    if (error !== undefined) this.#failed(error)
    else if (copied !== pages.length)
      throw new Error(`${copied} of ${pages.length} pages copied and no error`)
    const ids = pages.slice(0, copied).map(({ id }) => id)
    assertPages(memory, ids, what)
    this.counts.copied += copied
  }

  async #drop(): Promise<void> {
    const start = this.#below(this.pages.length)
    const count = 1 + this.#below(this.#options.maxBatchPages)
    const dropped = this.pages.slice(start, start + count)
    await this.#options.onDropping(dropped)
    this.pages.splice(start, count)
    await this.#backup.drop(runsOf(dropped.map(({ handle }) => handle)))
    this.counts.dropped += dropped.length
  }

  #failed(error: Error): void {
    const code = isSpillwayError(error) ? error.code : error.name
    if (code === 'EBADMSG') throw error
    this.counts.failedCalls++
    this.errors.set(code, (this.errors.get(code) ?? 0) + 1)
  }
}
