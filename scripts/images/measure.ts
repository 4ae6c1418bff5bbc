/** One process of the benchmark of images: it takes one order as its argument, does it, and prints figures in milliseconds. */
import {
  closeSync,
  constants,
  fdatasyncSync,
  fsyncSync,
  openSync,
  rmSync,
  statSync,
  writeSync,
} from 'node:fs'
import { open } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { type FileBackup, openFileBackup } from '@spillway/backup-file'
import { type PagedBuffer, Pool } from '@spillway/pool'
import { alignedMemory } from '../../apps/bench/src/peers/aligned-memory.ts'
import { Random } from '../../apps/bench/src/random.ts'

export interface Order {
  readonly what:
    | 'prepare'
    | 'open'
    | 'save one page'
    | 'save one part'
    | 'restart'
    | 'prepare file'
    | 'copy file'
    | 'prepare lmdb'
    | 'read lmdb'
    | 'prepare sqlite'
    | 'read sqlite'
  /** The store, or what it is compared with. */
  readonly path: string
  readonly sizeBytes: number
  /** 9: chunks of 2 MiB; 0: single pages, no two of which lie side by side in the store. */
  readonly maxOrder: number
  /** End as `kill -9` ends it. */
  readonly isKilled?: boolean
  /** Where packages that are compared with are installed. */
  readonly packages?: string
}

export type Figures = Readonly<Record<string, number>>

const pageBytes = 4096
const valueBytes = 8 * 2 ** 20
/** Of a gibibyte, in whole chunks of 2 MiB. */
const changedChunks = 5
const chunkBytes = 2 ** 21
const name = 'image'

async function timed(work: () => unknown): Promise<number> {
  const start = performance.now()
  await work()
  return performance.now() - start
}

/** The same, and the processor time that the process took meanwhile, all of its threads. */
async function timedWithProcessor(work: () => unknown): Promise<{ ms: number; cpuMs: number }> {
  const cpu = process.cpuUsage()
  const ms = await timed(work)
  const { user, system } = process.cpuUsage(cpu)
  return { ms, cpuMs: (user + system) / 1000 }
}

/** Bytes that no codec shortens and that are not zeros. */
function noise(lengthBytes: number): Uint8Array {
  const random = new Random(lengthBytes)
  const words = new Uint32Array(lengthBytes / 4)
  for (let index = 0; index < words.length; index++) words[index] = random.below(2 ** 31) + 1
  return new Uint8Array(words.buffer)
}

function openStore({ path, sizeBytes }: Order): Promise<FileBackup> {
  return openFileBackup({ path, persistent: true, keepFreeBytes: 0, capacityBytes: 2 * sizeBytes + 2 ** 28 })
}

function openPool(backup: FileBackup): Pool {
  return new Pool({ limitBytes: 2 ** 28, backup })
}

async function prepare(order: Order): Promise<Figures> {
  const { sizeBytes, maxOrder } = order
  const backup = await openStore(order)
  const pool = openPool(backup)
  const buffer = await pool.allocate(sizeBytes, { maxOrder })
  if (maxOrder > 0) await writeAll(buffer, sizeBytes)
  else await writeScattered(buffer, sizeBytes)
  await buffer.save(name)
  await end(order, pool, backup)
  return { fileBytes: statSync(order.path).size }
}

async function writeAll(buffer: PagedBuffer, sizeBytes: number): Promise<void> {
  const piece = noise(valueBytes)
  for (let offset = 0; offset < sizeBytes; offset += valueBytes) await buffer.write(offset, piece)
}

/** First the even pages, then the odd ones, so that neighbours are not stored side by side. */
async function writeScattered(buffer: PagedBuffer, sizeBytes: number): Promise<void> {
  const page = noise(pageBytes)
  for (let parity = 0; parity < 2; parity++) {
    for (let offset = parity * pageBytes; offset < sizeBytes; offset += 2 * pageBytes)
      await buffer.write(offset, page)
    await buffer.backup()
  }
}

