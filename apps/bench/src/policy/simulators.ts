import { pageCountOf, type Trace } from './trace.ts'

/** Which pages are in a memory of so many pages. */
export interface PageCache {
  /** Access number `index` of the trace, to a page. Says whether it was there; tells `evicted` of each page that leaves. */
  access(page: number, index: number): boolean
}

/** Told of each page that leaves. */
export type Evicted = (page: number) => void

/** What became of a trace, after the accesses that are not counted. */
export interface Outcome {
  /** Share of the accesses whose page was there. */
  readonly hitRate: number
  /** Pages that were written to and had to be stored when they left. */
  readonly backupWrites: number
}

/** How to make each cache. */
export const simulators = {
  lru: (capacityPages: number, trace: Trace, evicted: Evicted): PageCache =>
    new LruCache(capacityPages, pageCountOf(trace), evicted),
  sieve: (capacityPages: number, trace: Trace, evicted: Evicted): PageCache =>
    new SieveCache(capacityPages, pageCountOf(trace), evicted),
  's3-fifo': (capacityPages: number, trace: Trace, evicted: Evicted): PageCache =>
    new S3FifoCache(capacityPages, pageCountOf(trace), evicted),
  min: (capacityPages: number, trace: Trace, evicted: Evicted): PageCache =>
    new MinCache(capacityPages, trace, evicted),
} as const

export type SimulatorName = keyof typeof simulators
export const simulatorNames = Object.keys(simulators) as SimulatorName[]

/** Follows a trace with a cache made by `make`; the first `uncounted` accesses only warm it up. */
export function simulate(
  make: (capacityPages: number, trace: Trace, evicted: Evicted) => PageCache,
  trace: Trace,
  capacityPages: number,
  uncounted: number,
): Outcome {
  const dirty = new Uint8Array(pageCountOf(trace))
  let [hits, backupWrites, index] = [0, 0, 0]
  const cache = make(capacityPages, trace, (page) => {
    if (index >= uncounted) backupWrites += dirty[page]
    dirty[page] = 0
  })
  for (; index < trace.pages.length; index++) {
    const page = trace.pages[index]
    if (cache.access(page, index) && index >= uncounted) hits++
    if (trace.writes[index] === 1) dirty[page] = 1
  }
  return { hitRate: hits / (trace.pages.length - uncounted), backupWrites }
}

/** A list of pages in two arrays of links; number `pageCount` is its head. New pages come in before the head. */
class LinkedPages {
  readonly next: Int32Array
  readonly previous: Int32Array
  readonly head: number

  constructor(pageCount: number) {
    this.head = pageCount
    this.next = new Int32Array(pageCount + 1).fill(pageCount)
    this.previous = new Int32Array(pageCount + 1).fill(pageCount)
  }

  append(page: number): void {
    const last = this.previous[this.head]
    this.next[last] = page
    this.previous[page] = last
    this.next[page] = this.head
    this.previous[this.head] = page
  }

  remove(page: number): void {
    this.next[this.previous[page]] = this.next[page]
    this.previous[this.next[page]] = this.previous[page]
  }
}

/** The page that was not used for longest leaves. */
class LruCache implements PageCache {
  readonly #list: LinkedPages
  readonly #isThere: Uint8Array
  readonly #capacityPages: number
  readonly #evicted: Evicted
  #count = 0

  constructor(capacityPages: number, pageCount: number, evicted: Evicted) {
    this.#capacityPages = capacityPages
    this.#list = new LinkedPages(pageCount)
    this.#isThere = new Uint8Array(pageCount)
    this.#evicted = evicted
  }

