import { type Backup, type BackupStats, defineBackup, StagingBuffers, unclosedBackups } from '@spillway/core'
import { CheckedCodec } from './codec.ts'
import { Compactor } from './compactor.ts'
import { CompressedPages } from './compressed-pages.ts'
import { optionalNative } from './native.ts'
import { assertOptions, type CompressedBackupOptions } from './options.ts'
import { PackBuilder } from './pack-builder.ts'
import { PackReader } from './pack-reader.ts'
import { Places } from './places.ts'
import { ZstdCodec } from './zstd-codec.ts'

export interface CompressedBackupStats extends BackupStats {
  /** Name of the codec: `zstd (native)` once units were compressed by the libzstd of the program, else `zstd (node:zlib)`, or of your own. */
  readonly codec: string
  /** Live pages that are one 8-byte word all over, and take no space. */
  readonly sameFilledPages: number
  /** Bytes of the inner backup that compressed units lie in, and what their live pages need of them. */
  readonly packedBytes: number
  readonly packedLiveBytes: number
  /** Bytes read and stored to give back space of units that were dropped in part. */
  readonly compactedBytes: number
  /** Units that could not be moved, for an error of the inner backup or the codec; they are still where they were. */
  readonly compactionErrors: number
  /** A pack that waits in memory until the full inner backup has room for it. */
  readonly bytesInMemory: number
  /** Memory for pages on their way, most so far. */
  readonly stagingBytes: number
  /** Memory for where pages are. */
  readonly metadataBytes: number
  /** Of the backup inside. */
  readonly inner: BackupStats
}

export interface CompressedBackup extends Backup {
  stats(): CompressedBackupStats
}

/**
 * Compresses the pages of another backup, in units of adjacent pages. What does not shrink is stored as it is, and pages of one repeated
 * 8-byte word take no space. Room is told as if nothing were compressed. It closes `inner` when it is closed.
 *
 * Throws `TypeError` for an inner backup that keeps nothing or outlives the process and for a codec that is none, `RangeError` for
 * `unitBytes` that are no multiple of a page.
 */
export function compressedBackup(inner: Backup, options: CompressedBackupOptions = {}): CompressedBackup {
  assertOptions(inner, options)
  const { medium, pageSizeBytes, reserves, detectsCorruption, ...capabilities } = inner.capabilities
  const { name = `compressed ${inner.name}` } = options
  const machine = partsOf(inner, name, options)
  const { pages, packPages, compactor, staging, codec } = machine
  const backup = defineBackup({
    name,
    medium: `compressed ${medium}`,
    pageSizeBytes,
    preferredBatchPages: Math.max(capabilities.preferredBatchPages, packPages),
    preferredCallsInFlight: Math.max(capabilities.preferredCallsInFlight, 2),
    detectsCorruption,
    numbered: {
      slicePages: packPages,
      bytesAvailable: () => inner.bytesAvailable(),
      reserve: reserves ? (bytes) => inner.reserve(bytes) : undefined,
      store: (first, spans, options) => pages.store(first, spans, options),
      copyRuns: (handles, spans, options) => pages.copyRuns(handles, spans, options),
      drop: (handles) => pages.drop(handles),
    },
    startCopy: (first, span, done) => pages.startCopy(first, span, done),
    mediumBytes: () => inner.stats().mediumBytes,
    figures: () => figuresOf(machine, inner.stats()),
    async release() {
      unclosedBackups.unwatch(watched)
      await compactor.stop()
      staging.close()
      codec.close()
      await inner.close()
    },
  })
  const watched = unclosedBackups.watch(backup, name, () => {
    staging.close()
    // What it holds is not the garbage collector's.
    codec.close()
  })
  return backup
}

type Parts = ReturnType<typeof partsOf>

function partsOf(inner: Backup, name: string, options: CompressedBackupOptions) {
  const { capabilities } = inner
  const { pageSizeBytes } = capabilities
  const { unitBytes = Math.max(defaultUnitBytes, pageSizeBytes) } = options
  const { compactionBytesPerSecond: bytesPerSecond = defaultCompactionBytes } = options
  const unitPages = unitBytes / pageSizeBytes
  const packPages = Math.ceil(Math.max(leastPackPages, packBytes / pageSizeBytes) / unitPages) * unitPages
  const codec = new CheckedCodec(options.codec ?? new ZstdCodec(), name)
  const bufferBytes = 2 * packPages * pageSizeBytes
  const buffers = Math.max(3, Math.floor(mostStagingBytes / bufferBytes))
  const staging = new StagingBuffers(buffers, bufferBytes, (bytes) => optionalNative.stagingMemory(bytes))
  const places = new Places({ backup: name, inner, packPages })
  const builder = new PackBuilder(codec, pageSizeBytes)
  const reader = new PackReader({ backup: name, capabilities, places, codec })
  const compactor = new Compactor({ inner, places, reader, builder, staging, bytesPerSecond })
  const pages = new CompressedPages({
    backup: name,
    inner,
    unitPages,
    places,
    builder,
    reader,
    compactor,
    staging,
  })
  return { codec, packPages, staging, places, compactor, pages }
}

/** What `stats()` tells besides what every backup does. */
function figuresOf({ codec, places, compactor, staging }: Parts, inner: BackupStats) {
  return {
    codec: codec.name,
    sameFilledPages: places.fills.pages,
    packedBytes: places.heldBytes,
    packedLiveBytes: places.neededBytes,
    ...compactor.figures,
    stagingBytes: staging.heldBytes,
    metadataBytes: places.metadataBytes,
    writebackErrors: inner.writebackErrors,
    inner,
  }
}

const defaultUnitBytes = 64 * 1024
const defaultCompactionBytes = 64 * 2 ** 20
/** Pages that are compressed together, so that the last page of their units is a small part of them. */
const packBytes = 2 * 2 ** 20
const leastPackPages = 8
const mostStagingBytes = 32 * 2 ** 20
