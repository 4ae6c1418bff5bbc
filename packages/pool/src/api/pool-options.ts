import type { Backup } from '@spillway/core'
import type { Caching, PageProvider } from '../providers/provider.ts'
import type { ProviderRegistry } from '../providers/registry.ts'
import type { ByteSource } from './byte-sources.ts'
import type { MemoryBudget } from './memory-budget.ts'

export interface PoolOptions {
  /**
   * Memory that the pages of this pool may take, in bytes: a hard limit on all of them together. `'auto'`: half of the
   * memory of the machine or the cgroup, less while the system is short of memory. Required unless there is a `budget`; with one,
   * the most that the pool may have of it, and by default all.
   */
  readonly limitBytes?: number | 'auto' | undefined
  /** The limit that this pool has together with others. Default: one of its own, of `limitBytes`. */
  readonly budget?: MemoryBudget | undefined
  /** The pool's part of the budget, relative to those of the others, beside all `minBytes`. Default 1. */
  readonly weight?: number | undefined
  /** Memory in bytes that other pools of the budget never take from this one. Default 0. */
  readonly minBytes?: number | undefined
  /** Memory in bytes that other pools take only when nothing else is left. Default 0. */
  readonly lowBytes?: number | undefined
  /** Where cold pages go, unless a buffer has a backup of its own. Default none: then nothing can be evicted. */
  readonly backup?: Backup | undefined
  /** Size of a page: a power of two from 4 KiB to 2 MiB. Default: the backup's, else 4096. */
  readonly pageSizeBytes?: number | undefined
  /** The largest chunk is 2^maxOrder pages. Default: 9, or less so that a chunk is 2 MiB at most. */
  readonly maxOrder?: number | undefined
  /** Where memory comes from. Default: the first that works of what is registered, `'mmap'` and `'resizable'`. */
  readonly provider?: 'mmap' | 'resizable' | PageProvider | undefined
  /** Where providers are looked up. Default: `providerRegistry`. */
  readonly providers?: ProviderRegistry | undefined
  /**
   * What a call does when there is no room. `'wait'`: it waits for pins to be released; where a backup fails it waits for one more attempt
   * of that (see `retryMayFail`), then it is `ENOMEM`. `'fail'`: it is `ENOMEM` at once. Default `'wait'`.
   */
  readonly whenFull?: 'wait' | 'fail' | undefined
  /** Memory that is kept warm for the next allocation, within the limit. Default: an eighth of it, 16 MiB at most. */
  readonly idleBytes?: number | undefined
  /** Hand chunks to the backup whole (`'native'`), or page by page (`'always'`; T33). Default `'native'`. */
  readonly split?: 'native' | 'always' | undefined
  /** Write cold pages back before their memory is needed. Default true. */
  readonly background?: boolean | undefined
  /** The order, above 0, for which providers should try hard; 0 for none (T23). Default 0. */
  readonly beneficialOrder?: number | undefined
  /**
   * Hand out views that are detached at release, warn of pins that were collected without a release (`SPILLWAY_LEAKED_PIN`; of buffers
   * that were not freed every pool warns), and tell where in the application both were made. Default false.
   */
  readonly debug?: boolean | undefined
  /** Names this pool in dumps and traces. */
  readonly name?: string | undefined
}

export interface AllocateOptions {
  /** Names the buffer in errors, statistics and dumps. Default: a number. */
  readonly label?: string | undefined
  /** Where this buffer's cold pages go. Default: the pool's backup. */
  readonly backup?: Backup | undefined
  /** The largest chunk of this buffer is 2^maxOrder pages. Default: the pool's. */
  readonly maxOrder?: number | undefined
  /** How the processor caches the memory; anything but `'cached'` needs a provider that can do it. */
  readonly caching?: Caching | undefined
  /** Make a `GrowableBuffer`, to which bytes can be appended. Default false. */
  readonly growable?: boolean | undefined
  /** What it may grow to, in bytes; required with `growable`. It costs nothing until it is reached. */
  readonly maxBytes?: number | undefined
  /**
   * The first content, from byte 0 on; what it does not cover reads as zeros. Default: all zeros. To a buffer that is `growable` it
   * is appended.
   */
  readonly from?: ByteSource | undefined
  /** Stops the writing of `from`: `EINTR`. */
  readonly signal?: AbortSignal | undefined
  /** Map the memory for a device while it is pinned; needs a provider with `map` (T26). Default false. */
  readonly deviceMapped?: boolean | undefined
}

/** The options of a buffer that grows. */
export interface GrowableOptions extends AllocateOptions {
  readonly growable: true
  readonly maxBytes: number
}

export interface LoadOptions {
  /** Where the image is. Default: the pool's backup. */
  readonly backup?: Backup | undefined
  /** Names the buffer in errors, statistics and dumps, and its next image. Default: the label that it was saved with. */
  readonly label?: string | undefined
  /** As of `allocate`. */
  readonly maxOrder?: number | undefined
  readonly caching?: Caching | undefined
  readonly deviceMapped?: boolean | undefined
  /** Stops the call: `EINTR`. */
  readonly signal?: AbortSignal | undefined
}

/** The options that `load` knows. */
export const loadOptions = ['backup', 'label', 'maxOrder', 'caching', 'deviceMapped', 'signal']

/** The options that `allocate` knows. */
export const allocateOptions = [
  'label',
  'backup',
  'maxOrder',
  'caching',
  'deviceMapped',
  'growable',
  'maxBytes',
  'from',
  'signal',
]

/** The options that a pool knows. */
export const poolOptions = [
  'limitBytes',
  'budget',
  'weight',
  'minBytes',
  'lowBytes',
  'backup',
  'pageSizeBytes',
  'maxOrder',
  'provider',
  'providers',
  'whenFull',
  'idleBytes',
  'split',
  'background',
  'beneficialOrder',
  'debug',
  'name',
]

/** Tables and records hold page numbers of 32 bits. */
export const maxPages = 2 ** 32

/** Chunks of at most 1 GiB, whatever the page size. */
export function maxOrderOf(pageSizeBytes: number): number {
  return Math.log2(1024 ** 3 / pageSizeBytes)
}

export function assertOrder(order: number, highest: number, name = 'maxOrder'): void {
  if (Number.isInteger(order) && order >= 0 && order <= highest) return
  throw new RangeError(`${name} is ${order}; it must be an integer from 0 to ${highest}`)
}

export function assertLimit(limitBytes: number, pageSizeBytes: number, maxOrder: number): void {
  const chunkBytes = pageSizeBytes * 2 ** maxOrder
  if (limitBytes >= chunkBytes) return
  throw new RangeError(
    `limitBytes is ${limitBytes}; it must be at least one chunk of ${chunkBytes} bytes (2^maxOrder pages; lower maxOrder)`,
  )
}

export function assertOneOf(value: string, allowed: readonly string[], name: string): void {
  if (!allowed.includes(value)) throw new TypeError(`${name} is ${value}; it can be ${allowed.join(', ')}`)
}
