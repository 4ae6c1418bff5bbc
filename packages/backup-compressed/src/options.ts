import { assertByteCount, assertInnerBackup, assertKnownOptions, type Backup } from '@spillway/core'
import { assertCodec, type Codec } from './codec.ts'

export interface CompressedBackupOptions {
  /** What compresses. @default zstd: of the node binary through native code, or of `node:zlib` */
  readonly codec?: Codec | undefined
  /** Adjacent pages that are compressed as one, and of which a page is read with the others: a multiple of the page size. @default 64 KiB, a page at least */
  readonly unitBytes?: number | undefined
  /** How much may be read and stored anew in a second to get back the space of units whose pages were dropped in part. @default 64 MiB */
  readonly compactionBytesPerSecond?: number | undefined
  /** Names it in errors and statistics. @default `compressed` and the name of the inner backup */
  readonly name?: string | undefined
}

/** A bit for each page of a unit. */
const mostUnitPages = 32

/** Throws `TypeError` or `RangeError` that names the bad value and says what would be right. */
export function assertOptions(inner: Backup, options: CompressedBackupOptions): void {
  assertInnerBackup(inner, 'compressedBackup')
  assertKnownOptions(options, ['codec', 'unitBytes', 'compactionBytesPerSecond', 'name'], 'compressedBackup')
  const { codec, unitBytes, compactionBytesPerSecond, name } = options
  const { pageSizeBytes } = inner.capabilities
  if (codec !== undefined) assertCodec(codec)
  if (unitBytes !== undefined) {
    const pages = unitBytes / pageSizeBytes
    if (!Number.isInteger(pages) || pages < 1 || pages > mostUnitPages) {
      throw new RangeError(
        `unitBytes is ${String(unitBytes)}; it must be a multiple of the page size of ${pageSizeBytes}, at most ${mostUnitPages} pages`,
      )
    }
  }
  if (compactionBytesPerSecond !== undefined) {
    assertByteCount(compactionBytesPerSecond, 'compactionBytesPerSecond')
    if (compactionBytesPerSecond === 0)
      throw new RangeError('compactionBytesPerSecond is 0; it must be 1 or more')
  }
  if (name !== undefined && (typeof name !== 'string' || name === '')) {
    throw new TypeError(`name is ${String(name)}; it must be a string of at least one character`)
  }
}
