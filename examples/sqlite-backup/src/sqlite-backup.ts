import { DatabaseSync } from 'node:sqlite'
import { crc32 } from 'node:zlib'
import { type Backup, defineBackup, SpillwayError, splitIntoPages } from '@spillway/core'

const pageSizeBytes = 4096

export interface SqliteBackupOptions {
  /** '' is a temporary file that SQLite removes by itself. @default '' */
  readonly path?: string
  /** @default 1 GiB */
  readonly capacityBytes?: number
}

/** Pages as rows of a database, with a checksum for each. */
export function sqliteBackup({ path = '', capacityBytes = 2 ** 30 }: SqliteBackupOptions = {}): Backup {
  const database = new DatabaseSync(path)
  database.exec(`
    PRAGMA journal_mode = MEMORY;
    PRAGMA synchronous = OFF;
    CREATE TABLE pages(handle INTEGER PRIMARY KEY, bytes BLOB, checksum INTEGER)`)
  const insert = database.prepare('INSERT INTO pages VALUES (?, ?, ?)')
  const select = database.prepare('SELECT bytes, checksum FROM pages WHERE handle = ?')
  const remove = database.prepare('DELETE FROM pages WHERE handle BETWEEN ? AND ?')

  /** All of the work or nothing of it. */
  const transaction = (work: () => void): void => {
    database.exec('BEGIN')
    try {
      work()
      database.exec('COMMIT')
    } catch (failure) {
      database.exec('ROLLBACK')
      throw failure
    }
  }

  return defineBackup({
    name: 'sqlite',
    medium: 'sqlite',
    pageSizeBytes,
    preferredBatchPages: 512,
    detectsCorruption: true,
    numbered: {
      capacityBytes,
      // node:sqlite is synchronous: after so many pages the event loop gets its turn.
      slicePages: 64,
      store(first, spans) {
        transaction(() => {
          for (const [index, page] of splitIntoPages(spans, pageSizeBytes).entries()) {
            insert.run(first + index, page, crc32(page))
          }
        })
      },
      copy(first, spans) {
        for (const [index, page] of splitIntoPages(spans, pageSizeBytes).entries()) {
          const row = select.get(first + index) as { bytes: Uint8Array; checksum: number }
          if (row.bytes.byteLength !== pageSizeBytes || crc32(row.bytes) !== row.checksum) {
            const handle = first + index
            const error = new SpillwayError('EBADMSG', `handle ${handle} is damaged`, {
              backup: 'sqlite',
              handle,
            })
            return { pages: index, error }
          }
          page.set(row.bytes)
        }
        return undefined
      },
      drop(handles) {
        transaction(() => {
          for (const { first, count } of handles) remove.run(first, first + count - 1)
        })
      },
    },
    release: () => database.close(),
  })
}
