export { type AccessOptions, type Advice, PagedBuffer, type PinOptions } from './buffer/paged-buffer.ts'
export { Pin } from './buffer/pin.ts'
export type { BackupOptions, Progress, RestoreOptions, TransferResult } from './buffer/transfers.ts'
export type { PoolStats } from './introspection/stats.ts'
export { type AllocateOptions, Pool, type PoolOptions } from './pool.ts'
export type {
  Caching,
  MemoryBlock,
  MemoryRequest,
  MemoryRun,
  PageProvider,
  ProviderCapabilities,
} from './providers/provider.ts'
export { ProviderRegistry, providerRegistry } from './providers/registry.ts'
