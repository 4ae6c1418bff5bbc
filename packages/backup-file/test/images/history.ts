import { type HandleRun, seededRandom } from '@spillway/core'
import { type CrashOptions, crashStates } from '../losing-file/crash-states.ts'
import { LosingFile, type LosingFileOptions } from '../losing-file/losing-file.ts'
import { ReadTree } from '../losing-file/read-tree.ts'
import { handlesOf, SmallStore } from './small-store.ts'

/** What an image has: the word of each page, by block. */
export type Content = readonly (readonly number[])[]

/** So long that a root with an image takes more than one sector, and can be torn. */
const names = ['a'.repeat(500), 'b'.repeat(500)] as const

/** In the log of the file: what a call is about to make of an image, and that it has. */
interface Mark {
  readonly name: string
  readonly content: Content | undefined
  readonly isOver: boolean
}

export interface HistoryOptions {
  readonly seed: number
  readonly calls: number
  /** Default: a new file that has a store without images. */
  readonly file?: LosingFile
  readonly fateOfSync?: LosingFileOptions['fateOfSync']
}

/** A new file with a store that is durable. */
export async function newFile(fateOfSync?: LosingFileOptions['fateOfSync']): Promise<LosingFile> {
  const file = new LosingFile()
  await SmallStore.create(file)
  return new LosingFile({ start: file.live, ...(fateOfSync && { fateOfSync }) })
}

/**
 * Saves, replaces and removes images of up to 64 pages, in a store that is opened for it. Pages belong to nobody but images once a save
 * is over, their slots are used again at once, and others store pages during each sync. Returns the file; a call that fails
 * with `EIO` ends it.
 */
export async function history({ seed, calls, file, fateOfSync }: HistoryOptions): Promise<LosingFile> {
  const random = seededRandom(seed)
  const upTo = (most: number) => 1 + Math.floor(random() * most)
  const used = file ?? (await newFile(fateOfSync))
  try {
    const store = await SmallStore.open(used)
    const writer = new HistoryWriter(store, used, seed)
    await writer.markFound(names)
    for (let call = 0; call < calls; call++) {
      const name = names[random() < 0.7 ? 0 : 1]
      const kind = random()
      if (kind < 0.15) await writer.remove(name)
      else if (kind < 0.5)
        await writer.replace(
          name,
          Array.from({ length: upTo(4) }, () => upTo(16)),
        )
      else await writer.change(name, upTo(8))
    }
  } catch (failure) {
    if ((failure as { code?: string }).code !== 'EIO') throw failure
  }
  return used
}

export class HistoryWriter {
  readonly #store: SmallStore
  readonly #file: LosingFile
  #word: number

  constructor(store: SmallStore, file: LosingFile, seed: number) {
    this.#store = store
    this.#file = file
    // What one history wrote is not taken for what another did.
    this.#word = (seed % 2 ** 11) * 2 ** 20
  }

  /** What an opening found stays: no crash may bring back what was before. */
  async markFound(names: readonly string[]): Promise<void> {
    for (const name of names) this.#mark(name, await contentOf(this.#store, name), true)
  }

