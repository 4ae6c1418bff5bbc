import { SpillwayError } from '@spillway/core'
import type { MemoryBlock, MemoryRequest, MemoryRun, PageProvider } from '../providers/provider.ts'

/**
 * The "system" below the pool's free lists: blocks of a provider, carved by halves (a buddy scheme).
 *
 *   provider ── block (a slab) ──▶ pieces of 2^order pages ──▶ chunks
 *
 * A chunk's place is one number, its frame. Frames are numbered in spans of 2^maxOrder; a span belongs to one slab of that
 * order, or to several smaller ones of one order, so that no provider's small blocks use up the numbers:
 *
 *   frame = span × 2^maxOrder + place of the slab in its span × 2^(order of the slab) + page within the slab
 *
 * A piece that is free merges with its other half; a slab that is wholly free goes back to its provider. With page-exact release a free piece has no
 * memory behind it; without, it stays resident ("stranded") until its slab is free, and is the first to be reused.
 */
export class Slabs {
  readonly maxOrder: number
  readonly pageSizeBytes: number
  /** Pages of slabs that no chunk uses but that still hold memory. */
  strandedPages = 0
  /** The provider that new slabs come from; slabs that exist go back to their own (T81). */
  provider: PageProvider | undefined
  readonly #spans: Span[] = []
  /** Spans without slabs, and by order those that have some and room for more. */
  readonly #emptySpans: Span[] = []
  readonly #roomySpans: Set<Span>[]
  #slabCount = 0
  /** By order, of resident slabs and then of page-exact ones: frames of free pieces. The slab's own mark tells what is stale. */
  readonly #candidates: number[][]
  /** By the same: the number of candidates at which those are forgotten that are none any more. */
  readonly #sweepAt: number[]
  readonly #spanPages: number
  readonly #request: { lengthBytes: number; whole: boolean; retryMayFail: boolean }

  constructor(pageSizeBytes: number, maxOrder: number) {
    this.pageSizeBytes = pageSizeBytes
    this.maxOrder = maxOrder
    this.#spanPages = 1 << maxOrder
    this.#roomySpans = Array.from({ length: maxOrder + 1 }, () => new Set<Span>())
    this.#candidates = Array.from({ length: 2 * (maxOrder + 1) }, () => [])
    this.#sweepAt = new Array(2 * (maxOrder + 1)).fill(leastSweep)
    this.#request = { lengthBytes: 0, whole: true, retryMayFail: false }
  }

  /** Bytes of what is known of the slabs, for the statistics: as measured, since their views are the engine's. */
  get metadataBytes(): number {
    return this.#slabCount * slabBytes
  }

  /** Slabs that exist. */
  get slabCount(): number {
    return this.#slabCount
  }

  /**
   * Takes a free piece of a slab that exists, splitting a larger one if need be; its frame, or −1. After a change of providers
   * there are both kinds of pieces: those that are resident anyway come first, since they need no room.
   */
  takePiece(order: number): number {
    const resident = this.strandedPages > 0 ? this.#takePieceOf(false, order) : -1
    return resident >= 0 ? resident : this.#takePieceOf(true, order)
  }

