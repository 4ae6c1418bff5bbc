/** What `util.inspect` and the console of Node call instead of listing fields. */
export const inspectCustom: unique symbol = Symbol.for('nodejs.util.inspect.custom') as never
