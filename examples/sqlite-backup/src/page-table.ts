import { DatabaseSync } from 'node:sqlite'
import { crc32 } from 'node:zlib'
import type { HandleRun } from '@spillway/core'

/** The medium: pages as rows of a database. A key is never used twice, so a stale handle is a row that is not there. */
export class PageTable {
  readonly #database: DatabaseSync

  constructor(path: string) {
    this.#database = new DatabaseSync(path)
    this.#database.exec(`
      PRAGMA journal_mode = MEMORY;
      PRAGMA synchronous = OFF;
      CREATE TABLE pages(handle INTEGER PRIMARY KEY AUTOINCREMENT, bytes BLOB, checksum INTEGER)`)
    // Keys start at random, so that a handle of another database is not taken for one of ours.
    const lastKey = Math.floor(Math.random() * 2 ** 51)
    this.#database.prepare("INSERT INTO sqlite_sequence VALUES ('pages', ?)").run(lastKey)
  }

  /** Adds all of the pages or none; their keys are adjacent. */
  insert(pages: readonly Uint8Array[]): HandleRun {
    const insert = this.#database.prepare('INSERT INTO pages(bytes, checksum) VALUES (?, ?)')
    const keys = this.#transaction(() => pages.map((page) => insert.run(page, crc32(page)).lastInsertRowid))
    return { first: Number(keys[0]), count: keys.length }
  }

  /** Fills `page`; tells when there is no such row or its checksum does not match. */
  read(handle: number, page: Uint8Array): 'read' | 'missing' | 'damaged' {
    const select = this.#database.prepare('SELECT bytes, checksum FROM pages WHERE handle = ?')
    const row = select.get(handle) as { bytes: Uint8Array; checksum: number } | undefined
    if (row === undefined) return 'missing'
    if (row.bytes.byteLength !== page.byteLength || crc32(row.bytes) !== row.checksum) return 'damaged'
    page.set(row.bytes)
    return 'read'
  }

  /** The first handle that has no row, or `undefined`. */
  firstMissing(runs: readonly HandleRun[]): number | undefined {
    const select = this.#database.prepare(
      'SELECT handle FROM pages WHERE handle BETWEEN ? AND ? ORDER BY handle',
    )
    for (const { first, count } of runs) {
      let next = first
      for (const { handle } of select.iterate(first, first + count - 1)) if (handle === next) next++
      if (next < first + count) return next
    }
    return undefined
  }

  /** Removes all of the rows or none: returns the first handle that has no row, one named twice included. */
  remove(runs: readonly HandleRun[]): number | undefined {
    const remove = this.#database.prepare('DELETE FROM pages WHERE handle BETWEEN ? AND ?')
    let missing: number | undefined
    const removeEach = (): void => {
      for (const run of runs) {
        missing = this.firstMissing([run])
        if (missing !== undefined) throw new Error('roll back')
        remove.run(run.first, run.first + run.count - 1)
      }
    }
    try {
      this.#transaction(removeEach)
    } catch (failure) {
      if (missing === undefined) throw failure
    }
    return missing
  }

  close(): void {
    this.#database.close()
  }

  #transaction<Result>(work: () => Result): Result {
    this.#database.exec('BEGIN')
    try {
      const result = work()
      this.#database.exec('COMMIT')
      return result
    } catch (failure) {
      this.#database.exec('ROLLBACK')
      throw failure
    }
  }
}