  #takePieceOf(exact: boolean, order: number): number {
    for (let from = order; from <= this.maxOrder; from++) {
      const frame = this.#popCandidate(exact, from)
      if (frame < 0) continue
      const slab = this.slabOf(frame)
      const offset = this.#offset(frame)
      slab.pieces![offset] = 0
      for (let half = from - 1; half >= order; half--) this.#addPiece(slab, frame + (1 << half), half)
      slab.freePages -= 1 << order
      if (!slab.exact) this.strandedPages -= 1 << order
      return frame
    }
    return -1
  }

  /** Asks the provider for a slab that is one chunk of 2^order pages; its frame, or −1. */
  takeSlab(order: number, retryMayFail: boolean): number {
    return this.#open(order, true, retryMayFail)
  }

  /** Asks the provider for a slab of 2^slabOrder pages to carve; false when there is none. */
  addSlab(slabOrder: number, retryMayFail: boolean): boolean {
    const frame = this.#open(slabOrder, false, retryMayFail)
    if (frame < 0) return false
    const slab = this.slabOf(frame)
    slab.freePages = 1 << slabOrder
    if (!slab.exact) this.strandedPages += slab.freePages
    this.#addPiece(slab, frame, slabOrder)
    return true
  }

  /** Gives a piece to the system. Throws what its provider throws; then the piece is as it was. */
  give(frame: number, order: number): void {
    const slab = this.slabOf(frame)
    const pages = 1 << order
    if (slab.freePages + pages === 1 << slab.order) {
      this.#close(slab)
      return
    }
    if (slab.exact) slab.provider.release!(this.run(frame, pages))
    else this.strandedPages += pages
    slab.freePages += pages
    this.#merge(slab, frame, order)
  }

  /**
   * Takes back a piece of a page-exact slab that was not used since `takePiece`: there is no memory to give. A slab that is
   * wholly free by it stays, to be reused, until `closeUnused`.
   */
  untake(frame: number, order: number): void {
    const slab = this.slabOf(frame)
    slab.freePages += 1 << order
    this.#merge(slab, frame, order)
  }

  /** Puts back slabs of which nothing is used; `failed` is told of providers that do not take theirs. */
  closeUnused(failed: (provider: PageProvider, failure: unknown) => void): void {
    for (const { slabs } of this.#spans) {
      for (const slab of slabs) {
        if (slab === undefined || slab.freePages < 1 << slab.order) continue
        try {
          this.#close(slab)
        } catch (failure) {
          failed(slab.provider, failure)
        }
      }
    }
  }

  /**
   * The memory of `pageCount` pages from `frame` on: the slab's own view where it is all of it. Throws `EFAULT` when the
   * application has resized or detached the memory behind a view that it was given.
   */
  bytes(frame: number, pageCount: number): Uint8Array {
    const slab = this.slabOf(frame)
    const offset = frame - slab.frame
    if (!this.#hasMemory(slab)) throw tamperedMemory(slab)
    if (offset === 0 && pageCount === 1 << slab.order) return slab.bytes
    return slab.bytes.subarray(offset * this.pageSizeBytes, (offset + pageCount) * this.pageSizeBytes)
  }

  /** Whether the memory of a frame is what its provider gave; not when the application has resized or detached it. */
  isIntact(frame: number): boolean {
    return this.#hasMemory(this.slabOf(frame))
  }

  #hasMemory({ bytes, order }: Slab): boolean {
    return bytes.byteLength === this.pageSizeBytes << order
  }

  /** The memory of pages as their provider knows it. */
  run(frame: number, pageCount: number): MemoryRun {
    return {
      block: this.slabOf(frame).block,
      offsetBytes: this.#offset(frame) * this.pageSizeBytes,
      lengthBytes: pageCount * this.pageSizeBytes,
    }
  }

  /** The provider that pages came from, and go back to (T81). */
  providerOf(frame: number): PageProvider {
    return this.slabOf(frame).provider
  }

  /** Whether memory behind free pieces of this frame's slab goes to the system page by page. */
  isExact(frame: number): boolean {
    return this.slabOf(frame).exact
  }

  slabOf(frame: number): Slab {
    const span = this.#spans[frame >> this.maxOrder]!
    return span.slabs[(frame & (this.#spanPages - 1)) >> span.order]!
  }

  /** The page within its slab. */
  #offset(frame: number): number {
    return frame - this.slabOf(frame).frame
  }

  #open(order: number, whole: boolean, retryMayFail: boolean): number {
    const provider = this.provider
    const span = provider === undefined ? undefined : this.#spanFor(order)
    if (provider === undefined || span === undefined) return -1
    const request = this.#request
    request.lengthBytes = (1 << order) * this.pageSizeBytes
    request.whole = whole && order === this.maxOrder
    request.retryMayFail = retryMayFail
    const block = provider.get(order, request as MemoryRequest)
    if (block === undefined) return -1
    if (block.bytes.byteLength !== request.lengthBytes) {
      const found = block.bytes.byteLength
      provider.put(block)
      throw new TypeError(`provider ${provider.name} gave ${found} bytes; asked for ${request.lengthBytes}`)
    }
    const place = span.freePlaces.pop() ?? span.slabs.length
    const slab: Slab = {
      frame: span.id * this.#spanPages + (place << order),
      block,
      bytes: block.bytes,
      order,
      provider,
      exact: provider.capabilities.pageExactRelease,
      freePages: 0,
      pieces: undefined,
    }
    this.#enter(span, place, slab)
    return slab.frame
  }

  /** A span with room for a slab of this order; undefined when all frames have their numbers. */
  #spanFor(order: number): Span | undefined {
    for (const span of this.#roomySpans[order]!) return span
    const span = this.#emptySpans.at(-1)
    if (span === undefined) {
      if ((this.#spans.length + 1) * this.#spanPages > maxFrames) return undefined
      const added = { id: this.#spans.length, order, slabs: [], freePlaces: [] }
      this.#spans.push(added)
      this.#emptySpans.push(added)
      return this.#spanFor(order)
    }
    if (span.order !== order) {
      span.order = order
      span.slabs = []
      span.freePlaces = []
    }
    return span
  }

  #enter(span: Span, place: number, slab: Slab): void {
    if (span === this.#emptySpans.at(-1)) this.#emptySpans.pop()
    span.slabs[place] = slab
    this.#slabCount++
    const places = 1 << (this.maxOrder - slab.order)
    if (span.freePlaces.length > 0 || span.slabs.length < places) this.#roomySpans[slab.order]!.add(span)
    else this.#roomySpans[slab.order]!.delete(span)
  }

  #close(slab: Slab): void {
    slab.provider.put(slab.block)
    if (!slab.exact) this.strandedPages -= slab.freePages
    const span = this.#spans[slab.frame >> this.maxOrder]!
    const place = (slab.frame & (this.#spanPages - 1)) >> slab.order
    span.slabs[place] = undefined
    span.freePlaces.push(place)
    this.#slabCount--
    if (span.freePlaces.length < span.slabs.length) {
      this.#roomySpans[slab.order]!.add(span)
      return
    }
    this.#roomySpans[slab.order]!.delete(span)
    this.#emptySpans.push(span)
  }

  #addPiece(slab: Slab, frame: number, order: number): void {
    slab.pieces ??= new Uint8Array(1 << slab.order)
    slab.pieces[this.#offset(frame)] = order + 1
    const list = this.#listOf(slab.exact, order)
    const candidates = this.#candidates[list]!
    candidates.push(frame)
    if (candidates.length >= this.#sweepAt[list]!) this.#sweep(slab.exact, order)
  }

  #merge(slab: Slab, frame: number, order: number): void {
    slab.pieces ??= new Uint8Array(1 << slab.order)
    let mergedFrame = frame
    let mergedOrder = order
    while (mergedOrder < slab.order) {
      const half = mergedFrame ^ (1 << mergedOrder)
      if (slab.pieces[this.#offset(half)] !== mergedOrder + 1) break
      slab.pieces[this.#offset(half)] = 0
      mergedFrame = Math.min(mergedFrame, half)
      mergedOrder++
    }
    this.#addPiece(slab, mergedFrame, mergedOrder)
  }

  /**
   * Forgets candidates that are none any more: chunks that are given back page by page leave one at each order. At least
   * half of the list is new since the last time, so it costs nothing in the long run.
   */
  #sweep(exact: boolean, order: number): void {
    const list = this.#listOf(exact, order)
    const pieces: number[] = []
    for (const frame of this.#candidates[list]!) {
      if (!this.#isPiece(exact, frame, order)) continue
      // Once only, though it may be in the list twice.
      this.slabOf(frame).pieces![this.#offset(frame)] = 0
      pieces.push(frame)
    }
    for (const frame of pieces) this.slabOf(frame).pieces![this.#offset(frame)] = order + 1
    this.#candidates[list] = pieces
    this.#sweepAt[list] = Math.max(leastSweep, pieces.length * 2)
  }

  #popCandidate(exact: boolean, order: number): number {
    const candidates = this.#candidates[this.#listOf(exact, order)]!
    for (let frame = candidates.pop(); frame !== undefined; frame = candidates.pop()) {
      if (this.#isPiece(exact, frame, order)) return frame
    }
    return -1
  }

  /** Whether a free piece of this order begins at a frame; its slab may be another one by now, of the other kind too. */
  #isPiece(exact: boolean, frame: number, order: number): boolean {
    const span = this.#spans[frame >> this.maxOrder]
    const slab = span?.slabs[(frame & (this.#spanPages - 1)) >> span.order]
    if (slab?.exact !== exact || slab.pieces?.[frame - slab.frame] !== order + 1) return false
    return this.#hasMemory(slab)
  }

  #listOf(exact: boolean, order: number): number {
    return exact ? this.maxOrder + 1 + order : order
  }
}

const leastSweep = 4096
const slabBytes = 900

/** Frames, and twice a frame plus one, are numbers of 31 bits. */
const maxFrames = 2 ** 30

/** 2^maxOrder frames. */
interface Span {
  readonly id: number
  /** Order of its slabs. */
  order: number
  /** By place; and the places that a slab has left. */
  slabs: (Slab | undefined)[]
  freePlaces: number[]
}

interface Slab {
  /** The first. */
  readonly frame: number
  readonly block: MemoryBlock
  readonly bytes: Uint8Array
  readonly order: number
  readonly provider: PageProvider
  /** The provider releases page by page. */
  readonly exact: boolean
  freePages: number
  /** By page: 1 + order of the free piece that begins there, or 0. */
  pieces: Uint8Array | undefined
}

function tamperedMemory({ provider }: Slab): SpillwayError {
  const message = `memory of page provider ${provider.name} was resized or detached outside of the pool; its content is lost`
  return new SpillwayError('EFAULT', message)
}
