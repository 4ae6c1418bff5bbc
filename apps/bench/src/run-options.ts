import { closeSync, existsSync, mkdirSync, openSync, rmdirSync, statSync, unlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, resolve } from 'node:path'
import { splitList } from './backend-expressions.ts'
import { type BackendChoice, chooseBackend } from './backends.ts'
import { type Workload, workloadNamed, workloads } from './case/workloads.ts'
import { type DataSet, dataSets } from './input/data-sets.ts'
import { fileSystemOf } from './machine.ts'
import { type PeerDescription, peerNamed, peers } from './peers/registry.ts'
import type { S3ServerOptions } from './s3/server.ts'
import { formatByteSize, kibibyte, mebibyte, parseByteSize } from './sizes.ts'
import { UsageError } from './usage-error.ts'

/** The options of `run` as they stand on the command line. */
export interface RunArguments {
  readonly backend: string
  readonly input?: readonly string[]
  readonly data?: string
  readonly limit: string
  readonly overcommit: string
  readonly workload: string
  readonly pageSize: string
  readonly bufferSize?: string
  readonly rounds: string
  readonly concurrency: string
  readonly directory?: string
  readonly io: string
  readonly checksums: string
  readonly seed: string
  readonly budget: string
  readonly patience: string
  readonly s3: string
  readonly s3Latency: string
  readonly s3Errors: string
  readonly s3Matrix?: boolean
  /** Names with commas between them, or true for all. */
  readonly peers?: boolean | string
  readonly ceilings: boolean
  readonly live?: boolean
  readonly quick?: boolean
  /** A path, or false when it is not wanted. */
  readonly json: string | boolean
  readonly report: string | boolean
}

/** The options of `run`, checked. */
export interface RunOptions {
  readonly backends: readonly BackendChoice[]
  readonly workloads: readonly Workload[]
  readonly inputs: readonly string[] | undefined
  /** Made data in place of real files. */
  readonly data: DataSet | undefined
  readonly limitBytes: number
  readonly overcommit: number
  readonly pageSizeBytes: number
  readonly bufferBytes: number
  readonly rounds: number
  readonly concurrency: number
  readonly directory: string
  readonly io: 'auto' | 'uring' | 'threads'
  readonly checksums: boolean
  readonly seed: number
  /** Time that the run may take, as far as measuring less can achieve it; undefined: as long as it takes. */
  readonly budgetSeconds: number | undefined
  /** A case that makes no progress for so long has failed. */
  readonly patienceMs: number
  readonly s3: S3ServerOptions
  /** Whether S3 is also measured at every added latency and with errors. */
  readonly s3Matrix: boolean
  /** What is measured beside the backends; empty: nothing. */
  readonly peers: readonly PeerDescription[]
  readonly ceilings: boolean
  /** Whether each case of a backend shows a dashboard while it runs. */
  readonly live: boolean
  readonly jsonPath: string | undefined
  readonly reportPath: string | undefined
}

/** Below this, a limit holds too few chunks of 2 MiB for anything to be measured. */
export const smallestLimitBytes = 8 * mebibyte
const largestPageSizeBytes = 2 * mebibyte
const smallestPageSizeBytes = 4 * kibibyte
const largestBufferBytes = 8 * mebibyte
const smallestBufferBytes = 256 * kibibyte

/** What `--peers` stands for where nothing else is said: the workloads in which they differ, and content that does not compress. */
export const peersDefaults = { workload: 'random,zipf,pages-1,pages-4,pages-32', data: 'random' } as const

/** What `--quick` stands for where nothing else is said: small enough for CI. */
export const quickDefaults = { limit: '32MiB', overcommit: '3', rounds: '2' } as const

