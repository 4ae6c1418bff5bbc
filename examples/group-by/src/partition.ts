import type { GrowableBuffer } from '@spillway/pool'
import { eachRow, type Row, textOf } from './csv.ts'

export type Group = { readonly key: string; count: number; sum: number }

/** Keys and values of those rows whose keys have hashes of one class. */
export class Partition {
  readonly buffer: GrowableBuffer
  #chunk: Uint8Array
  #length = 0

  constructor(buffer: GrowableBuffer, chunkBytes: number) {
    this.buffer = buffer
    this.#chunk = new Uint8Array(chunkBytes)
  }

  /** Copies two columns of a row. Gives a promise when that took an append: one for each row would cost more than all else. */
  add({ bytes, starts }: Row, key: number, value: number): Promise<unknown> | undefined {
    const rowBytes = starts[key + 1] - starts[key] + starts[value + 1] - starts[value]
    if (rowBytes > this.#chunk.length) throw new RangeError(`a key and its value have ${rowBytes} bytes`)
    const append = this.#length + rowBytes > this.#chunk.length ? this.flush() : undefined
    for (let at = starts[key]; at < starts[key + 1] - 1; at++) this.#chunk[this.#length++] = bytes[at]
    this.#chunk[this.#length++] = 0x2c // a comma
    for (let at = starts[value]; at < starts[value + 1] - 1; at++) this.#chunk[this.#length++] = bytes[at]
    this.#chunk[this.#length++] = 0x0a // a newline
    return append
  }

  flush(): Promise<unknown> {
    const append = this.buffer.append(this.#chunk.subarray(0, this.#length))
    this.#chunk = new Uint8Array(this.#chunk.length) // the other is the append's until it is done
    this.#length = 0
    return append
  }

  /** The groups of its rows, in memory. */
  async groups(): Promise<Iterable<Group>> {
    const groups = new Map<string, Group>()
    await eachRow(this.buffer.pieces({ pieceBytes: 2 ** 18 }), (row) => {
      const key = textOf(row, 0)
      const group = groups.get(key) ?? { key, count: 0, sum: 0 }
      if (group.count++ === 0) groups.set(key, group)
      group.sum += Number(textOf(row, 1))
      return undefined
    })
    return groups.values()
  }
}
