import { hkdfSync, randomBytes } from 'node:crypto'
import { type Backup, type BackupStats, defineBackup, StagingBuffers, unclosedBackups } from '@spillway/core'
import { chooseCipher } from './choose-cipher.ts'
import { EncryptedPages } from './encrypted-pages.ts'
import { optionalNative } from './native.ts'
import { assertOptions, type EncryptedBackupOptions, keyBytes } from './options.ts'
import type { PageCipher } from './page-cipher.ts'

export interface EncryptedBackupStats extends BackupStats {
  /** Who seals and opens: OpenSSL through native code, or `node:crypto`. Undefined until the first page is stored. */
  readonly cipher: PageCipher['kind'] | undefined
  /** Pages that did not match their tag when they were read; each is read a second time. */
  readonly tagMismatches: number
  /** Pages that did not match twice, and were not dropped since. */
  readonly damagedPages: number
  /** Memory for pages on their way, most so far. */
  readonly stagingBytes: number
  /** Memory for tags and for where pages are. */
  readonly metadataBytes: number
  /** Of the backup inside. */
  readonly inner: BackupStats
}

export interface EncryptedBackup extends Backup {
  stats(): EncryptedBackupStats
}

/**
 * Encrypts the pages of another backup, with AES-256-GCM and a key that only this process has, or one that is given. Each page is
 * bound to its handle: what was changed, swapped or put back on the medium is `EBADMSG`. It closes `inner` when it is closed.
 *
 * Throws `TypeError` for an inner backup that keeps nothing or outlives the process, and for a key that is no Uint8Array, `RangeError`
 * for one that has not 32 bytes. Warns (`SPILLWAY_COMPRESSES_CIPHERTEXT`) when `inner` compresses.
 */
export function encryptedBackup(inner: Backup, options: EncryptedBackupOptions = {}): EncryptedBackup {
  assertOptions(inner, options)
  const { name = `encrypted ${inner.name}`, key } = options
  const { pageSizeBytes, medium, preferredBatchPages, preferredCallsInFlight, reserves } = inner.capabilities
  const slicePages = Math.max(1, Math.min(preferredBatchPages, mostSliceBytes / pageSizeBytes))
  const sliceBytes = slicePages * pageSizeBytes
  const buffers = Math.max(2, Math.min(preferredCallsInFlight, Math.floor(mostStagingBytes / sliceBytes)))
  const staging = new StagingBuffers(buffers, sliceBytes, (bytes) => optionalNative.stagingMemory(bytes))
  const pages = new EncryptedPages(name, inner, staging, chooseCipher(openingKey(key)))
  const backup = defineBackup({
    name,
    medium: `encrypted ${medium}`,
    pageSizeBytes,
    preferredBatchPages,
    preferredCallsInFlight,
    detectsCorruption: true,
    numbered: {
      slicePages,
      bytesAvailable: () => inner.bytesAvailable(),
      reserve: reserves ? (bytes) => inner.reserve(bytes) : undefined,
      store: (first, spans, options) => pages.store(first, spans, options),
      copyRuns: (handles, spans, options) => pages.copyRuns(handles, spans, options),
      drop: (handles) => pages.drop(handles),
    },
    startCopy: (first, span, done) => pages.startCopy(first, span, done),
    mediumBytes: () => inner.stats().mediumBytes,
    figures: () => {
      const stats = inner.stats()
      return { ...pages.figures, writebackErrors: stats.writebackErrors, inner: stats }
    },
    async release() {
      unclosedBackups.unwatch(watched)
      await pages.erase()
      await inner.close()
    },
  })
  const watched = unclosedBackups.watch(backup, name, () => void pages.erase())
  return backup
}

const mostSliceBytes = 16 * 2 ** 20
const mostStagingBytes = 32 * 2 ** 20

/**
 * The key of this opening: of the given key and 32 random bytes, so that numbers that a former opening used make no nonce of
 * this one's. What is derived from is overwritten.
 */
function openingKey(key: Uint8Array | undefined): Uint8Array {
  const secret = key?.slice() ?? new Uint8Array(randomBytes(keyBytes))
  const derived = hkdfSync('sha256', secret, randomBytes(keyBytes), 'spillway pages, AES-256-GCM', keyBytes)
  secret.fill(0)
  return new Uint8Array(derived)
}