  access(page: number): boolean {
    const isHit = this.#isThere[page] === 1
    if (isHit) this.#list.remove(page)
    else if (this.#count < this.#capacityPages) this.#count++
    else {
      const oldest = this.#list.next[this.#list.head]
      this.#list.remove(oldest)
      this.#isThere[oldest] = 0
      this.#evicted(oldest)
    }
    this.#list.append(page)
    this.#isThere[page] = 1
    return isHit
  }
}

/** SIEVE (Zhang et al., NSDI 2024): a hand goes from old to new, and takes the first page that was not used since it passed. */
class SieveCache implements PageCache {
  readonly #list: LinkedPages
  readonly #isThere: Uint8Array
  readonly #isVisited: Uint8Array
  readonly #capacityPages: number
  readonly #evicted: Evicted
  #count = 0
  #hand: number

  constructor(capacityPages: number, pageCount: number, evicted: Evicted) {
    this.#capacityPages = capacityPages
    this.#list = new LinkedPages(pageCount)
    this.#isThere = new Uint8Array(pageCount)
    this.#isVisited = new Uint8Array(pageCount)
    this.#evicted = evicted
    this.#hand = this.#list.head
  }

  access(page: number): boolean {
    if (this.#isThere[page] === 1) {
      this.#isVisited[page] = 1
      return true
    }
    if (this.#count < this.#capacityPages) this.#count++
    else this.#evict()
    this.#list.append(page)
    this.#isThere[page] = 1
    this.#isVisited[page] = 0
    return false
  }

  #evict(): void {
    const { next, head } = this.#list
    let page = this.#hand === head ? next[head] : this.#hand
    while (this.#isVisited[page] === 1) {
      this.#isVisited[page] = 0
      page = next[page] === head ? next[head] : next[page]
    }
    this.#hand = next[page]
    this.#list.remove(page)
    this.#isThere[page] = 0
    this.#evicted(page)
  }
}

/** Pages in the order in which they came, in a ring. */
class PageQueue {
  readonly #pages: Int32Array
  #first = 0
  length = 0

  constructor(mostPages: number) {
    this.#pages = new Int32Array(mostPages)
  }

  push(page: number): void {
    this.#pages[(this.#first + this.length++) % this.#pages.length] = page
  }

  shift(): number {
    const page = this.#pages[this.#first]
    this.#first = (this.#first + 1) % this.#pages.length
    this.length--
    return page
  }
}

/**
 * S3-FIFO (Yang et al., SOSP 2023, algorithm 1): new pages come into a small queue of a tenth; those that were used more than
 * once there, and those that are back while they are remembered, go to the main queue.
 */
class S3FifoCache implements PageCache {
  readonly #small: PageQueue
  readonly #main: PageQueue
  readonly #ghosts: PageQueue
  readonly #smallPages: number
  readonly #mainPages: number
  readonly #capacityPages: number
  readonly #isThere: Uint8Array
  /** Uses since a page came into its queue, up to 3. */
  readonly #uses: Uint8Array
  /** How often a page is among the ghosts: one that came back leaves its old place behind. */
  readonly #isGhost: Uint8Array
  readonly #staleGhosts: Uint8Array
  readonly #evicted: Evicted

  constructor(capacityPages: number, pageCount: number, evicted: Evicted) {
    this.#capacityPages = capacityPages
    this.#smallPages = Math.max(1, Math.floor(capacityPages / 10))
    this.#mainPages = capacityPages - this.#smallPages
    this.#small = new PageQueue(capacityPages + 1)
    this.#main = new PageQueue(capacityPages + 1)
    this.#ghosts = new PageQueue(this.#mainPages + 1)
    this.#isThere = new Uint8Array(pageCount)
    this.#uses = new Uint8Array(pageCount)
    this.#isGhost = new Uint8Array(pageCount)
    this.#staleGhosts = new Uint8Array(pageCount)
    this.#evicted = evicted
  }

