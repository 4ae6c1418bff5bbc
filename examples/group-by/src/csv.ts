/** A row of a CSV file. It is good for one visit. */
export interface Row {
  readonly bytes: Buffer
  /** Where in `bytes` each column begins; it ends a byte before the next one begins, the last one too. */
  readonly starts: number[]
}

const [comma, newline, carriageReturn, quote] = Buffer.from(',\n\r"')

/**
 * Visits the rows of a CSV file, which comes in pieces, in their order. Promises that visits give are waited for before the next piece is
 * taken. Rejects with `SyntaxError` for a row with fewer or more columns than the first, and for fields in quotes, which it does not know.
 */
export async function eachRow(
  pieces: AsyncIterable<Uint8Array>,
  visit: (row: Row) => Promise<unknown> | undefined,
): Promise<void> {
  let rest = Buffer.alloc(0)
  let columns = 0
  for await (const piece of withNewline(pieces)) {
    const bytes = Buffer.concat([rest, piece])
    const starts = [0]
    const work: Promise<unknown>[] = []
    for (let at = 0, column = 0; at < bytes.length; at++) {
      const byte = bytes[at]
      if (byte !== comma && byte !== newline) continue
      if (bytes[starts[column]] === quote) throw new SyntaxError('a field is in quotes')
      starts[++column] = at + 1
      if (byte === comma) continue
      if (bytes[at - 1] === carriageReturn) starts[column] = at
      if (starts[column] > starts[0] + 1) {
        columns ||= column
        if (column !== columns) throw new SyntaxError(`a row has ${column} columns instead of ${columns}`)
        const promise = visit({ bytes, starts })
        if (promise !== undefined) work.push(promise)
      }
      starts[0] = at + 1
      column = 0
    }
    await Promise.all(work)
    rest = bytes.subarray(starts[0])
  }
}

/** The last row may have none. */
async function* withNewline(pieces: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  yield* pieces
  yield Buffer.of(newline)
}

/** The text of a column. */
export function textOf({ bytes, starts }: Row, column: number): string {
  return bytes.toString('utf8', starts[column], starts[column + 1] - 1)
}

/** A hash of the bytes of a column, FNV-1a: 32 bits. */
export function hashOf({ bytes, starts }: Row, column: number): number {
  let hash = 0x811c9dc5
  for (let at = starts[column]; at < starts[column + 1] - 1; at++)
    hash = Math.imul(hash ^ bytes[at], 0x01000193)
  return hash >>> 0
}
