import { assertByteCount } from '@spillway/core'
import { longestTimerMs } from './http/deadlines.ts'

/** Checks of single options: each returns the value, or throws an error that names it and says what would be right. */

export function assertName(name: string, value: unknown): void {
  if (typeof value !== 'string' || value === '') {
    throw new TypeError(`${name} is ${JSON.stringify(value)}; it must be a string that is not empty`)
  }
}

export function text(name: string, value: unknown): string {
  if (typeof value !== 'string') throw new TypeError(`${name} is ${String(value)}; it must be a string`)
  return value
}

/** Services and XML take no control characters in keys, and listings no halves of characters. */
const notForKeys = /\p{Control}|\p{Surrogate}|[\ufffe\uffff]/u
/** Of 1,024 bytes, what is left when epochs and names have theirs. */
const maxPrefixBytes = 900

export function keyPrefix(value: unknown): string {
  const prefix = text('prefix', value)
  if (notForKeys.test(prefix)) {
    throw new RangeError(`prefix is ${JSON.stringify(prefix)}; keys cannot hold its control characters`)
  }
  const length = Buffer.byteLength(prefix)
  if (length > maxPrefixBytes) {
    throw new RangeError(`prefix is ${length} bytes long; it must be at most ${maxPrefixBytes}`)
  }
  return prefix
}

export function oneOf<const Value extends string>(
  name: string,
  value: string,
  values: readonly Value[],
): Value {
  if (!(values as readonly string[]).includes(value)) {
    throw new TypeError(`${name} is ${JSON.stringify(value)}; it must be one of ${values.join(', ')}`)
  }
  return value as Value
}

export function flag(name: string, value: unknown): boolean {
  if (typeof value !== 'boolean') throw new TypeError(`${name} is ${String(value)}; it must be true or false`)
  return value
}

export function atLeast(name: string, value: number, least: number, whole = false): number {
  if (typeof value !== 'number' || !(value >= least) || (whole && !Number.isInteger(value))) {
    throw new RangeError(
      `${name} is ${value}; it must be a ${whole ? 'whole ' : ''}number of ${least} or more`,
    )
  }
  return value
}

/** A time; `Infinity`, and what is longer than a timer can count, is the longest that it can: 24 days. */
export function milliseconds(name: string, value: number, least: number): number {
  return Math.min(atLeast(name, value, least), longestTimerMs)
}

export function positive(name: string, value: number): number {
  if (typeof value !== 'number' || !(value > 0)) {
    throw new RangeError(`${name} is ${value}; it must be more than 0`)
  }
  return value
}

export function between(name: string, value: number, least: number, most: number): number {
  if (atLeast(name, value, least) > most)
    throw new RangeError(`${name} is ${value}; it must be at most ${most}`)
  return value
}

export function bytes(name: string, value: number, least: number, leastName: string): number {
  assertByteCount(value, name)
  if (value < least) throw new RangeError(`${name} is ${value}; it must be ${least} or more (${leastName})`)
  return value
}