/** Checks the options of `run`. Throws `UsageError` with one line that names the value and says what would be right. */
export function parseRunOptions(given: RunArguments): RunOptions {
  const limitBytes = parseByteSize(given.limit, '--limit')
  if (limitBytes < smallestLimitBytes) {
    throw new UsageError(
      `--limit '${given.limit}' is too small; it takes at least ${formatByteSize(smallestLimitBytes)}`,
    )
  }
  const pageSizeBytes = parsePageSize(given.pageSize)
  const bufferBytes = parseBufferSize(given.bufferSize, limitBytes, pageSizeBytes)
  const concurrency = parseCount(given.concurrency, '--concurrency', 1, 64)
  return {
    backends: chooseBackends(given.backend),
    workloads: parseList(given.workload, '--workload').map(chooseWorkload),
    inputs: given.input,
    data: parseData(given),
    limitBytes,
    overcommit: parseOvercommit(given.overcommit),
    pageSizeBytes,
    bufferBytes,
    rounds: parseCount(given.rounds, '--rounds', 1, 100),
    // All pins together may take half of the limit, or nothing would be left to evict.
    concurrency: Math.max(1, Math.min(concurrency, Math.floor(limitBytes / 2 / bufferBytes))),
    directory: parseDirectory(given.directory),
    io: parseChoice(given.io, '--io', ['auto', 'uring', 'threads']),
    checksums: parseChoice(given.checksums, '--checksums', ['on', 'off']) === 'on',
    seed: parseCount(given.seed, '--seed', 0, 2 ** 31),
    budgetSeconds: given.budget === 'off' ? undefined : parseCount(given.budget, '--budget', 1, 86_400),
    s3: parseS3(given),
    s3Matrix: parseS3Matrix(given),
    patienceMs: parseCount(given.patience, '--patience', 1, 86_400) * 1000,
    peers: parsePeers(given.peers),
    ceilings: given.ceilings,
    live: given.live ?? false,
    jsonPath: parseOutput(given.json, '--json'),
    reportPath: parseOutput(given.report, '--report'),
  }
}

function parseList(text: string, option: string): string[] {
  const names = splitList(text)
  if (names.some((name) => name === '')) {
    throw new UsageError(`${option} '${text}' has an empty name in it; write for example a,b`)
  }
  return [...new Set(names)]
}

function parseData({ data, input }: RunArguments): DataSet | undefined {
  if (data === undefined) return undefined
  if (input !== undefined) throw new UsageError('--data and --input exclude each other; give one of them')
  return parseChoice(data, '--data', dataSets)
}

function parsePeers(given: boolean | string | undefined): PeerDescription[] {
  if (typeof given !== 'string') return given === true ? [...peers] : []
  return parseList(given, '--peers').map((name) => {
    const peer = peerNamed(name)
    if (peer !== undefined) return peer
    throw new UsageError(
      `--peers '${name}' is not known; there are ${peers.map((each) => each.name).join(', ')}`,
    )
  })
}

function chooseBackends(text: string): BackendChoice[] {
  const choices = parseList(text, '--backend').map(chooseBackend)
  assertDistinct(choices)
  return choices
}

/** Throws `UsageError` when results could not tell two backends apart. */
export function assertDistinct(choices: readonly BackendChoice[]): void {
  const twice = choices.find(({ name }, index) => choices.findIndex((each) => each.name === name) < index)
  if (twice === undefined) return
  throw new UsageError(`--backend has '${twice.name}' twice; give each a label of its own: label=backend`)
}

function chooseWorkload(name: string): Workload {
  const workload = workloadNamed(name)
  if (workload !== undefined) return workload
  const known = workloads.map((each) => each.name).join(', ')
  throw new UsageError(`--workload '${name}' is not known; there are ${known}`)
}

/** A power of two. Throws `UsageError`. */
export function parsePageSize(text: string): number {
  const size = parseByteSize(text, '--page-size')
  const isPowerOfTwo = Number.isInteger(Math.log2(size))
  if (isPowerOfTwo && size >= smallestPageSizeBytes && size <= largestPageSizeBytes) return size
  throw new UsageError(`--page-size '${text}' is not a power of two from 4KiB to 2MiB`)
}

function parseBufferSize(text: string | undefined, limitBytes: number, pageSizeBytes: number): number {
  const largest = Math.min(largestBufferBytes, 2 ** Math.floor(Math.log2(limitBytes / 8)))
  if (text === undefined) return Math.max(largest, pageSizeBytes)
  const size = parseByteSize(text, '--buffer-size')
  if (
    Number.isInteger(Math.log2(size)) &&
    size >= smallestBufferBytes &&
    size >= pageSizeBytes &&
    size <= limitBytes / 8
  ) {
    return size
  }
  throw new UsageError(
    `--buffer-size '${text}' is not a power of two from 256KiB (and a page) to an eighth of the limit, ${formatByteSize(limitBytes / 8)}`,
  )
}

