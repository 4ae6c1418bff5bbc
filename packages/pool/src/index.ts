/**
 * Buffers made of pages, under a hard limit of memory.
 *
 * Numbers such as T7, B12 and I11 in the documentation of a call are rows of `docs/semantics.md` in the repository, with the tests of each.
 *
 * @module @spillway/pool
 */

export type { ByteSource, Bytes } from './api/byte-sources.ts'
export { GrowableBuffer } from './api/growable-buffer.ts'
export {
  type BudgetPoolStats,
  type BudgetStats,
  MemoryBudget,
  type MemoryBudgetOptions,
} from './api/memory-budget.ts'
export type {
  AccessOptions,
  Advice,
  BytesProgress,
  CopyOptions,
  FillOptions,
  PiecesOptions,
  PinOptions,
  PurgeOptions,
  RangeAccessOptions,
  RangeOptions,
  ReadWriteOptions,
} from './api/options.ts'
export { PagedBuffer } from './api/paged-buffer.ts'
export { type NumbersType, Pin } from './api/pin.ts'
export { livePools, Pool } from './api/pool.ts'
export type { AllocateOptions, GrowableOptions, LoadOptions, PoolOptions } from './api/pool-options.ts'
export type { BufferWritable } from './api/streams.ts'
export type { BufferDump, FreeListDump, PoolDump, StoreDump } from './diagnostics/dump.ts'
export { type BufferMap, type MapState, mapStates } from './diagnostics/map.ts'
export type { PoolStats } from './diagnostics/stats.ts'
export type { TraceEvent } from './ground/trace.ts'
export type { TracedCall } from './ground/tracing.ts'
export type { BackupOptions, Progress, RestoreOptions, TransferResult } from './operations/call-progress.ts'
export type { SaveOptions } from './operations/save.ts'
export type {
  Caching,
  MemoryBlock,
  MemoryRequest,
  MemoryRun,
  PageProvider,
  ProviderCapabilities,
} from './providers/provider.ts'
export { ProviderRegistry, providerRegistry } from './providers/registry.ts'