  /** A whole image, with so many pages in each of its blocks. */
  async replace(name: string, pageCounts: readonly number[]): Promise<void> {
    const content = pageCounts.map((count) => this.#words(count))
    await this.#save(name, content, [...content.keys()])
  }

  /** Another content of the last block, and one block more while there are few; the whole image when there is none. */
  async change(name: string, pages: number): Promise<void> {
    const before = await contentOf(this.#store, name)
    if (before === undefined || before.length === 0) return this.replace(name, [pages, pages])
    const last = before.length - 1
    const content = [...before.slice(0, last), this.#words(pages)]
    const changed = [last]
    if (content.length < 4) changed.push(content.push(this.#words(pages)) - 1)
    await this.#save(name, content, changed, (await this.#revisionOf(name))!)
  }

  async remove(name: string): Promise<void> {
    if (!this.#store.images.names().includes(name)) return
    this.#mark(name, undefined, false)
    await this.#store.images.remove(name)
    this.#mark(name, undefined, true)
  }

  async #save(name: string, content: Content, changed: readonly number[], since?: string): Promise<void> {
    const keeps = []
    for (const index of changed) keeps.push(await this.#store.store(content[index]!))
    const body = changed.map((index) => ({ index, bytes: Buffer.from(JSON.stringify(content[index])) }))
    this.#mark(name, content, false)
    const scratch: HandleRun[] = []
    this.#store.duringSync = async () => {
      scratch.push(...(await this.#store.store(this.#words(2))))
    }
    try {
      await this.#store.images.save(name, { body, keeps, ...(since && { since }) })
    } finally {
      this.#store.duringSync = undefined
      this.#store.drop([...keeps.flat(), ...scratch])
    }
    this.#mark(name, content, true)
  }

  async #revisionOf(name: string): Promise<string | undefined> {
    const image = await this.#store.images.load(name)
    this.#store.drop(image.keeps.flatMap((runs) => [...runs]))
    return image.revision
  }

  #words(count: number): number[] {
    return Array.from({ length: count }, () => ++this.#word)
  }

  #mark(name: string, content: Content | undefined, isOver: boolean): void {
    this.#file.mark({ name, content, isOver } satisfies Mark)
  }
}

/** What an image has; `undefined` when it is not there. Throws when a page is not what the image says. */
export async function contentOf(store: SmallStore, name: string): Promise<Content | undefined> {
  if (!store.images.names().includes(name)) return undefined
  const { body, keeps } = await store.images.load(name)
  const content: number[][] = []
  for (const [index, bytes] of body.entries()) {
    const words = JSON.parse(Buffer.from(bytes).toString()) as number[]
    const handles = handlesOf(keeps[index]!)
    if (handles.length !== words.length) throw new Error(`block ${index} of ${name} keeps other pages`)
    for (const [page, handle] of handles.entries()) {
      const found = await store.wordOf(handle)
      if (found !== words[page]) throw new Error(`page ${page} of block ${index} of ${name} has ${found}`)
    }
    content.push(words)
  }
  store.drop(keeps.flatMap((runs) => [...runs]))
  return content
}

export interface Verdict {
  readonly states: number
  /** Of these, each differs from each other in what an opening reads. */
  readonly differentStates: number
  /** States in which one of the roots was written in part. */
  readonly tornRoots: number
  /** What was wrong, in words, of the first few states. */
  readonly wrong: readonly string[]
}

/**
 * Opens what crashes leave: every image has to be the old one or the new one, whole. States in which an opening reads the same are opened
 * once, and each is held against what is allowed at its moment.
 */
export async function judge(file: LosingFile, options: CrashOptions): Promise<Verdict> {
  const openings = new ReadTree(openedImages)
  let [states, tornRoots] = [0, 0]
  const wrong: string[] = []
  let marks: readonly unknown[] | undefined
  let allowed: Allowed = new Map()
  for (const state of crashStates(file.start, file.log, options)) {
    if (state.marks !== marks) allowed = allowedBy(state.marks as readonly Mark[])
    marks = state.marks
    const found = await openings.answerOf(state.content)
    const what = wrongOf(found, allowed)
    if (what !== undefined) wrong.push(`${what}, ${state.describe()}`)
    if (wrong.length === 3) break
    states++
    if (found.rootTorn) tornRoots++
  }
  return { states, differentStates: openings.answers, tornRoots, wrong }
}

/** What an image may be, by name, as JSON. */
type Allowed = ReadonlyMap<string, readonly string[]>

const nothing = JSON.stringify([undefined])

function allowedBy(marks: readonly Mark[]): Allowed {
  const allowed = new Map<string, string[]>()
  for (const { name, content: next, isOver } of marks) {
    const before = allowed.get(name)?.[0] ?? nothing
    allowed.set(name, isOver ? [JSON.stringify([next])] : [before, JSON.stringify([next])])
  }
  return allowed
}

interface Found {
  readonly rootTorn: boolean
  /** As JSON, by name; what failed instead. */
  readonly images: ReadonlyMap<string, string> | Error
}

async function openedImages(file: LosingFile): Promise<Found> {
  let rootTorn = false
  try {
    const store = await SmallStore.open(file)
    rootTorn = store.rootTorn
    const images = new Map<string, string>()
    for (const name of store.images.names()) images.set(name, JSON.stringify([await contentOf(store, name)]))
    return { rootTorn, images }
  } catch (failure) {
    return { rootTorn, images: failure as Error }
  }
}

function wrongOf({ images }: Found, allowed: Allowed): string | undefined {
  if (images instanceof Error) return `opening: ${images.message}`
  for (const name of new Set([...allowed.keys(), ...images.keys()])) {
    const image = images.get(name) ?? nothing
    if (!(allowed.get(name) ?? [nothing]).includes(image)) return `${name} is ${image}`
  }
  return undefined
}
