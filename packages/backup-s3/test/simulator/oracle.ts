/** What must be true of the pages that were acknowledged, whoever owns the store. */

export const pageBytes = 4096

interface HandleRun {
  readonly first: number
  readonly count: number
}

/** What is used of a backup: the published interface, so that other builds can be run, too. */
export interface Backup {
  backupPages(
    spans: readonly Uint8Array[],
    options?: { signal: AbortSignal },
  ): Promise<{ handles: readonly HandleRun[]; error?: Error }>
  copyPages(
    handles: readonly HandleRun[],
    spans: readonly Uint8Array[],
  ): Promise<{ copied: number; error?: Error }>
  drop(handles: readonly HandleRun[]): Promise<void>
  close(): Promise<void>
  liveHandles(): HandleRun[]
  stats(): { readonly epoch: string }
  retainOnly(handles: readonly HandleRun[]): Promise<number>
  sweepOrphans(options: object): Promise<unknown>
}

/** A rule that was broken. */
export class Violation extends Error {}

/** A page that was acknowledged. */
export interface Page {
  readonly id: number
  readonly handle: number
  readonly scope: string
  /** Of the owner who stored it. */
  readonly epoch: string
  state: 'live' | 'dropped'
}

/** Keeps account of pages: of each scope, which is the persistent store or the scratch store of a process. */
export class Oracle {
  /** The first rule that was broken. */
  violation: Violation | undefined
  readonly #pages = new Map<string, Page>()
  /** Handles that an owner dropped before whoever stored them was told that they are there. */
  readonly #droppedEarly = new Set<string>()
  #nextId = 1

  fail(text: string): void {
    this.violation ??= new Violation(text)
  }

  /** Pages that no other is like, of which the first has this number. */
  newPages(count: number): { first: number; memory: Buffer } {
    const first = this.#nextId
    this.#nextId += count
    const memory = Buffer.allocUnsafe(count * pageBytes)
    for (let page = 0; page < count; page++) fillPage(memory, page, first + page)
    return { first, memory }
  }

  /** Pages were acknowledged; returns how many. */
  acknowledged(
    { scope, epoch }: { scope: string; epoch: string },
    first: number,
    handles: readonly HandleRun[],
  ): number {
    let page = 0
    for (const run of handles) {
      for (let handle = run.first; handle < run.first + run.count; handle++, page++) {
        const key = `${scope} ${handle}`
        if (this.#pages.has(key)) this.fail(`handle ${handle} was given twice`)
        const state = this.#droppedEarly.has(key) ? 'dropped' : 'live'
        this.#pages.set(key, { id: first + page, handle, scope, epoch, state })
      }
    }
    return page
  }

  /** The owner is about to drop a handle that it found in the store; who stored the page may have yet to hear that it is there. */
  droppedFound(scope: string, handle: number): void {
    const key = `${scope} ${handle}`
    if (!this.#pages.has(key)) this.#droppedEarly.add(key)
  }

  pagesOf(scope: string): Page[] {
    const found: Page[] = []
    for (const page of this.#pages.values()) if (page.scope === scope) found.push(page)
    return found
  }

  /** Reads pages: each has its own bytes, or there is an error, whose code is returned for it. */
  async read(reader: string, backup: Backup, pages: readonly Page[]): Promise<Map<Page, string>> {
    const failures = new Map<Page, string>()
    if (pages.length > 1 && (await this.#readTogether(reader, backup, pages)) === undefined) return failures
    for (const page of pages) {
      const code = await this.#readTogether(reader, backup, [page])
      if (code !== undefined) failures.set(page, code)
    }
    return failures
  }

  /** Undefined, or the code of what went wrong with one of them. */
  async #readTogether(reader: string, backup: Backup, pages: readonly Page[]): Promise<string | undefined> {
    const memory = Buffer.alloc(pages.length * pageBytes)
    const runs = pages.map(({ handle }) => ({ first: handle, count: 1 }))
    const result = await backup
      .copyPages(runs, [memory])
      .catch((error: Error) => ({ copied: 0, error }) as { copied: number; error?: Error })
    for (let index = 0; index < result.copied; index++) {
      const { id, handle } = pages[index]!
      if (!isPage(memory, index, id))
        this.fail(`${reader} reads another page than ${id} for handle ${handle}`)
    }
    if (result.copied === pages.length) return undefined
    return (result.error as { code?: string } | undefined)?.code ?? 'none'
  }
}

/** All handles of runs. */
export function handlesOf(runs: readonly HandleRun[]): Set<number> {
  const handles = new Set<number>()
  for (const { first, count } of runs)
    for (let handle = first; handle < first + count; handle++) handles.add(handle)
  return handles
}

const tag = Buffer.alloc(8)
const expected = Buffer.alloc(pageBytes)

function fillPage(memory: Buffer, page: number, id: number): void {
  tag.writeUInt32LE(id)
  tag.writeUInt32LE(Math.imul(id, 0x9e3779b1) >>> 0, 4)
  memory.fill(tag, page * pageBytes, (page + 1) * pageBytes)
}

function isPage(memory: Buffer, page: number, id: number): boolean {
  fillPage(expected, 0, id)
  return memory.compare(expected, 0, pageBytes, page * pageBytes, (page + 1) * pageBytes) === 0
}
