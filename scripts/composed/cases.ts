/** The backups that are compared, each measured in a process of its own. */
import { constants } from 'node:fs'
import { open } from 'node:fs/promises'
import { monitorEventLoopDelay } from 'node:perf_hooks'
import { constants as zlibConstants, zstdCompressSync } from 'node:zlib'
import { compressedBackup, zlibCodec } from '@spillway/backup-compressed'
import { encryptedBackup } from '@spillway/backup-encrypted'
import { openFileBackup } from '@spillway/backup-file'
import { openShmemBackup } from '@spillway/backup-shmem'
import { tieredBackup } from '@spillway/backup-tiered'
import { type Backup, memoryBackup, seededRandom } from '@spillway/core'
import { available, Mapping } from '@spillway/native'
import { dataSet } from '../../apps/bench/src/input/data-sets.ts'
import { chunkBytes, type Figures, pageBytes, rangesThroughPool, singlePages, wholeChunks } from './works.ts'

const MiB = 2 ** 20
const isNative = available().available

/** Memory of whole pages, as a pool has it. */
function memoryOf(bytes: number): Uint8Array {
  return isNative ? Mapping.anonymous(bytes).view(0, bytes) : new Uint8Array(bytes)
}
const shmem = (bytes = 1024 * MiB) => openShmemBackup({ capacityBytes: bytes })
const file = ({ directory }: Place) =>
  openFileBackup({ directory, capacityBytes: 2048 * MiB, direct: isNative ? true : 'auto' })
const tiered = (fastBytes: number) => async (place: Place) =>
  tieredBackup({ tiers: [await shmem(fastBytes), await file(place)], promote: 'second' })

const random = () => dataSet('random', 128 * MiB)
/** One word all over each page. */
function sameFilled(): Uint8Array {
  const data = new Uint8Array(128 * MiB)
  for (let page = 0; page < data.byteLength / pageBytes; page++)
    data.fill((page % 255) + 1, page * pageBytes, (page + 1) * pageBytes)
  return data
}

/** Random, but for every fourth unit of 64 KiB, which is half zeros. */
function everyFourth(): Uint8Array {
  const data = random()
  const unitBytes = 64 * 1024
  for (let start = 0; start < data.byteLength; start += 4 * unitBytes)
    for (let page = start; page < start + unitBytes; page += pageBytes)
      data.fill(0, page + pageBytes / 2, page + pageBytes)
  return data
}

/** Where files lie, and how long to measure. */
export interface Place {
  readonly directory: string
  readonly milliseconds: number
}

type Work = (place: Place) => Promise<Figures>
type Opening = (place: Place) => Promise<Backup> | Backup

function whole(openBackup: Opening, data: () => Uint8Array): Work {
  return async (place) => {
    await using backup = await openBackup(place)
    return await wholeChunks(backup, data(), place.milliseconds, memoryOf)
  }
}

function pages(openBackup: Opening): Work {
  return async (place) => {
    await using backup = await openBackup(place)
    return await singlePages(backup, random(), place.milliseconds)
  }
}

function ranges(openBackup: Opening, bytes: number, draw: 'uniform' | 'zipf'): Work {
  return async (place) => {
    await using backup = await openBackup(place)
    return await rangesThroughPool(backup, { bytes, draw }, place.milliseconds)
  }
}

/** Chunks written to, and read from, the block device of zram without a cache. */
function zram(data: () => Uint8Array): Work {
  return async ({ milliseconds }) => {
    const device = await open('/dev/zram0', constants.O_RDWR | constants.O_DIRECT)
    const content = data()
    const memory = memoryOf(content.byteLength)
    memory.set(content)
    const chunks = content.byteLength / chunkBytes
    const each = async (move: (chunk: number) => Promise<unknown>) => {
      const start = performance.now()
      let bytes = 0
      while (performance.now() - start < milliseconds) {
        await Promise.all(
          Array.from({ length: 4 }, async (_, worker) => {
            for (let chunk = worker; chunk < chunks; chunk += 4) await move(chunk)
          }),
        )
        bytes += content.byteLength
      }
      return (bytes * 1000) / (performance.now() - start)
    }
    const outBytesPerSecond = await each((chunk) =>
      device.write(memory, chunk * chunkBytes, chunkBytes, chunk * chunkBytes),
    )
    const inBytesPerSecond = await each((chunk) =>
      device.read(memory, chunk * chunkBytes, chunkBytes, chunk * chunkBytes),
    )
    await device.close()
    if (Buffer.compare(memory, content) !== 0) throw new Error('zram gave back something else')
    return { outBytesPerSecond, inBytesPerSecond }
  }
}

/** Copies of chunks, by what Node has for it. */
const memoryCopy: Work = async ({ milliseconds }) => {
  const [source, target] = [memoryOf(128 * MiB), memoryOf(128 * MiB)]
  source.fill(1)
  target.fill(2)
  let bytes = 0
  const start = performance.now()
  while (performance.now() - start < milliseconds) {
    for (let offset = 0; offset < source.byteLength; offset += chunkBytes)
      target.set(source.subarray(offset, offset + chunkBytes), offset)
    bytes += source.byteLength
  }
  const bytesPerSecond = (bytes * 1000) / (performance.now() - start)
  return { outBytesPerSecond: bytesPerSecond, inBytesPerSecond: bytesPerSecond }
}

