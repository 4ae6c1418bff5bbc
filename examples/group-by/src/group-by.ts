import { open } from 'node:fs/promises'
import { dirname } from 'node:path'
import { openFileBackup } from '@spillway/backup-file'
import { Pool } from '@spillway/pool'
import { eachRow, hashOf, textOf } from './csv.ts'
import { type Group, Partition } from './partition.ts'

export interface GroupByOptions {
  /** Names of columns, as in the first row of the file. */
  readonly key: string
  readonly value: string
  /** Memory for rows. The ones that do not fit go to a scratch file without a name beside the file. */
  readonly limitBytes: number
}

/**
 * `SELECT key, count(*), sum(value) … GROUP BY key` over a CSV file of any size:
 *
 *   file ──▶ key and value of each row, to a partition by the key's hash, spilled as memory fills ──▶ groups, partition after partition
 */
export async function* groupBy(path: string, options: GroupByOptions): AsyncGenerator<Group> {
  const { limitBytes } = options
  await using file = await open(path)
  const { size } = await file.stat()
  // All groups of a partition have to fit into memory, and so has the chunk at the end of each partition.
  const count = Math.ceil((size + 1) / (limitBytes / 16))
  const chunkOrder = Math.min(4, Math.floor(Math.log2(limitBytes / count / 4 / 4096)))
  if (chunkOrder < 0) throw new RangeError(`${limitBytes} bytes are too little for ${size}`)
  await using backup = await openFileBackup({ directory: dirname(path) })
  await using pool = new Pool({ limitBytes, backup, maxOrder: chunkOrder })
  const makePartition = async () =>
    new Partition(await pool.allocate(0, { growable: true, maxBytes: size + 1 }), 2 ** chunkOrder * 4096)
  const partitions = await Promise.all(Array.from({ length: count }, makePartition))

  let [key, value] = [-1, -1]
  await eachRow(file.createReadStream({ highWaterMark: 2 ** 18, autoClose: false }), (row) => {
    if (key >= 0) return partitions[hashOf(row, key) % count].add(row, key, value)
    const names = row.starts.slice(1).map((_, column) => textOf(row, column))
    key = names.indexOf(options.key)
    value = names.indexOf(options.value)
    if (key < 0 || value < 0) throw new RangeError(`the columns of ${path} are ${names}`)
    return undefined
  })
  for (const partition of partitions) await partition.flush()

  for (const [index, partition] of partitions.entries()) {
    partitions[index + 1]?.buffer.advise('willneed') // is read while this one is grouped
    yield* await partition.groups()
    await partition.buffer.free()
  }
}

if (import.meta.main) {
  const [path, key, value, mebibytes = '128'] = process.argv.slice(2)
  if (value === undefined) throw new Error('usage: group-by.ts FILE KEY VALUE [MEBIBYTES OF MEMORY]')
  for await (const group of groupBy(path, { key, value, limitBytes: Number(mebibytes) * 2 ** 20 })) {
    console.log(`${group.key},${group.count},${group.sum}`)
  }
}
