import { open } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { crc32 } from 'node:zlib'
import { eachRow, textOf } from '../src/csv.ts'
import { groupBy } from '../src/group-by.ts'
import type { Group } from '../src/partition.ts'

/** What the groups of a file are, in any order, and what it took to find them. */
export interface Outcome {
  readonly groups: number
  readonly rows: number
  readonly checksum: number
  readonly seconds: number
  readonly cpuSeconds: number
  readonly peakResidentBytes: number
}

export const programs = { spillway, 'node:sqlite': sqlite }

function spillway(path: string): AsyncIterable<Group> {
  return groupBy(path, { key: 'customer', value: 'amount', limitBytes: 128 * 2 ** 20 })
}

/**
 * A table without an index, filled in one transaction by one prepared statement, which the database sorts afterwards: an index, or a table
 * of groups that is updated row by row, took longer. Journal and syncs are off, and rows come from the same reader of CSV.
 */
async function* sqlite(path: string): AsyncGenerator<Group> {
  process.env.SQLITE_TMPDIR = dirname(path)
  await using file = await open(path)
  using database = new DatabaseSync(join(dirname(path), 'sales.sqlite'))
  database.exec(`PRAGMA journal_mode = off; PRAGMA synchronous = off; PRAGMA locking_mode = exclusive;
    PRAGMA temp_store = file; PRAGMA cache_size = -131072; CREATE TABLE sales (customer TEXT, amount INTEGER); BEGIN`)
  const insert = database.prepare('INSERT INTO sales VALUES (?, ?)')
  let isHeader = true
  await eachRow(file.createReadStream({ highWaterMark: 2 ** 18, autoClose: false }), (row) => {
    if (!isHeader) insert.run(textOf(row, 1), Number(textOf(row, 3)))
    isHeader = false
    return undefined
  })
  database.exec('COMMIT')
  const select = 'SELECT customer AS key, count(*) AS count, sum(amount) AS sum FROM sales GROUP BY customer'
  yield* database.prepare(select).iterate() as Iterable<Group>
}

async function outcomeOf(groupsOf: AsyncIterable<Group>): Promise<Outcome> {
  let [groups, rows, checksum] = [0, 0, 0]
  for await (const { key, count, sum } of groupsOf) {
    groups++
    rows += count
    checksum = (checksum + crc32(`${key},${count},${sum}`)) % 2 ** 48
  }
  const { user, system } = process.cpuUsage()
  const peakResidentBytes = process.resourceUsage().maxRSS * 1024
  return {
    groups,
    rows,
    checksum,
    seconds: performance.now() / 1000,
    cpuSeconds: (user + system) / 1e6,
    peakResidentBytes,
  }
}

if (import.meta.main) {
  const [name, path] = process.argv.slice(2)
  console.log(JSON.stringify(await outcomeOf(programs[name as keyof typeof programs](path))))
}
