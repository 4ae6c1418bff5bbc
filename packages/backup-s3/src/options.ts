import type { PutObjectCommandInput, S3Client } from '@aws-sdk/client-s3'
import { assertByteCount, assertKnownOptions, assertPageSize, minPageSizeBytes } from '@spillway/core'
import { longestTimerMs } from './http/deadlines.ts'
import { normalizePrefix } from './keys.ts'
import {
  assertName,
  atLeast,
  between,
  bytes,
  flag,
  keyPrefix,
  milliseconds,
  oneOf,
  positive,
  text,
} from './option-checks.ts'
import { maxFooterBytes } from './segments/segment-format.ts'

/** Settings of `PutObject` that are passed through as they are, for every object that is written. */
export const objectSettingNames = [
  'ACL',
  'BucketKeyEnabled',
  'ChecksumAlgorithm',
  'ExpectedBucketOwner',
  'RequestPayer',
  'SSECustomerAlgorithm',
  'SSECustomerKey',
  'SSECustomerKeyMD5',
  'SSEKMSEncryptionContext',
  'SSEKMSKeyId',
  'ServerSideEncryption',
  'StorageClass',
  'Tagging',
] as const

export type ObjectSettings = Pick<PutObjectCommandInput, (typeof objectSettingNames)[number]>

export const pageRequestWays = ['auto', 'direct', 'sdk'] as const
export type PageRequestWay = (typeof pageRequestWays)[number]

/** What the service charges, in dollars. */
export interface RequestPrices {
  /** @default 0.005 (S3 Standard) */
  readonly per1000Puts?: number
  /** GET and HEAD. @default 0.0004 */
  readonly per1000Gets?: number
  /** @default 0.005 */
  readonly per1000Lists?: number
  /** @default 0 */
  readonly per1000Deletes?: number
  /** @default 0: within a region reading costs nothing; to the internet S3 asks 0.09 */
  readonly perGiBReceived?: number
  /** @default 0 */
  readonly perGiBSent?: number
}

/** What may be spent at most; page traffic beyond it is refused with `EDQUOT`. */
export interface RequestBudget {
  readonly maxRequests?: number
  readonly maxDollars?: number
}

export interface CompactionOptions {
  /** Compaction starts when the objects hold this many times the live bytes. @default 1.5 */
  readonly maxAmplification?: number
  /** The most it reads per second. @default 64 MiB */
  readonly bytesPerSecond?: number
}

export interface S3BackupOptions {
  /**
   * The application's own client. The backup never changes and never destroys it. Its middleware, logger, signer and retries
   * see every request, or none goes past them (`pageRequests`). What cannot be seen: an instrumentation that replaced a method
   * of the SDK's classes before this package was imported. Import this package first, or set `pageRequests: 'sdk'`.
   */
  readonly client: S3Client
  readonly bucket: string
  /** Everything lies under it. Scratch instances may share one; a persistent store has it for itself. @default 'spillway/' */
  readonly prefix?: string
  /** @default 's3' */
  readonly name?: string
  /** @default 4096 */
  readonly pageSizeBytes?: number
  /** Bytes of pages in one object, at most 5 GiB (a single PUT). @default 8 MiB: 128 requests per GiB */
  readonly segmentBytes?: number
  /** The most that may be stored, in bytes of pages. @default Infinity */
  readonly capacityBytes?: number
  /** Bytes of segments that may be filled and sent at a time; memory only without `pageHttpHandler()`. @default 4 segments */
  readonly bufferBytes?: number
  /** Bytes of restores that may be under way. @default 8 segments */
  readonly restoreBytesInFlight?: number
  /** Requests for pages that may be under way. @default 16 */
  readonly restoresInFlight?: number
  /** How long a segment that is not full waits for more pages. @default 2 ms */
  readonly lingerMs?: number
  /** Gaps up to this are read over rather than asked for separately. @default 32 KiB */
  readonly mergeGapBytes?: number
  /** How long deletions gather. @default 200 ms */
  readonly deleteDelayMs?: number
  readonly compaction?: false | CompactionOptions

