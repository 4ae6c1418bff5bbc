import bytes from 'bytes'
import prettyBytes from 'pretty-bytes'
import { UsageError } from './usage-error.ts'

export const kibibyte = 1024
export const mebibyte = 1024 ** 2
export const gibibyte = 1024 ** 3

const sizePattern = /^(\d+|\d+(\.\d+)?\s*(b|ki?b|mi?b|gi?b|ti?b))$/i

/**
 * Bytes of a size as people write it: `4096`, `4KiB`, `256MiB`, `1.5GiB`. `KB` and `KiB` both mean 1024.
 * Throws `UsageError` naming `option` for anything else.
 */
export function parseByteSize(text: string, option: string): number {
  const size = text.trim()
  // The pattern first: `bytes` would read "12abc" as 12.
  const parsed = sizePattern.test(size) ? bytes.parse(size.replace(/i(?=b$)/i, '')) : null
  if (parsed === null || !Number.isSafeInteger(parsed) || parsed <= 0) {
    throw new UsageError(`${option} '${text}' is not a size; write for example 4096, 4KiB, 256MiB or 2GiB`)
  }
  return parsed
}

/** `268435456` → `256 MiB`. */
export function formatByteSize(size: number): string {
  return prettyBytes(size, { binary: true, maximumFractionDigits: 1 })
}

/** `1520000000` → `1.52 GB/s`; decimal units, as fio and disk vendors use. */
export function formatRate(bytesPerSecond: number): string {
  if (!Number.isFinite(bytesPerSecond)) return '–'
  if (bytesPerSecond >= 1e9) return `${(bytesPerSecond / 1e9).toFixed(2)} GB/s`
  return `${(bytesPerSecond / 1e6).toFixed(bytesPerSecond >= 1e8 ? 0 : 1)} MB/s`
}

/** Milliseconds with as many digits as tell something. */
export function formatMilliseconds(ms: number): string {
  if (!Number.isFinite(ms)) return '–'
  if (ms >= 100) return `${ms.toFixed(0)} ms`
  if (ms >= 1) return `${ms.toFixed(1)} ms`
  return `${(ms * 1000).toFixed(0)} µs`
}
