/**
 * Where memory comes from (T81, T82). A pool asks one provider for blocks of 2^order adjacent pages, mostly of its
 * highest order, carves smaller chunks out of them itself, and puts each block back into the provider it came from.
 *
 *   pool ── get(order) ──▶ provider      a block of zeroed memory, or undefined
 *   pool ── release(part) ▶ provider     pages inside a block go to the system, the block stays (page-exact providers)
 *   pool ── put(block) ───▶ provider     the whole block goes back; the system has its memory when this returns
 *
 * What takes memory must not fail. When `put`, `release` or setting the caching back throws all the same, nothing has changed
 * for the pool: the memory stays idle in it, is used again, and is offered again later; a warning tells of it
 * (`SPILLWAY_PROVIDER_FAILED`). A mapping counts as ended whatever `unmap` throws.
 */

/** How memory is cached by the processor; anything but `'cached'` needs a provider with `setCaching` (T14, T24). */
export type Caching = 'cached' | 'write-combined' | 'uncached'

export const cachings: readonly Caching[] = ['cached', 'write-combined', 'uncached']

/** What a provider's memory can do, as frozen data. The pool branches on this and on nothing else (T82). */
export interface ProviderCapabilities {
  /** Whether pages may leave for a backup; otherwise `backup()` is refused with `EBUSY` (T34). */
  readonly swappable: boolean
  /** Whether the content of a page may move to another page. The pool moves none: chunks are split in place. */
  readonly movable: boolean
  /** Whether other processes can map the memory. */
  readonly shareable: boolean
  /** Whether `release` gives single pages inside a block to the system; otherwise only whole blocks go. */
  readonly pageExactRelease: boolean
}

/** What the pool tells with every request (T22). */
export interface MemoryRequest {
  /** Size of the block. */
  readonly lengthBytes: number
  /** The block will be one chunk, so that huge pages pay; otherwise it will be carved into smaller ones. */
  readonly whole: boolean
  /** Give up rather than reclaim, compact or retry: true for every order above 0 but the beneficial one (T22, T23). */
  readonly retryMayFail: boolean
}

/** Memory from a provider. A provider may return objects of its own that carry more. */
export interface MemoryBlock {
  readonly bytes: Uint8Array
}

/** Adjacent pages whose caching changes together (T24). */
export interface MemoryRun {
  readonly block: MemoryBlock
  readonly offsetBytes: number
  readonly lengthBytes: number
}

export interface PageProvider {
  /** Names this provider in errors, statistics and dumps. */
  readonly name: string
  readonly capabilities: ProviderCapabilities
  /** Whether this provider works here. A throw counts as no. */
  probe(): boolean | Promise<boolean>
  /** A zeroed block of 2^order pages, or undefined when there is none; the pool then tries a lower order (T21). */
  get(order: number, request: MemoryRequest): MemoryBlock | undefined
  /** Takes a block back, for ever, also after the provider was unregistered (T81). */
  put(block: MemoryBlock): void
  /** Gives part of a block to the system; it reads as zeros afterwards. Required with `pageExactRelease`. */
  release?(run: MemoryRun): void
  /** Changes the caching of runs in one call, of all of them or of none; throwing undoes the allocation (T24, T25). */
  setCaching?(runs: readonly MemoryRun[], caching: Caching): void
  /** Maps a run for a device and says its address; throwing undoes the allocation with `EFAULT` (T26). */
  map?(run: MemoryRun): number
  /** Ends a mapping; called once for each `map`, never for memory that was not mapped (T26). */
  unmap?(run: MemoryRun, deviceAddress: number): void
  /** Called by whoever made the provider, when every block was put back. */
  close?(): void
}