  /** Time to connect; kept by `pageHttpHandler()`, other handlers count it into `firstByteTimeoutMs`. @default 3,000 */
  readonly connectTimeoutMs?: number
  /** Time from sending a request to the first byte of its answer. @default 10,000 */
  readonly firstByteTimeoutMs?: number
  /** Longest silence within a body. @default 5,000 */
  readonly bodyTimeoutMs?: number
  /** Slowest upload that is waited for, in bytes per second, on top of `firstByteTimeoutMs`. @default 1 MiB/s */
  readonly minUploadBytesPerSecond?: number
  /** Slowest body that is waited for, in bytes per second; what comes more slowly counts as silence. @default 128 KiB/s */
  readonly minDownloadBytesPerSecond?: number
  /** How long an operation is tried again, beside the time that its bytes may take at the least rate. @default 60,000 */
  readonly retryForMs?: number
  /** Full jitter: the n-th retry waits a random time up to base × 2^n … @default 20 */
  readonly retryBaseMs?: number
  /** … and never longer than this. @default 2,000 */
  readonly retryMaxMs?: number
  /** Retries per second that are always allowed; beyond, one for every five successes. @default 20 */
  readonly retriesPerSecond?: number
  /** Share of restores that may be asked for a second time when they are slow. 0 switches hedging off. @default 0.015 */
  readonly hedgeShare?: number

  /** How long an owner that has gone silent keeps its pages. @default 120,000 */
  readonly leaseMs?: number
  /** Keep the pages after `close()`, for a later process to attach to. @default false */
  readonly persistent?: boolean
  /**
   * How long `open` waits for another owner of a persistent store to close or expire, in milliseconds: one that was killed
   * has expired a second after its `leaseMs`. @default 0
   */
  readonly ownerWaitMs?: number
  /** Whether the service honours `If-None-Match: *`. @default true */
  readonly conditionalWrites?: boolean

  /** @default no limit */
  readonly maxRequestsPerSecond?: number
  readonly budget?: RequestBudget
  readonly prices?: RequestPrices
  /** `'unsigned'` saves the SHA-256 of every upload; the service then checks CRC-32 only. @default 'sha256' */
  readonly payloadSigning?: 'sha256' | 'unsigned'
  /**
   * `'direct'`: GETs of pages are signed by the backup and go past the SDK's middleware, at a sixth of the processor time;
   * `'sdk'`: through the client's `send`; `'auto'`: direct, unless the client has something of its own that would not see
   * them. `stats()` says which, and why. @default 'auto'
   */
  readonly pageRequests?: PageRequestWay
  /** Server-side encryption, storage class, tags, … */
  readonly objectSettings?: ObjectSettings
  /** Ends the opening, not what comes after it. */
  readonly signal?: AbortSignal
}

export type Settings = Required<Omit<S3BackupOptions, 'compaction' | 'budget' | 'prices' | 'signal'>> & {
  readonly compaction: false | Required<CompactionOptions>
  readonly budget: RequestBudget
  readonly prices: Required<RequestPrices>
  readonly pagesPerSegment: number
}

const mebibyte = 2 ** 20
/** The largest object that one PUT can write. */
const maxObjectBytes = 5 * 2 ** 30
/** A lease must end some time: a day. */
const longestLeaseMs = 86_400_000

const optionNames: readonly (keyof S3BackupOptions)[] = [
  'client',
  'bucket',
  'prefix',
  'name',
  'pageSizeBytes',
  'segmentBytes',
  'capacityBytes',
  'bufferBytes',
  'restoreBytesInFlight',
  'restoresInFlight',
  'lingerMs',
  'mergeGapBytes',
  'deleteDelayMs',
  'compaction',
  'connectTimeoutMs',
  'firstByteTimeoutMs',
  'bodyTimeoutMs',
  'minUploadBytesPerSecond',
  'minDownloadBytesPerSecond',
  'retryForMs',
  'retryBaseMs',
  'retryMaxMs',
  'retriesPerSecond',
  'hedgeShare',
  'leaseMs',
  'persistent',
  'ownerWaitMs',
  'conditionalWrites',
  'maxRequestsPerSecond',
  'budget',
  'prices',
  'payloadSigning',
  'pageRequests',
  'objectSettings',
  'signal',
]

