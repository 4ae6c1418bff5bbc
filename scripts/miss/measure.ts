/**
 * The process that brings single pages in, in the benchmark of the miss. It takes one order as its argument, prints the
 * figures, and ends.
 */
import { closeSync, constants, fsyncSync, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { getHeapStatistics } from 'node:v8'
import type { Backup } from '@spillway/core'
import type { PagedBuffer, Pool as PoolOfBuild } from '@spillway/pool'
import { alignedMemory } from '../../apps/bench/src/peers/aligned-memory.ts'
import { Random, shuffledIndexes } from '../../apps/bench/src/random.ts'

export interface Order {
  /** Root of the checkout whose built packages are measured. */
  readonly build: string
  /** Pages of a pool, or what it is compared with: copies in memory, reads by `node:fs`. */
  readonly way: 'shmem' | 'file' | 'file by threads' | 'copies' | 'node:fs'
  /** Bytes of pages that are there. */
  readonly dataBytes: number
  /** Limit of the pool: all pages fit, or a part of them. */
  readonly limitBytes: number
  /** Pages asked for at once. */
  readonly depth: number
  /** Pages to bring in. */
  readonly pages: number
  readonly directory: string
}

export interface Figures {
  readonly pagesPerSecond: number
  readonly cpuMicrosecondsPerPage: number
  readonly garbageBytesPerPage: number
}

const pageBytes = 4096

/** All pages below `count`, in random order. */
const shuffled = (count: number) => shuffledIndexes(count, new Random(count))

async function timed(
  pages: Uint32Array,
  depth: number,
  bringIn: (page: number, worker: number) => Promise<void>,
) {
  const allocated = getHeapStatistics().total_allocated_bytes
  const cpu = process.cpuUsage()
  const start = performance.now()
  let next = 0
  const worker = async (_: unknown, index: number) => {
    while (next < pages.length) await bringIn(pages[next++], index)
  }
  await Promise.all(Array.from({ length: depth }, worker))
  const seconds = (performance.now() - start) / 1000
  const { user, system } = process.cpuUsage(cpu)
  return {
    pagesPerSecond: pages.length / seconds,
    cpuMicrosecondsPerPage: (user + system) / pages.length,
    garbageBytesPerPage: (getHeapStatistics().total_allocated_bytes - allocated) / pages.length,
  }
}

async function openBackup({ build, way, dataBytes, directory }: Order): Promise<Backup> {
  const built = (name: string) => import(pathToFileURL(`${build}/packages/${name}/dist/index.js`).href)
  const capacityBytes = 2 * dataBytes
  if (way === 'shmem') return (await built('backup-shmem')).openShmemBackup({ capacityBytes })
  const io = way === 'file' ? 'uring' : 'threads'
  return (await built('backup-file')).openFileBackup({ directory, capacityBytes, io, direct: true })
}

/** Writes its number into each page, and backs all up. */
async function fill(buffer: PagedBuffer, count: number): Promise<void> {
  const piece = new Uint32Array((2 ** 20 * 2) / 4)
  const perPiece = piece.byteLength / pageBytes
  for (let first = 0; first < count; first += perPiece) {
    for (let page = 0; page < perPiece; page++) piece[(page * pageBytes) / 4] = first + page + 1
    await buffer.write(first * pageBytes, new Uint8Array(piece.buffer))
  }
  const { error } = await buffer.backup()
  if (error !== undefined) throw error
}

/** Single pages through pins. */
async function poolPages(order: Order): Promise<Figures> {
  const { Pool } = await import(pathToFileURL(`${order.build}/packages/pool/dist/index.js`).href)
  const backup = await openBackup(order)
  const pool: PoolOfBuild = new Pool({ limitBytes: order.limitBytes, backup })
  const count = order.dataBytes / pageBytes
  const buffer = await pool.allocate(order.dataBytes, { maxOrder: 0 })
  buffer.advise('random')
  await fill(buffer, count)
  const bringIn = async (page: number) => {
    const pin = await buffer.pin({ offset: page * pageBytes, length: pageBytes })
    const { bytes } = pin
    const found = bytes[0] | (bytes[1] << 8) | (bytes[2] << 16)
    pin.release()
    if (found !== ((page + 1) & 0xffffff)) throw new Error(`page ${page} is ${found - 1}`)
  }
  // The first pages make the code warm; each page is asked for once, so that every one of them is missing.
  const pages = shuffled(count)
  const warm = Math.min(order.pages, count >>> 2)
  await timed(pages.subarray(0, warm), order.depth, bringIn)
  const figures = await timed(pages.subarray(warm, warm + order.pages), order.depth, bringIn)
  await pool.close()
  await backup.close()
  return figures
}

/** Copies of random pages from one block of memory into pages of another. */
async function copies({ dataBytes, pages }: Order): Promise<Figures> {
  const source = new Uint8Array(dataBytes).fill(1)
  const target = new Uint8Array(dataBytes).fill(2)
  const indexes = shuffled(dataBytes / pageBytes).subarray(0, pages)
  const parts = Array.from({ length: dataBytes / pageBytes }, (_, page) =>
    source.subarray(page * pageBytes, (page + 1) * pageBytes),
  )
  const start = performance.now()
  for (let index = 0; index < indexes.length; index++) target.set(parts[indexes[index]], index * pageBytes)
  const seconds = (performance.now() - start) / 1000
  return {
    pagesPerSecond: indexes.length / seconds,
    cpuMicrosecondsPerPage: (seconds * 1e6) / indexes.length,
    garbageBytesPerPage: 0,
  }
}

/** Reads of random pages of a file by `node:fs`, direct as ours are, as many at once. */
async function nodeReads({ dataBytes, depth, pages, directory }: Order): Promise<Figures> {
  const folder = mkdtempSync(join(directory, 'miss-'))
  const path = join(folder, 'pages')
  const descriptor = openSync(path, 'wx')
  const piece = new Uint8Array(2 * 2 ** 20).fill(1)
  for (let offset = 0; offset < dataBytes; offset += piece.byteLength)
    writeSync(descriptor, piece, 0, piece.byteLength, offset)
  fsyncSync(descriptor)
  closeSync(descriptor)
  const file = await open(path, constants.O_RDONLY | (constants.O_DIRECT ?? 0))
  const targets = Array.from({ length: depth }, () => alignedMemory(pageBytes))
  const read = async (page: number, worker: number) => {
    const { bytesRead } = await file.read(targets[worker], 0, pageBytes, page * pageBytes)
    if (bytesRead !== pageBytes || targets[worker][9] !== 1) throw new Error(`page ${page} is wrong`)
  }
  const indexes = shuffled(dataBytes / pageBytes)
  await timed(indexes.subarray(0, pages >>> 2), depth, read)
  const figures = await timed(indexes.subarray(0, pages), depth, read)
  await file.close()
  rmSync(folder, { recursive: true })
  return figures
}

const order = JSON.parse(process.argv[2]!) as Order
const measure = {
  copies,
  'node:fs': nodeReads,
  shmem: poolPages,
  file: poolPages,
  'file by threads': poolPages,
}[order.way]
process.stdout.write(JSON.stringify(await measure(order)))
process.exit(0)
