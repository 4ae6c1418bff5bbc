/** Letters, digits, dot, dash and underscore; the first is no dot, so that no name hides or climbs. */
const namePattern = /^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$/

/** Throws `TypeError` or `RangeError` unless `name` can be the name of a shared backup. */
export function assertSharedName(name: unknown, option: string): void {
  if (typeof name !== 'string') throw new TypeError(`${option} is ${String(name)}; it must be a string`)
  if (!namePattern.test(name)) {
    throw new RangeError(
      `${option} is ${JSON.stringify(name)}; it must have 1 to 128 letters, digits, ".", "_" or "-", and begin with none of ".-"`,
    )
  }
}