/** Checks every option and fills in the defaults. Throws `TypeError` or `RangeError` that names the value. */
export function resolveOptions(options: S3BackupOptions): Settings {
  if (typeof options !== 'object' || options === null) throw new TypeError('S3Backup.open needs options')
  assertKnownOptions(options, optionNames, 'S3Backup.open')
  const given = { ...options }
  if (typeof given.client?.send !== 'function') {
    throw new TypeError('client must be an S3Client of @aws-sdk/client-s3')
  }
  assertName('bucket', given.bucket)
  if (given.signal !== undefined && !(given.signal instanceof AbortSignal)) {
    throw new TypeError(`signal is ${String(given.signal)}; it must be an AbortSignal`)
  }
  const pageSizeBytes = given.pageSizeBytes ?? minPageSizeBytes
  assertPageSize(pageSizeBytes)
  const segmentBytes = resolveSegmentBytes(given.segmentBytes, pageSizeBytes)
  const capacityBytes = given.capacityBytes ?? Number.POSITIVE_INFINITY
  if (capacityBytes !== Number.POSITIVE_INFINITY) assertByteCount(capacityBytes, 'capacityBytes')
  const settings: Settings = {
    client: given.client,
    bucket: given.bucket,
    prefix: normalizePrefix(keyPrefix(given.prefix ?? 'spillway/')),
    name: text('name', given.name ?? 's3'),
    pageSizeBytes,
    segmentBytes,
    capacityBytes,
    bufferBytes: bytes(
      'bufferBytes',
      given.bufferBytes ?? 4 * segmentBytes,
      2 * segmentBytes,
      'two segments',
    ),
    restoreBytesInFlight: bytes(
      'restoreBytesInFlight',
      given.restoreBytesInFlight ?? 8 * segmentBytes,
      segmentBytes,
      'one segment',
    ),
    restoresInFlight: atLeast('restoresInFlight', given.restoresInFlight ?? 16, 1, true),
    lingerMs: between('lingerMs', given.lingerMs ?? 2, 0, longestTimerMs),
    mergeGapBytes: bytes('mergeGapBytes', given.mergeGapBytes ?? 32 * 1024, 0, 'nothing'),
    deleteDelayMs: between('deleteDelayMs', given.deleteDelayMs ?? 200, 0, longestTimerMs),
    compaction: resolveCompaction(given.compaction),
    connectTimeoutMs: milliseconds('connectTimeoutMs', given.connectTimeoutMs ?? 3_000, 1),
    firstByteTimeoutMs: milliseconds('firstByteTimeoutMs', given.firstByteTimeoutMs ?? 10_000, 1),
    bodyTimeoutMs: milliseconds('bodyTimeoutMs', given.bodyTimeoutMs ?? 5_000, 1),
    minUploadBytesPerSecond: atLeast('minUploadBytesPerSecond', given.minUploadBytesPerSecond ?? mebibyte, 1),
    minDownloadBytesPerSecond: positive(
      'minDownloadBytesPerSecond',
      given.minDownloadBytesPerSecond ?? 128 * 1024,
    ),
    retryForMs: milliseconds('retryForMs', given.retryForMs ?? 60_000, 0),
    retryBaseMs: milliseconds('retryBaseMs', given.retryBaseMs ?? 10, 0),
    retryMaxMs: milliseconds('retryMaxMs', given.retryMaxMs ?? 2_000, 0),
    retriesPerSecond: atLeast('retriesPerSecond', given.retriesPerSecond ?? 20, 0),
    hedgeShare: between('hedgeShare', given.hedgeShare ?? 0.015, 0, 1),
    // Written into the lease, where others read it.
    leaseMs: between('leaseMs', given.leaseMs ?? 120_000, 100, longestLeaseMs),
    persistent: flag('persistent', given.persistent ?? false),
    ownerWaitMs: milliseconds('ownerWaitMs', given.ownerWaitMs ?? 0, 0),
    conditionalWrites: flag('conditionalWrites', given.conditionalWrites ?? true),
    maxRequestsPerSecond: positive(
      'maxRequestsPerSecond',
      given.maxRequestsPerSecond ?? Number.POSITIVE_INFINITY,
    ),
    budget: resolveBudget(given.budget ?? {}),
    prices: resolvePrices(given.prices ?? {}),
    payloadSigning: given.payloadSigning ?? 'sha256',
    pageRequests: oneOf('pageRequests', given.pageRequests ?? 'auto', pageRequestWays),
    objectSettings: given.objectSettings ?? {},
    pagesPerSegment: segmentBytes / pageSizeBytes,
  }
  if (settings.payloadSigning !== 'sha256' && settings.payloadSigning !== 'unsigned') {
    throw new TypeError(
      `payloadSigning is ${String(settings.payloadSigning)}; it must be 'sha256' or 'unsigned'`,
    )
  }
  assertKnownOptions(settings.objectSettings, objectSettingNames, 'objectSettings')
  if (settings.persistent && !settings.conditionalWrites) {
    throw new TypeError(
      'persistent: true needs conditionalWrites: without If-None-Match two processes could own one store',
    )
  }
  return settings
}