/** The share of its bytes that a set takes as zstd frames of 64 KiB, raw where that is less. */
function zstdShare(made: () => Uint8Array): Work {
  return async () => {
    const data = made()
    let bytes = 0
    const unitBytes = 64 * 1024
    const params = { [zlibConstants.ZSTD_c_compressionLevel]: 1 }
    for (let start = 0; start < data.byteLength; start += unitBytes)
      bytes += Math.min(
        unitBytes,
        zstdCompressSync(data.subarray(start, start + unitBytes), { params }).byteLength,
      )
    return { spaceShare: bytes / data.byteLength }
  }
}

/** Bytes of heap and buffers for a page that is stored in whole chunks. */
function bookkeeping(wrap: (inner: Backup) => Backup): Work {
  return async () => {
    const chunk = new Uint8Array(chunkBytes)
    const next = seededRandom(1)
    const backup = wrap(await shmem(4096 * MiB))
    const bare = await shmem(4096 * MiB)
    const heldBytes = async () => {
      for (let round = 0; round < 3; round++) {
        globalThis.gc!()
        await new Promise((resolve) => setTimeout(resolve, 20))
      }
      const { heapUsed, arrayBuffers } = process.memoryUsage()
      return heapUsed + arrayBuffers
    }
    const held = async (target: Backup) => {
      const before = await heldBytes()
      const count = 256
      for (let index = 0; index < count; index++) {
        for (let word = 0; word < chunk.byteLength; word += 8) chunk[word] = Math.floor(next() * 256)
        await target.backupPages([chunk])
      }
      return ((await heldBytes()) - before) / (count * (chunkBytes / pageBytes))
    }
    await held(bare)
    await held(backup)
    const bytesPerPage = (await held(backup)) - (await held(bare))
    await backup.close()
    await bare.close()
    return { bytesPerPage }
  }
}

const idle: Work = async ({ milliseconds }) => {
  const delay = monitorEventLoopDelay({ resolution: 1 })
  delay.enable()
  await new Promise((resolve) => setTimeout(resolve, milliseconds))
  delay.disable()
  return { loopP99Ms: delay.percentile(99) / 1e6, loopMaxMs: delay.max / 1e6 }
}

const sets = {
  'half-zeros': () => dataSet('half-zeros', 128 * MiB),
  records: () => dataSet('records', 128 * MiB),
  text: () => dataSet('text', 128 * MiB),
}

export const cases: Readonly<Record<string, Work>> = {
  idle,
  'memory copy': memoryCopy,
  'shmem: ranges of a hot set': ranges(() => shmem(), 192 * MiB, 'uniform'),
  'tiered: ranges of a hot set': ranges(tiered(256 * MiB), 192 * MiB, 'uniform'),
  'file: uniform ranges': ranges(file, 512 * MiB, 'uniform'),
  'tiered: uniform ranges': ranges(tiered(64 * MiB), 512 * MiB, 'uniform'),
  'file: zipf ranges': ranges(file, 512 * MiB, 'zipf'),
  'tiered: zipf ranges': ranges(tiered(64 * MiB), 512 * MiB, 'zipf'),
  ...Object.fromEntries(
    Object.entries(sets).flatMap(([set, data]): [string, Work][] => [
      [`zstd -1: ${set}`, zstdShare(data)],
      [`zram: ${set}`, zram(data)],
      [`compressed(shmem): ${set}`, whole(async () => compressedBackup(await shmem()), data)],
      [
        `compressed(shmem) by node:zlib: ${set}`,
        whole(async () => compressedBackup(await shmem(), { codec: zlibCodec() }), data),
      ],
    ]),
  ),
  'file: random data': whole(file, random),
  'compressed(file): random data': whole(async (place) => compressedBackup(await file(place)), random),
  'compressed(file): every fourth unit': whole(
    async (place) => compressedBackup(await file(place)),
    everyFourth,
  ),
  'file: single pages': pages(file),
  'compressed(file): single pages': pages(async (place) => compressedBackup(await file(place))),
  'compressed(shmem): same-filled': whole(async () => compressedBackup(await shmem()), sameFilled),
  'encrypted(file): random data': whole(async (place) => encryptedBackup(await file(place)), random),
  'encrypted(file): single pages': pages(async (place) => encryptedBackup(await file(place))),
  'file: random data, without native code': whole(file, random),
  'encrypted(file): random data, without native code': whole(
    async (place) => encryptedBackup(await file(place)),
    random,
  ),
  'file: single pages, without native code': pages(file),
  'encrypted(file): single pages, without native code': pages(async (place) =>
    encryptedBackup(await file(place)),
  ),
  'tiered: bookkeeping': bookkeeping((inner) => tieredBackup({ tiers: [inner, memoryBackup()] })),
  'compressed: bookkeeping': bookkeeping((inner) => compressedBackup(inner)),
  'encrypted: bookkeeping': bookkeeping((inner) => encryptedBackup(inner)),
}
