export type { BackupOptions, Progress, RestoreOptions, TransferResult } from './buffer/call-progress.ts'
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
} from './buffer/options.ts'
export { PagedBuffer } from './buffer/paged-buffer.ts'
export { type NumbersType, Pin } from './buffer/pin.ts'
export type { BufferDump, FreeListDump, PoolDump, StoreDump } from './introspection/dump.ts'
export type { PoolStats } from './introspection/stats.ts'
export type { TraceEvent } from './introspection/trace.ts'
export { Pool } from './pool.ts'
export type { AllocateOptions, PoolOptions } from './pool-options.ts'
export type {
  Caching,
  MemoryBlock,
  MemoryRequest,
  MemoryRun,
  PageProvider,
  ProviderCapabilities,
} from './providers/provider.ts'
export { ProviderRegistry, providerRegistry } from './providers/registry.ts'
