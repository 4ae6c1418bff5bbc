import { createRequire } from 'node:module'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import type { PeerSettings } from './peer-settings.ts'
import type { UnitStore } from './unit-cache.ts'

/** What both packages for SQLite have of a database. */
interface Sqlite {
  exec(statements: string): unknown
  prepare(statement: string): {
    run(...values: unknown[]): unknown
    get(...values: unknown[]): unknown
  }
  close(): unknown
}

/** Loads the package that was installed for a peer. */
async function loadPackage<Module>({ packageDirectory }: PeerSettings, name: string): Promise<Module> {
  if (packageDirectory === undefined) throw new Error(`${name} is not installed`)
  const path = createRequire(join(packageDirectory, 'package.json')).resolve(name)
  return (await import(pathToFileURL(path).href)) as Module
}

export function openNodeSqlite(settings: PeerSettings): Promise<UnitStore> {
  // Not an import: the bundler would take the prefix away, without which there is no such module.
  const sqlite = process.getBuiltinModule('node:sqlite')
  if (sqlite === undefined) throw new Error('this Node has no node:sqlite')
  const { DatabaseSync } = sqlite
  const database = new DatabaseSync(join(settings.directory, 'data.sqlite')) as unknown as Sqlite
  return Promise.resolve(sqliteStore(database, settings))
}

export async function openBetterSqlite(settings: PeerSettings): Promise<UnitStore> {
  const { default: Database } = await loadPackage<{ default: new (path: string) => Sqlite }>(
    settings,
    'better-sqlite3',
  )
  return sqliteStore(new Database(join(settings.directory, 'data.sqlite')), settings)
}

/** A row for each unit, in a database that nobody needs after a crash. */
function sqliteStore(database: Sqlite, { unitBytes }: PeerSettings): UnitStore {
  // Pages into which units of 4 KiB go without an overflow page for each.
  database.exec(`
    PRAGMA page_size = ${unitBytes > 4096 ? 65536 : 16384};
    PRAGMA locking_mode = EXCLUSIVE;
    PRAGMA journal_mode = OFF;
    PRAGMA synchronous = OFF;
    PRAGMA cache_size = -8192;
    CREATE TABLE units (unit INTEGER PRIMARY KEY, content BLOB NOT NULL);
  `)
  const select = database.prepare('SELECT content FROM units WHERE unit = ?')
  const upsert = database.prepare('INSERT OR REPLACE INTO units (unit, content) VALUES (?, ?)')
  return {
    load(unit, memory) {
      const row = select.get(unit) as { content: Uint8Array } | undefined
      if (row === undefined) throw new Error(`unit ${unit} is not in the database`)
      memory.set(row.content)
    },
    store(unit, memory) {
      upsert.run(unit, memory)
    },
    close() {
      database.close()
    },
  }
}

interface LmdbDatabase {
  getBinaryFast(key: number): Uint8Array | undefined
  put(key: number, value: Uint8Array): Promise<boolean>
  close(): Promise<void>
}

export async function openLmdb(settings: PeerSettings): Promise<UnitStore> {
  const { open } = await loadPackage<{ open(options: object): LmdbDatabase }>(settings, 'lmdb')
  const dataBytes = settings.bufferBytes * settings.bufferCount
  const database = open({
    path: join(settings.directory, 'data'),
    encoding: 'binary',
    // Old versions stay until their readers are gone.
    mapSize: 4 * dataBytes + 2 ** 28,
    noSync: true,
    compression: false,
  })
  return {
    load(unit, memory) {
      const content = database.getBinaryFast(unit)
      if (content === undefined) throw new Error(`unit ${unit} is not in the database`)
      memory.set(content.subarray(0, memory.byteLength))
    },
    async store(unit, memory) {
      await database.put(unit, memory)
    },
    close: () => database.close(),
  }
}

interface LevelDatabase {
  open(): Promise<void>
  get(key: string): Promise<Uint8Array | undefined>
  put(key: string, value: Uint8Array): Promise<void>
  close(): Promise<void>
}

export async function openClassicLevel(settings: PeerSettings): Promise<UnitStore> {
  const { ClassicLevel } = await loadPackage<{
    ClassicLevel: new (path: string, options: object) => LevelDatabase
  }>(settings, 'classic-level')
  const database = new ClassicLevel(join(settings.directory, 'data'), {
    valueEncoding: 'view',
    compression: false,
    // Larger files and buffers than by default: values are large.
    writeBufferSize: 8 * 2 ** 20,
    maxFileSize: 32 * 2 ** 20,
  })
  await database.open()
  const keyOf = (unit: number) => String(unit).padStart(10, '0')
  return {
    async load(unit, memory) {
      const content = await database.get(keyOf(unit))
      if (content === undefined) throw new Error(`unit ${unit} is not in the database`)
      memory.set(content)
    },
    store: (unit, memory) => database.put(keyOf(unit), memory),
    close: () => database.close(),
  }
}

interface Cacache {
  put(cache: string, key: string, content: Uint8Array, options?: object): Promise<unknown>
  get: { byDigest(cache: string, integrity: unknown, options?: object): Promise<Uint8Array> }
  rm: { content(cache: string, integrity: unknown): Promise<unknown> }
}

export async function openCacache(settings: PeerSettings): Promise<UnitStore> {
  const { default: cacache } = await loadPackage<{ default: Cacache }>(settings, 'cacache')
  const { directory } = settings
  const digests = new Map<number, unknown>()
  return {
    async load(unit, memory) {
      memory.set(await cacache.get.byDigest(directory, digests.get(unit), { memoize: false }))
    },
    async store(unit, memory) {
      const before = digests.get(unit)
      digests.set(unit, await cacache.put(directory, String(unit), memory, { memoize: false }))
      // Content is named by its digest: what nobody names any more stays until it is removed.
      if (before !== undefined && String(before) !== String(digests.get(unit))) {
        await cacache.rm.content(directory, before)
      }
    },
    close() {},
  }
}