function resolveSegmentBytes(given: number | undefined, pageSizeBytes: number): number {
  const segmentBytes = given ?? Math.max(8 * mebibyte, pageSizeBytes)
  assertByteCount(segmentBytes, 'segmentBytes')
  const objectBytes = segmentBytes + maxFooterBytes(segmentBytes / pageSizeBytes)
  if (segmentBytes < pageSizeBytes || objectBytes > maxObjectBytes || segmentBytes % pageSizeBytes !== 0) {
    throw new RangeError(
      `segmentBytes is ${segmentBytes}; it must be whole pages of ${pageSizeBytes} bytes, one at least, ` +
        `and at most ${maxObjectBytes} with a footer (what one PUT can write)`,
    )
  }
  return segmentBytes
}

/** Checks a budget; throws `TypeError` or `RangeError`. */
export function resolveBudget(budget: RequestBudget): RequestBudget {
  assertKnownOptions(budget, ['maxRequests', 'maxDollars'], 'budget')
  return {
    maxRequests: atLeast('budget.maxRequests', budget.maxRequests ?? Number.POSITIVE_INFINITY, 0),
    maxDollars: atLeast('budget.maxDollars', budget.maxDollars ?? Number.POSITIVE_INFINITY, 0),
  }
}

function resolvePrices(prices: RequestPrices): Required<RequestPrices> {
  const standard = {
    per1000Puts: 0.005,
    per1000Gets: 0.0004,
    per1000Lists: 0.005,
    per1000Deletes: 0,
    perGiBReceived: 0,
    perGiBSent: 0,
  }
  assertKnownOptions(prices, Object.keys(standard), 'prices')
  const resolved = { ...standard, ...prices }
  for (const [name, price] of Object.entries(resolved)) atLeast(`prices.${name}`, price, 0)
  return resolved
}

function resolveCompaction(compaction: false | CompactionOptions | undefined): Settings['compaction'] {
  if (compaction === false) return false
  const given = compaction ?? {}
  assertKnownOptions(given, ['maxAmplification', 'bytesPerSecond'], 'compaction')
  return {
    maxAmplification: atLeast('compaction.maxAmplification', given.maxAmplification ?? 1.5, 1),
    bytesPerSecond: positive('compaction.bytesPerSecond', given.bytesPerSecond ?? 64 * mebibyte),
  }
}
