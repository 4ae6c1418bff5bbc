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
export {
  abortError,
  type ErrorCode,
  errorCodes,
  isErrorCode,
  isSpillwayError,
  SpillwayError,
  type SpillwayErrorFields,
  systemError,
} from './errors.ts'
export { SlotAllocator, type SlotAllocatorOptions } from './slots/slot-allocator.ts'
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
  assertByteCount,
  assertKnownOptions,
  assertPageSize,
  countCopy,
  countHandles,
  countPages,
  maxPageSizeBytes,
  minPageSizeBytes,
} from './validation.ts'