function parseOvercommit(text: string): number {
  const factor = Number(text)
  if (text.trim() !== '' && factor >= 1 && factor <= 1000) return factor
  throw new UsageError(`--overcommit '${text}' is not a number from 1 to 1000; 4 means four times the limit`)
}

/** A whole number within bounds. Throws `UsageError` that names the option. */
export function parseCount(text: string, option: string, least: number, most: number): number {
  const count = Number(text)
  if (/^\d+$/.test(text) && count >= least && count <= most) return count
  throw new UsageError(`${option} '${text}' is not a whole number from ${least} to ${most}`)
}

function parseChoice<Choice extends string>(
  text: string,
  option: string,
  choices: readonly Choice[],
): Choice {
  const choice = choices.find((each) => each === text)
  if (choice !== undefined) return choice
  throw new UsageError(`${option} '${text}' is not known; there are ${choices.join(', ')}`)
}

function parseS3({ s3, s3Latency, s3Errors }: RunArguments): S3ServerOptions {
  const kind = parseChoice(s3, '--s3', ['embedded', 'ceph', 'env'])
  const latencyMs = parseMeasure(s3Latency, '--s3-latency', 'ms', 10_000)
  const errorShare = parseMeasure(s3Errors, '--s3-errors', '%', 50) / 100
  if (kind !== 'embedded' && (latencyMs > 0 || errorShare > 0)) {
    throw new UsageError(
      `--s3 '${kind}' takes neither --s3-latency nor --s3-errors; only the embedded server does`,
    )
  }
  return { kind, latencyMs, errorShare }
}

/** The matrix sets latencies and errors itself. */
function parseS3Matrix({ s3Matrix = false, s3, s3Latency, s3Errors, backend }: RunArguments): boolean {
  if (!s3Matrix) return false
  const setsOthers = parseFloat(s3Latency) > 0 || parseFloat(s3Errors) > 0
  const hasS3 = chooseBackends(backend).some(({ description }) => description.name === 's3')
  if (hasS3 && s3 === 'embedded' && !setsOthers) return true
  throw new UsageError(
    '--s3-matrix takes --backend s3 --s3 embedded, without --s3-latency and --s3-errors: it sets them itself',
  )
}

function parseMeasure(text: string, option: string, unit: string, most: number): number {
  const value = Number(text.endsWith(unit) ? text.slice(0, -unit.length) : text)
  if (/^\d/.test(text) && value >= 0 && value <= most) return value
  throw new UsageError(`${option} '${text}' is not from 0${unit} to ${most}${unit}`)
}

/** A directory that exists; by default one on a disk. Throws `UsageError`. */
export function parseDirectory(path: string | undefined): string {
  if (path === undefined) return defaultDirectory()
  if (!existsSync(path)) throw new UsageError(`--directory '${path}' does not exist; make it first`)
  if (!statSync(path).isDirectory()) {
    throw new UsageError(`--directory '${path}' is not a directory; give one on the disk to be measured`)
  }
  return resolve(path)
}

/** A directory on a disk: memory that pretends to be one would make the file backend look good. */
function defaultDirectory(): string {
  const candidates = [tmpdir(), '/var/tmp', process.cwd()].filter((path) => existsSync(path))
  return candidates.find((path) => fileSystemOf(path) !== 'tmpfs') ?? candidates[0]
}

/** Tries to write, and leaves nothing: better found out now than after minutes of measuring. */
export function parseOutput(path: string | boolean, option: string): string | undefined {
  if (typeof path === 'boolean') return undefined
  const target = resolve(path)
  const existed = existsSync(target)
  if (existed && statSync(target).isDirectory()) {
    throw new UsageError(`${option} '${path}' is a directory; give the name of a file`)
  }
  const parent = dirname(target)
  const parentExisted = existsSync(parent)
  try {
    // Not recursive: Node loops for ever when /proc is part of the path.
    if (!parentExisted) mkdirSync(parent)
    closeSync(openSync(target, 'a'))
    if (!existed) unlinkSync(target)
  } catch (failure) {
    const { code } = failure as NodeJS.ErrnoException
    throw new UsageError(
      `${option} '${path}' cannot be written (${code}); give a file in a directory that can`,
    )
  } finally {
    if (!parentExisted && existsSync(parent)) rmdirSync(parent)
  }
  return target
}
