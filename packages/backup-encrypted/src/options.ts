import type { Backup } from '@spillway/core'
import { assertInnerBackup, assertKnownOptions, warn } from '@spillway/core'

export interface EncryptedBackupOptions {
  /** 32 bytes, for those who want to know the key. They are copied, and used only to derive others. @default random, in memory only */
  readonly key?: Uint8Array | undefined
  /** Names it in errors and statistics. @default `encrypted` and the name of the inner backup */
  readonly name?: string | undefined
}

export const keyBytes = 32

/** Throws `TypeError` or `RangeError` that names the bad value and says what would be right; warns of what is in vain. */
export function assertOptions(inner: Backup, options: EncryptedBackupOptions): void {
  assertInnerBackup(inner, 'encryptedBackup')
  assertKnownOptions(options, ['key', 'name'], 'encryptedBackup')
  const { key, name } = options
  if (key !== undefined) assertKey(key)
  if (name !== undefined && (typeof name !== 'string' || name === '')) {
    throw new TypeError(`name is ${String(name)}; it must be a string of at least one character`)
  }
  if (/\bcompressed\b/.test(inner.capabilities.medium)) {
    const message = `${inner.name} compresses what is encrypted already, which saves nothing: put the compressed backup around this one`
    warn('SPILLWAY_COMPRESSES_CIPHERTEXT', message)
  }
}

/** Says nothing of the key's content. */
function assertKey(key: unknown): void {
  const isBytes = ArrayBuffer.isView(key) && (key as Uint8Array)[Symbol.toStringTag] === 'Uint8Array'
  if (!isBytes) throw new TypeError(`key must be a Uint8Array of ${keyBytes} bytes`)
  if (key.byteLength !== keyBytes) {
    throw new RangeError(`key has ${key.byteLength} bytes; it must have ${keyBytes}`)
  }
}
