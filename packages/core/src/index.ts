/**
 * The contract of a backup, handles that are tagged, and what backends are built from.
 *
 * Numbers such as T7, B12 and I11 in the documentation of a call are rows of `docs/semantics.md` in the repository, with the tests of each.
 *
 * @module @spillway/core
 */

export { orAbort } from './abort.ts'
export { type MemoryBackupOptions, memoryBackup } from './backups/memory-backup.ts'
export { MemoryMedium } from './backups/memory-medium.ts'
export { type NullBackupOptions, nullBackup } from './backups/null-backup.ts'
export { type SharedBackup, shareBackup } from './backups/share-backup.ts'
export { CallGate } from './call-gate.ts'
export type {
  Backup,
  BackupCapabilities,
  BackupPagesOptions,
  BackupResult,
  BackupStats,
  CopyDone,
  CopyResult,
  HandleRun,
  ImageBlock,
  ImageContent,
  ImageStore,
  LoadedImage,
  Reservation,
  TransferOptions,
} from './contract.ts'
export { tellCopied } from './copy-done.ts'
export { defineBackup } from './define/define-backup.ts'
export type { BackupDefinition, NumberedPages, PlacedPages, Stopped } from './define/definition.ts'
export { assertInnerBackup, InnerPages, innerError, type KeptRun } from './define/inner-pages.ts'
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
  staleHandleError,
  systemCodeOf,
  systemError,
} from './errors.ts'
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
export { HandleRuns } from './handle-runs.ts'
export { LeakWatch, type LeakWatchOptions, unclosedBackups } from './host/leaks.ts'
export {
  explainNativeImport,
  type LoadedNative,
  type NativeExports,
  type NativeImportFailure,
  OptionalNative,
} from './host/optional-native.ts'
export { environmentValue, oldestNodeVersion } from './host/runtime.ts'
export {
  type MemoryLevel,
  memoryHeadroomBytes,
  type ReadText,
  type SystemMemory,
  type SystemMemoryDirectories,
  SystemMemoryReader,
} from './host/system-memory.ts'
export {
  afterInput,
  afterThisCode,
  delay,
  type Host,
  type HostTimer,
  nowMs,
  replaceHost,
  startInterval,
  startTimer,
  stopInterval,
  stopTimer,
  wallClockMs,
} from './host/timers.ts'
export { warn } from './host/warning.ts'
export { ByteReader, ByteWriter, checksum } from './images/byte-code.ts'
export {
  assertImageName,
  gatedImages,
  type ImageStoreParts,
  maxImageBlockBytes,
} from './images/gated-images.ts'
export {
  type ImageChange,
  type ImageMedium,
  type ImagePages,
  ImageTable,
  type KeptImage,
} from './images/image-table.ts'
export { PageHolds } from './images/page-holds.ts'
export {
  decodeImage,
  decodeImageBlock,
  decodeImageHead,
  encodeImage,
  encodeImageBlock,
  encodeImageHead,
  type ImageHead,
  imageBlockCount,
  imageBlockPages,
  type PageImage,
  type PageReceiver,
  type PageRun,
} from './images/page-image.ts'
export {
  mayWork,
  nextTurn,
  onTurn,
  pace,
  sliceBytes,
  smallCallBytes,
  workInTurn,
  yieldToEventLoop,
} from './pace.ts'
export { firstHandles, firstSpans, restHandles } from './runs.ts'
export { type BitRun, BitSet } from './slots/bit-set.ts'
export { RunMap } from './slots/run-map.ts'
export { SlotAllocator, type SlotAllocatorOptions } from './slots/slot-allocator.ts'
export { SpanCursor, type SpanVisit, splitIntoPages } from './spans.ts'
export { type StagingBuffer, StagingBuffers } from './staging.ts'
export {
  emptyEntry,
  entryPage,
  handleEntry,
  isHandle,
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
  countStartedCopy,
  maxPageSizeBytes,
  minPageSizeBytes,
} from './validation.ts'