async function end({ isKilled }: Order, pool: Pool, backup: FileBackup): Promise<void> {
  if (isKilled) process.kill(process.pid, 'SIGKILL')
  await pool.close()
  await backup.close()
}

/** Another store, small: what a process needs to load and to compile once is not the cost of the one that is measured. */
async function warmUp({ path }: Order): Promise<void> {
  const order: Order = { what: 'open', path: `${path}.other`, sizeBytes: 2 ** 23, maxOrder: 0 }
  const backup = await openStore(order)
  const pool = openPool(backup)
  const buffer = await pool.allocate(order.sizeBytes, { maxOrder: 0 })
  await writeScattered(buffer, order.sizeBytes)
  await buffer.save(name)
  await end(order, pool, backup)
  const again = await openStore(order)
  const loading = openPool(again)
  await loading.load(name)
  await end(order, loading, again)
  rmSync(order.path)
}

async function openAndLoad(order: Order): Promise<Figures> {
  await warmUp(order)
  let backup: FileBackup | undefined
  const opening = await timedWithProcessor(async () => {
    backup = await openStore(order)
  })
  const pool = openPool(backup!)
  const loading = await timedWithProcessor(() => pool.load(name))
  await end(order, pool, backup!)
  const [openMs, openCpuMs, loadMs, loadCpuMs] = [opening.ms, opening.cpuMs, loading.ms, loading.cpuMs]
  return { openMs, openCpuMs, loadMs, loadCpuMs }
}

async function saveOnePage(order: Order): Promise<Figures> {
  const backup = await openStore(order)
  const pool = openPool(backup)
  const buffer = await pool.load(name)
  const random = new Random(1)
  const other = openSync(`${order.path}.sync`, 'w')
  const page = noise(pageBytes)
  const saves: number[] = []
  const syncs: number[] = []
  for (let round = 0; round < 20; round++) {
    await buffer.write(random.below(order.sizeBytes / pageBytes) * pageBytes, page)
    saves.push(await timed(() => buffer.save(name)))
    writeSync(other, page)
    syncs.push(await timed(() => fdatasyncSync(other)))
  }
  closeSync(other)
  rmSync(`${order.path}.sync`)
  await end(order, pool, backup)
  return { saveMs: median(saves), syncMs: median(syncs) }
}

/** A save after five chunks of 2 MiB of each gibibyte were written, and as much written into new space of a file and one sync. */
async function savePart(order: Order): Promise<Figures> {
  await warmUp(order)
  const backup = await openStore(order)
  const pool = openPool(backup)
  const buffer = await pool.load(name)
  const random = new Random(2)
  const piece = noise(chunkBytes)
  const count = Math.max(1, Math.round((changedChunks * order.sizeBytes) / 2 ** 30))
  const other = openSync(`${order.path}.new`, 'w')
  const saves: number[] = []
  const writes: number[] = []
  for (let round = 0; round < 25; round++) {
    for (let chunk = 0; chunk < count; chunk++)
      await buffer.write(random.below(order.sizeBytes / chunkBytes) * chunkBytes, piece)
    saves.push(await timed(() => buffer.save(name)))
    writes.push(
      await timed(() => {
        for (let chunk = 0; chunk < count; chunk++) writeSync(other, piece)
        fsyncSync(other)
      }),
    )
  }
  closeSync(other)
  rmSync(`${order.path}.new`)
  await end(order, pool, backup)
  return { saveMs: median(saves), writeMs: median(writes) }
}

async function restart(order: Order): Promise<Figures> {
  const into = new Uint8Array(valueBytes)
  let backup: FileBackup
  let pool: Pool
  const totalMs = await timed(async () => {
    backup = await openStore(order)
    pool = openPool(backup)
    const buffer = await pool.load(name)
    for (let offset = 0; offset < order.sizeBytes; offset += valueBytes) await buffer.read(offset, into)
  })
  await end(order, pool!, backup!)
  return { totalMs }
}

