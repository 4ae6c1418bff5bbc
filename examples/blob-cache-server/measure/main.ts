/**
 * Two uploads of a gibibyte at once, then ranges of them, with the example at a limit of 128 MiB and with files of node:fs in turn, each server in a
 * memory control group of its own, so that the page cache that it fills counts as its memory does.
 *
 *   node examples/blob-cache-server/measure/main.ts [--gib 1] [--rounds 3] [--group-mib 384] [--directory /var/tmp]
 */
import { randomFillSync } from 'node:crypto'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { Agent, request } from 'node:http'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { setTimeout } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { spawnInGroup } from '../../../scripts/grouped-process.ts'

const { values: options } = parseArgs({
  options: {
    gib: { type: 'string', default: '1' },
    rounds: { type: 'string', default: '3' },
    'group-mib': { type: 'string', default: '384' },
    directory: { type: 'string', default: '/var/tmp' },
  },
})
const mebibyte = 2 ** 20
const limitMebibytes = 128
const blobBytes = Math.round(Number(options.gib) * 1024) * mebibyte
const names = ['first', 'second']
const rangeBytes = 8 * mebibyte
const content = randomFillSync(Buffer.alloc(mebibyte))

interface Phase {
  /** The greatest resident size, above what the server has before the first upload. */
  readonly addedBytes: number
  /** MiB/s of all connections together. */
  readonly rate: number
}

interface Figures {
  readonly up: Phase
  readonly down: Phase
  /** Of the server. */
  readonly cpuSeconds: number
}

/** Resident size of a process. Pages of files that it has mapped, such as its program, can be had back and do not count. */
function residentBytes(processId: number): number {
  const status = readFileSync(`/proc/${processId}/status`, 'utf8')
  const bytesOf = (name: string) => Number(new RegExp(`^${name}:\\s+(\\d+) kB`, 'm').exec(status)![1]) * 1024
  return bytesOf('RssAnon') + bytesOf('RssShmem')
}

function cpuSeconds(processId: number): number {
  const fields = readFileSync(`/proc/${processId}/stat`, 'utf8').split(') ')[1].split(' ')
  return (Number(fields[11]) + Number(fields[12])) / 100
}

async function* repeated(bytes: number): AsyncGenerator<Buffer> {
  for (let sent = 0; sent < bytes; sent += mebibyte) yield content
}

async function put(url: string): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<number>()
  const put = request(url, { method: 'PUT', headers: { 'Content-Length': blobBytes } })
  put
    .on('response', (response) => response.resume().on('end', () => resolve(response.statusCode!)))
    .on('error', reject)
  await pipeline(Readable.from(repeated(blobBytes), { highWaterMark: 1 }), put)
  if ((await promise) !== 201) throw new Error(`PUT ${url}: ${await promise}`)
}

/** Gets as many bytes as the blob has, in ranges that begin where a mebibyte does, and looks at the first bytes of each. */
async function getRanges(url: string, agent: Agent): Promise<void> {
  let state = 1 // of a linear congruential generator
  for (let got = 0; got < blobBytes; got += rangeBytes) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    const first = Math.floor((state / 2 ** 32) * ((blobBytes - rangeBytes) / mebibyte)) * mebibyte
    const { promise, resolve, reject } = Promise.withResolvers<number>()
    const headers = { Range: `bytes=${first}-${first + rangeBytes - 1}` }
    const get = request(url, { agent, headers }, (response) => {
      let length = 0
      response.on('data', (bytes) => {
        if (length === 0 && !content.subarray(0, 1000).equals(bytes.subarray(0, 1000)))
          reject(new Error('other bytes'))
        length += bytes.byteLength
      })
      response.on('end', () => resolve(length)).on('error', reject)
    })
    get.on('error', reject).end()
    if ((await promise) !== rangeBytes) throw new Error(`GET ${url}: ${await promise} bytes`)
  }
}

/** The server of a script, in a group of its own. */
async function start(script: string, args: string[], stack: AsyncDisposableStack) {
  const command = [process.execPath, join(import.meta.dirname, script), '0', ...args]
  const { child: server, group } = spawnInGroup(command, Number(options['group-mib']) * mebibyte)
  stack.use(group)
  stack.defer(async () => {
    const exited = once(server, 'exit')
    server.kill('SIGTERM')
    await exited
  })
  let said = ''
  for await (const bytes of server.stdout.iterator({ destroyOnReturn: false })) {
    said += bytes
    if (/port: \d+/.test(said)) break
  }
  server.stdout.resume()
  await setTimeout(1000)
  return { processId: server.pid!, url: `http://127.0.0.1:${/port: (\d+)/.exec(said)![1]}` }
}

async function measure(script: string, ...args: string[]): Promise<Figures> {
  await using stack = new AsyncDisposableStack()
  const { processId, url } = await start(script, args, stack)
  const emptyBytes = residentBytes(processId)
  let mostBytes = 0
  const sample = () => {
    mostBytes = Math.max(mostBytes, residentBytes(processId))
  }
  const sampling = setInterval(sample, 20)
  stack.defer(() => clearInterval(sampling))
  const phase = async (work: (url: string) => Promise<void>) => {
    mostBytes = 0
    const startMs = performance.now()
    await Promise.all(names.map((name) => work(`${url}/${name}`)))
    const seconds = (performance.now() - startMs) / 1000
    return { addedBytes: mostBytes - emptyBytes, rate: (names.length * blobBytes) / mebibyte / seconds }
  }
  const up = await phase(put)
  const agent = stack.adopt(new Agent({ keepAlive: true }), (agent) => agent.destroy())
  const down = await phase((url) => getRanges(url, agent))
  return { up, down, cpuSeconds: cpuSeconds(processId) }
}

function tell(name: string, { up, down, cpuSeconds }: Figures, limitBytes: number): void {
  const of = ({ addedBytes, rate }: Phase) =>
    `${rate.toFixed(0)} MiB/s, ${Math.round((addedBytes - limitBytes) / mebibyte)} MiB`
  console.log(`${name}: up ${of(up)}, down ${of(down)}, ${cpuSeconds.toFixed(1)} s of CPU time`)
}

const directory = mkdtempSync(join(options.directory, 'upload-'))
try {
  console.log('rates, and resident memory above limit and empty server:')
  const ratios: { up: number; down: number; cpuTime: number }[] = []
  for (let round = 0; round < Number(options.rounds); round++) {
    const ours = await measure('../src/server.ts', String(limitMebibytes), '4', directory)
    tell('spillway', ours, limitMebibytes * mebibyte)
    const files = await measure('file-server.ts', directory)
    tell('node:fs', files, 0)
    ratios.push({
      up: ours.up.rate / files.up.rate,
      down: ours.down.rate / files.down.rate,
      cpuTime: files.cpuSeconds / ours.cpuSeconds,
    })
  }
  const median = (name: 'up' | 'down' | 'cpuTime') => {
    const sorted = ratios.map((ratio) => ratio[name]).sort((a, b) => a - b)
    return sorted[Math.floor(sorted.length / 2)].toFixed(2)
  }
  console.log(
    `relative to node:fs: up ${median('up')}, down ${median('down')}, per CPU time ${median('cpuTime')}`,
  )
} finally {
  rmSync(directory, { recursive: true })
}
