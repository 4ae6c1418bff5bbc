import prettyBytes from 'pretty-bytes'
import { UsageError } from './usage-error.ts'

export const kibibyte = 1024
export const mebibyte = 1024 ** 2
export const gibibyte = 1024 ** 3

const sizePattern = /^(?<amount>\d+(?:\.\d+)?)\s*(?<unit>b|ki?b|mi?b|gi?b|ti?b)?$/i
const unitPowers = 'bkmgt'

/**
 * Bytes of a size as people write it: `4096`, `4KiB`, `256MiB`, `1.5GiB`. `KB` and `KiB` both mean 1024.
 * Throws `UsageError` naming `option` for anything else.
 */
export function parseByteSize(text: string, option: string): number {
  const { amount, unit } = sizePattern.exec(text.trim())?.groups ?? {}
  const power = unitPowers.indexOf((unit ?? 'b')[0].toLowerCase())
  const scaled = Number(amount) * 1024 ** power
  // A part of a byte is a slip where bytes are written, and rounding where larger units are.
  const size = unit === undefined ? scaled : Math.floor(scaled)
  if (Number.isSafeInteger(size) && size > 0) return size
  throw new UsageError(`${option} '${text}' is not a size; write for example 4096, 4KiB, 256MiB or 2GiB`)
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