function prepareFile({ path, sizeBytes }: Order): Figures {
  const file = openSync(path, 'w')
  const piece = noise(valueBytes)
  for (let offset = 0; offset < sizeBytes; offset += valueBytes) writeSync(file, piece)
  fsyncSync(file)
  closeSync(file)
  return {}
}

/** Reads a file past the page cache, four requests of 2 MiB at once, and copies what was read. */
async function copyFile({ path, sizeBytes }: Order): Promise<Figures> {
  const into = new Uint8Array(chunkBytes)
  const totalMs = await timed(async () => {
    const file = await open(path, constants.O_RDONLY | constants.O_DIRECT)
    let next = 0
    const worker = async () => {
      const memory = alignedMemory(chunkBytes)
      for (let offset = next; offset < sizeBytes; offset = next) {
        next += chunkBytes
        await file.read(memory, 0, chunkBytes, offset)
        into.set(memory)
      }
    }
    await Promise.all([worker(), worker(), worker(), worker()])
    await file.close()
  })
  return { totalMs }
}

interface Values {
  put(key: number, value: Uint8Array): unknown
  get(key: number): Uint8Array | undefined
  close(): unknown
}

async function openLmdb({ path, sizeBytes, packages }: Order): Promise<Values> {
  const entry = createRequire(join(packages!, 'package.json')).resolve('lmdb')
  const lmdb = (await import(pathToFileURL(entry).href)) as { open(options: object): unknown }
  const database = lmdb.open({
    path,
    encoding: 'binary',
    mapSize: 2 * sizeBytes + 2 ** 28,
    compression: false,
  }) as { put: Values['put']; getBinaryFast: Values['get']; close: Values['close'] }
  return {
    put: (key, value) => database.put(key, value),
    get: (key) => database.getBinaryFast(key),
    close: () => database.close(),
  }
}

async function openSqlite({ path }: Order): Promise<Values> {
  const { DatabaseSync } = await import('node:sqlite')
  const database = new DatabaseSync(path)
  database.exec('PRAGMA page_size = 65536; PRAGMA journal_mode = WAL;')
  database.exec('CREATE TABLE IF NOT EXISTS units (unit INTEGER PRIMARY KEY, content BLOB NOT NULL)')
  const insert = database.prepare('INSERT OR REPLACE INTO units (unit, content) VALUES (?, ?)')
  const select = database.prepare('SELECT content FROM units WHERE unit = ?')
  return {
    put: (key, value) => insert.run(key, value),
    get: (key) => select.get(key)?.['content'] as Uint8Array | undefined,
    close: () => database.close(),
  }
}

function openValues(order: Order): Promise<Values> {
  return order.what.endsWith('lmdb') ? openLmdb(order) : openSqlite(order)
}

async function prepareValues(order: Order): Promise<Figures> {
  const values = await openValues(order)
  const piece = noise(valueBytes)
  for (let key = 0; key < order.sizeBytes / valueBytes; key++) await values.put(key, piece)
  await values.close()
  return {}
}

async function readValues(order: Order): Promise<Figures> {
  const into = new Uint8Array(valueBytes)
  const totalMs = await timed(async () => {
    const values = await openValues(order)
    for (let key = 0; key < order.sizeBytes / valueBytes; key++)
      into.set(values.get(key)!.subarray(0, valueBytes))
    await values.close()
  })
  return { totalMs }
}

function median(values: readonly number[]): number {
  return [...values].sort((one, other) => one - other)[values.length >> 1]!
}

const order = JSON.parse(process.argv[2]!) as Order
const measure: Record<Order['what'], (order: Order) => Promise<Figures> | Figures> = {
  prepare,
  open: openAndLoad,
  'save one page': saveOnePage,
  'save one part': savePart,
  restart,
  'prepare file': prepareFile,
  'copy file': copyFile,
  'prepare lmdb': prepareValues,
  'read lmdb': readValues,
  'prepare sqlite': prepareValues,
  'read sqlite': readValues,
}
process.stdout.write(JSON.stringify(await measure[order.what](order)))
process.exit(0)
