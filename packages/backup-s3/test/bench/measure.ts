/**
 * The process that moves bytes in the benchmark, so that its processor time and its memory are of nothing else. It takes one
 * order over its channel, sends the figures, and ends.
 */
import { readFileSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { connect, type Socket } from 'node:net'
import { monitorEventLoopDelay } from 'node:perf_hooks'
import { pathToFileURL } from 'node:url'
import { getHeapStatistics } from 'node:v8'
import type * as Sdk from '@aws-sdk/client-s3'
import type * as BackupS3 from '@spillway/backup-s3'
import type * as PoolPackage from '@spillway/pool'

export interface Order {
  /** Root of the checkout whose built packages are measured. */
  readonly build: string
  /** Sockets alone, calls of the SDK alone, pages of a backup, or pages of a pool. */
  readonly way: 'sockets' | 'bare' | 'backup' | 'pool'
  readonly clientConfig: Sdk.S3ClientConfig
  readonly bucket: string
  readonly conditionalWrites: boolean
  readonly prefix: string
  readonly concurrency: number
  readonly milliseconds: number
}

export interface Figures {
  readonly pagesPerSecond: number
  readonly cpuMicrosecondsPerPage: number
  readonly garbageBytesPerPage: number
  readonly loopDelayP99Ms: number
  readonly loopDelayMaxMs: number
  /** Highest resident memory, less that before the first page and less the limit of the pool. */
  readonly residentBytesAboveLimit: number
  readonly putBytesPerSecond: number
  readonly getBytesPerSecond: number
}

interface Packages {
  readonly sdk: typeof Sdk
  readonly backupS3: typeof BackupS3
  readonly pool: typeof PoolPackage
}

interface Work extends AsyncDisposable {
  readonly limitBytes: number
  /** Moves one page, for the worker of that number. */
  page(worker: number): Promise<void>
  /** Moves 8 MiB; missing where only pages are moved. */
  put?(worker: number): Promise<void>
  get?(worker: number): Promise<void>
}

const pageBytes = 4096
const segmentBytes = 8 * 2 ** 20
const pagesPerSegment = segmentBytes / pageBytes
/** Segments under way at once. */
const segmentConcurrency = 4

async function packagesOf(build: string): Promise<Packages> {
  const require = createRequire(`${build}/packages/backup-s3/package.json`)
  const built = (name: string) => import(pathToFileURL(`${build}/packages/${name}/dist/index.js`).href)
  return {
    sdk: require('@aws-sdk/client-s3'),
    backupS3: await built('backup-s3'),
    pool: await built('pool'),
  }
}

function segmentContent(): Buffer {
  const content = Buffer.alloc(segmentBytes)
  for (let page = 0; page < pagesPerSegment; page++) content.writeUInt32LE(page + 1, page * pageBytes)
  return content
}

function check(page: Uint8Array, index: number): void {
  const found = page[0] | (page[1] << 8) | (page[2] << 16)
  if (found !== index + 1) throw new Error(`page ${index} came back as ${found - 1}`)
}

/** A ranged `GetObject` for each page, an object for each 8 MiB. */
async function bareWork({ sdk }: Packages, order: Order): Promise<Work> {
  const { bucket, prefix } = order
  const client = new sdk.S3Client({
    ...order.clientConfig,
    requestHandler: { httpAgent: { maxSockets: order.concurrency } },
  })
  const content = segmentContent()
  const memory = Array.from({ length: segmentConcurrency }, () => Buffer.alloc(segmentBytes))
  const put = async (name: string) => {
    await client.send(new sdk.PutObjectCommand({ Bucket: bucket, Key: prefix + name, Body: content }))
  }
  const get = async (name: string, range: string | undefined) => {
    const wanted = { Bucket: bucket, Key: prefix + name, ...(range === undefined ? {} : { Range: range }) }
    const { Body } = await client.send(new sdk.GetObjectCommand(wanted))
    return (Body as { transformToByteArray(): Promise<Uint8Array> }).transformToByteArray()
  }
  await put('0')
  return {
    limitBytes: 0,
    page: async () => {
      const index = Math.floor(Math.random() * pagesPerSegment)
      check(await get('0', `bytes=${index * pageBytes}-${(index + 1) * pageBytes - 1}`), index)
    },
    put: (worker) => put(`put-${worker}`),
    get: async (worker) => {
      memory[worker].set(await get('0', undefined))
      check(memory[worker].subarray(segmentBytes - pageBytes), pagesPerSegment - 1)
    },
    [Symbol.asyncDispose]: async () => client.destroy(),
  }
}

/**
 * One signed request, written to a socket again and again, and the bytes of its answer counted: what any client pays for
 * a page that has a connection of Node's for itself.
 */
async function socketsWork({ sdk }: Packages, order: Order): Promise<Work> {
  const { bucket, prefix, concurrency } = order
  const client = new sdk.S3Client(order.clientConfig)
  await client.send(new sdk.PutObjectCommand({ Bucket: bucket, Key: `${prefix}0`, Body: segmentContent() }))
  let text = ''
  let address: { host: string; port: number } | undefined
  client.middlewareStack.add(
    (next) => (call) => {
      const { method, path, headers, hostname, port } = call.request as {
        method: string
        path: string
        headers: Record<string, string>
        hostname: string
        port: number
      }
      const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`)
      text = `${method} ${path}?x-id=GetObject HTTP/1.1\r\n${lines.join('')}\r\n`
      address = { host: hostname, port }
      return next(call)
    },
    { step: 'finalizeRequest', name: 'seen', priority: 'low' },
  )
  const wanted = { Bucket: bucket, Key: `${prefix}0`, Range: `bytes=0-${pageBytes - 1}` }
  await (await client.send(new sdk.GetObjectCommand(wanted))).Body!.transformToByteArray()
  const sockets = Array.from({ length: concurrency }, () => connect({ ...address!, noDelay: true }))
  return {
    limitBytes: 0,
    page: (worker) => askOnce(sockets[worker], text),
    [Symbol.asyncDispose]: async () => {
      for (const socket of sockets) socket.destroy()
      client.destroy()
    },
  }
}

/** Sends a request, and waits for as many bytes as its answer has. */
function askOnce(socket: Socket, text: string): Promise<void> {
  return new Promise((resolve, reject) => {
    let left = Number.NaN
    const onData = (data: Buffer) => {
      if (Number.isNaN(left)) {
        const end = data.indexOf('\r\n\r\n') + 4
        const head = data.toString('latin1', 0, end)
        if (!head.startsWith('HTTP/1.1 206')) reject(new Error(head))
        left = end + pageBytes
      }
      left -= data.length
      if (left > 0) return
      socket.off('data', onData)
      resolve()
    }
    socket.on('data', onData)
    socket.write(text, 'latin1')
  })
}

function openBackup({ sdk, backupS3 }: Packages, order: Order): Promise<BackupS3.S3Backup> {
  const client = new sdk.S3Client({ ...order.clientConfig, requestHandler: backupS3.pageHttpHandler() })
  const { bucket, conditionalWrites, prefix, concurrency } = order
  const tuning = { restoresInFlight: concurrency, mergeGapBytes: 0, compaction: false as const }
  const options = conditionalWrites ? tuning : { ...tuning, conditionalWrites }
  return backupS3.S3Backup.open({ client, bucket, prefix, ...options })
}

/** Single pages and whole segments of a backup. */
async function backupWork(packages: Packages, order: Order): Promise<Work> {
  const backup = await openBackup(packages, order)
  const content = segmentContent()
  const { handles } = await backup.backupPages([content])
  const { first } = handles[0]
  const pages = Array.from({ length: order.concurrency }, () => [Buffer.alloc(pageBytes)])
  const memory = Array.from({ length: segmentConcurrency }, () => [Buffer.alloc(segmentBytes)])
  return {
    limitBytes: 0,
    page: async (worker) => {
      const index = Math.floor(Math.random() * pagesPerSegment)
      const { error } = await backup.copyPages([{ first: first + index, count: 1 }], pages[worker])
      if (error) throw error
      check(pages[worker][0], index)
    },
    put: async () => {
      const written = await backup.backupPages([content])
      if (written.error) throw written.error
      await backup.drop(written.handles)
    },
    get: async (worker) => {
      const { error } = await backup.copyPages(handles, memory[worker])
      if (error) throw error
      check(memory[worker][0].subarray(segmentBytes - pageBytes), pagesPerSegment - 1)
    },
    [Symbol.asyncDispose]: () => backup.close(),
  }
}

/** Reads of a buffer that is four times as large as the memory of its pool. */
async function poolWork(packages: Packages, order: Order): Promise<Work> {
  const backup = await openBackup(packages, order)
  const limitBytes = 64 * 2 ** 20
  const pool = new packages.pool.Pool({ limitBytes, backup })
  // In chunks of one page: else each miss would bring in 2 MiB.
  const buffer = await pool.allocate(4 * limitBytes, { maxOrder: 0 })
  const content = segmentContent()
  for (let offset = 0; offset < 4 * limitBytes; offset += segmentBytes) await buffer.write(offset, content)
  const memory = Array.from({ length: order.concurrency }, () => Buffer.alloc(pageBytes))
  return {
    limitBytes,
    page: async (worker) => {
      const index = Math.floor(Math.random() * ((4 * limitBytes) / pageBytes))
      await buffer.read(index * pageBytes, memory[worker])
      check(memory[worker], index % pagesPerSegment)
    },
    [Symbol.asyncDispose]: async () => {
      await pool.close()
      await backup.close()
    },
  }
}

async function inParallel(workers: number, work: (worker: number) => Promise<void>, untilMs: number) {
  let calls = 0
  const run = async (_: unknown, worker: number) => {
    while (performance.now() < untilMs) {
      await work(worker)
      calls++
    }
  }
  await Promise.all(Array.from({ length: workers }, run))
  return calls
}

async function bytesPerSecond(
  move: ((worker: number) => Promise<void>) | undefined,
  milliseconds: number,
): Promise<number> {
  if (move === undefined) return Number.NaN
  const start = performance.now()
  const calls = await inParallel(segmentConcurrency, move, start + milliseconds)
  return (calls * segmentBytes * 1000) / (performance.now() - start)
}

function highestResidentBytes(): number {
  return Number(/VmHWM:\s*(\d+)/.exec(readFileSync('/proc/self/status', 'utf8'))![1]) * 1024
}

async function measure(order: Order): Promise<Figures> {
  const packages = await packagesOf(order.build)
  const makeWork = { sockets: socketsWork, bare: bareWork, backup: backupWork, pool: poolWork }[order.way]
  // What the code itself takes is there after a first backup.
  await (await openBackup(packages, { ...order, prefix: `${order.prefix}first/` })).close()
  const residentBytes = process.memoryUsage.rss()
  writeFileSync('/proc/self/clear_refs', '5')
  await using work = await makeWork(packages, order)
  const { concurrency, milliseconds } = order
  await inParallel(concurrency, work.page, performance.now() + milliseconds / 3)
  const delay = monitorEventLoopDelay({ resolution: 1 })
  delay.enable()
  const allocatedBytes = getHeapStatistics().total_allocated_bytes
  const cpuBefore = process.cpuUsage()
  const start = performance.now()
  const pages = await inParallel(concurrency, work.page, start + milliseconds)
  const { user, system } = process.cpuUsage(cpuBefore)
  const seconds = (performance.now() - start) / 1000
  delay.disable()
  const figures = {
    pagesPerSecond: pages / seconds,
    cpuMicrosecondsPerPage: (user + system) / pages,
    garbageBytesPerPage: (getHeapStatistics().total_allocated_bytes - allocatedBytes) / pages,
    loopDelayP99Ms: delay.percentile(99) / 1e6,
    loopDelayMaxMs: delay.max / 1e6,
    residentBytesAboveLimit: highestResidentBytes() - residentBytes - work.limitBytes,
  }
  return {
    ...figures,
    putBytesPerSecond: await bytesPerSecond(work.put, milliseconds / 2),
    getBytesPerSecond: await bytesPerSecond(work.get, milliseconds / 2),
  }
}

process.once('message', (order: Order) => {
  measure(order).then(
    (figures) => process.send!(figures, () => process.exit(0)),
    (failure: unknown) => {
      process.stderr.write(`${failure instanceof Error ? failure.stack : String(failure)}\n`)
      process.exit(1)
    },
  )
})
