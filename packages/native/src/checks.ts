/** Throws `TypeError` when `options` has a key that is not in `known`. */
export function assertKnownOptions(options: object, known: readonly string[], caller: string): void {
  for (const key of Object.keys(options)) {
    if (!known.includes(key)) {
      throw new TypeError(`${caller} has no option "${key}"; it knows ${known.join(', ')}`)
    }
  }
}

/** Throws unless `value` is a whole number from `least` to `most`. */
export function assertInteger(value: number, name: string, least: number, most: number): void {
  if (typeof value !== 'number') throw new TypeError(`${name} is ${typeof value}; it must be a number`)
  if (!Number.isInteger(value) || value < least || value > most) {
    throw new RangeError(`${name} is ${value}; it must be a whole number from ${least} to ${most}`)
  }
}

/** Throws unless `fd` could be a file descriptor. */
export function assertFd(fd: number): void {
  assertInteger(fd, 'fd', 0, 0x7fffffff)
}

/** Throws unless `bytes` is a whole number of bytes, `least` or more. */
export function assertBytes(bytes: number, name: string, least = 0): void {
  assertInteger(bytes, name, least, Number.MAX_SAFE_INTEGER)
}