  access(page: number): boolean {
    if (this.#isThere[page] === 1) {
      this.#uses[page] = Math.min(3, this.#uses[page] + 1)
      return true
    }
    while (this.#small.length + this.#main.length >= this.#capacityPages) this.#evict()
    if (this.#isGhost[page] === 1) {
      this.#isGhost[page] = 0
      this.#staleGhosts[page]++
      this.#main.push(page)
    } else {
      this.#small.push(page)
    }
    this.#isThere[page] = 1
    this.#uses[page] = 0
    return false
  }

  #evict(): void {
    if (this.#small.length >= this.#smallPages) this.#evictFromSmall()
    else this.#evictFromMain()
  }

  #evictFromSmall(): void {
    while (this.#small.length > 0) {
      const page = this.#small.shift()
      if (this.#uses[page] > 1) {
        this.#uses[page] = 0
        if (this.#main.length >= this.#mainPages) this.#evictFromMain()
        this.#main.push(page)
        continue
      }
      this.#remember(page)
      this.#isThere[page] = 0
      this.#evicted(page)
      return
    }
  }

  #evictFromMain(): void {
    while (this.#main.length > 0) {
      const page = this.#main.shift()
      if (this.#uses[page] > 0) {
        this.#uses[page]--
        this.#main.push(page)
        continue
      }
      this.#isThere[page] = 0
      this.#evicted(page)
      return
    }
  }

  #remember(page: number): void {
    if (this.#ghosts.length >= this.#mainPages) {
      const oldest = this.#ghosts.shift()
      if (this.#staleGhosts[oldest] > 0) this.#staleGhosts[oldest]--
      else this.#isGhost[oldest] = 0
    }
    this.#ghosts.push(page)
    this.#isGhost[page] = 1
  }
}

/** MIN (Belady, 1966): the page that is used again last, or never, leaves. */
class MinCache implements PageCache {
  readonly #capacityPages: number
  readonly #evicted: Evicted
  /** By access: the next access to the same page. */
  readonly #nextUse: Float64Array
  /** By page: its next use while it is there, else 0. */
  readonly #uses: Float64Array
  /** Pages and the next use that they had when they were put in, the last use first; what changed since is skipped. */
  readonly #heap: { page: number; use: number }[] = []
  #count = 0

  constructor(capacityPages: number, trace: Trace, evicted: Evicted) {
    this.#capacityPages = capacityPages
    this.#evicted = evicted
    this.#nextUse = nextUsesOf(trace)
    this.#uses = new Float64Array(pageCountOf(trace))
  }

  access(page: number, index: number): boolean {
    const isHit = this.#uses[page] > 0
    if (!isHit) {
      if (this.#count < this.#capacityPages) this.#count++
      else this.#evict()
    }
    this.#uses[page] = this.#nextUse[index]
    this.#push({ page, use: this.#nextUse[index] })
    return isHit
  }

  #evict(): void {
    for (let top = this.#pop(); top !== undefined; top = this.#pop()) {
      if (this.#uses[top.page] !== top.use) continue
      this.#uses[top.page] = 0
      this.#evicted(top.page)
      return
    }
  }

  #push(entry: { page: number; use: number }): void {
    const heap = this.#heap
    let at = heap.push(entry) - 1
    while (at > 0) {
      const parent = (at - 1) >> 1
      if (heap[parent].use >= entry.use) break
      heap[at] = heap[parent]
      at = parent
    }
    heap[at] = entry
  }

  #pop(): { page: number; use: number } | undefined {
    const heap = this.#heap
    const top = heap[0]
    const last = heap.pop()
    if (last === undefined || heap.length === 0) return top
    let at = 0
    for (let child = 1; child < heap.length; child = 2 * at + 1) {
      if (child + 1 < heap.length && heap[child + 1].use > heap[child].use) child++
      if (heap[child].use <= last.use) break
      heap[at] = heap[child]
      at = child
    }
    heap[at] = last
    return top
  }
}

/** For each access, the index of the next one to the same page; pages that are used no more have uses of their own, after all. */
function nextUsesOf(trace: Trace): Float64Array {
  const { pages } = trace
  const nextUse = new Float64Array(pages.length)
  const following = new Float64Array(pageCountOf(trace))
  for (let index = pages.length - 1; index >= 0; index--) {
    const page = pages[index]
    nextUse[index] = following[page] || pages.length + page + 1
    following[page] = index
  }
  return nextUse
}
