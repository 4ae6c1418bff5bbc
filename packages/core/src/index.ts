export { type MemoryBackupOptions, memoryBackup } from './backups/memory-backup.ts'
export { type NullBackupOptions, nullBackup } from './backups/null-backup.ts'
export { type SharedBackup, shareBackup } from './backups/share-backup.ts'
export { CallGate } from './call-gate.ts'
export type {
  Backup,
  BackupCapabilities,
  BackupPagesOptions,
  BackupResult,
  BackupStats,
  CopyResult,
  HandleRun,
  Reservation,
  TransferOptions,
} from './contract.ts'
export { errnoName, type SystemErrorCode, systemErrorCodes } from './errno.ts'
export {
  abortError,
  type ErrorCode,
  errorCodes,
  isErrorCode,
  isFullError,
  isSpillwayError,
  SpillwayError,
  type SpillwayErrorFields,
  systemCodeOf,
  systemError,
} from './errors.ts'
export { sliceBytes, yieldToEventLoop } from './event-loop.ts'
export { type FaultyBackup, faultyBackup, type RecordedCall } from './faults/faulty-backup.ts'
export {
  type Fault,
  type FaultMethod,
  type FaultPlan,
  type FaultStop,
  faultMethods,
  kernelFaults,
  type RandomFaults,
} from './faults/plan.ts'
export { seededRandom } from './faults/random.ts'
export {
  type MemoryLevel,
  memoryHeadroomBytes,
  type ReadText,
  type SystemMemory,
  type SystemMemoryDirectories,
  SystemMemoryReader,
} from './host/system-memory.ts'
export { SlotAllocator, type SlotAllocatorOptions } from './slots/slot-allocator.ts'
export { splitIntoPages } from './spans.ts'
export {
  clearedEntry,
  emptyEntry,
  entryHandle,
  entryPage,
  handleEntry,
  isHandle,
  isHandleEntry,
  isPageEntry,
  maxHandle,
  maxPage,
  pageEntry,
} from './tagging.ts'
export {
  assertBackupPagesOptions,
  assertByteCount,
  assertKnownOptions,
  assertPageSize,
  assertTransferOptions,
  countCopy,
  countHandles,
  countPages,
  maxPageSizeBytes,
  minPageSizeBytes,
} from './validation.ts'
