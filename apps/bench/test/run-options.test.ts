import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { peers } from '../src/peers/registry.ts'
import { parseRunOptions, type RunArguments } from '../src/run-options.ts'
import { UsageError } from '../src/usage-error.ts'

let directory = ''
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'bench-options-'))
  writeFileSync(join(directory, 'file'), 'x')
})
afterAll(() => rmSync(directory, { recursive: true, force: true }))

const good: RunArguments = {
  backend: 'shmem,file',
  limit: '256MiB',
  overcommit: '4',
  workload: 'sweep,random,zipf',
  pageSize: '4KiB',
  rounds: '5',
  concurrency: '4',
  io: 'auto',
  checksums: 'on',
  seed: '1',
  budget: '90',
  patience: '120',
  s3: 'embedded',
  s3Latency: '0ms',
  s3Errors: '0%',
  ceilings: true,
  json: false,
  report: false,
}

describe('options of run', () => {
  it('takes the defaults', () => {
    const options = parseRunOptions(good)
    expect(options).toMatchObject({
      limitBytes: 256 * 1024 ** 2,
      pageSizeBytes: 4096,
      bufferBytes: 8 * 1024 ** 2,
      overcommit: 4,
      rounds: 5,
      concurrency: 4,
      checksums: true,
      peers: [],
    })
    expect(options.backends.map(({ name }) => name)).toEqual(['shmem', 'file'])
    expect(options.workloads.map(({ name }) => name)).toEqual(['sweep', 'random', 'zipf'])
  })

  it('makes buffers smaller under a small limit, and never lets pins take more than half of it', () => {
    const options = parseRunOptions({ ...good, limit: '8MiB', concurrency: '64' })
    expect(options.bufferBytes).toBe(1024 ** 2)
    expect(options.concurrency).toBe(4)
  })

  it('knows peers by their names, all of them where none is named', () => {
    expect(parseRunOptions({ ...good, peers: true }).peers).toEqual(peers)
    const { peers: named } = parseRunOptions({ ...good, peers: 'lmdb,swap' })
    expect(named.map(({ name }) => name)).toEqual(['lmdb', 'swap'])
    expect(() => parseRunOptions({ ...good, peers: 'lmbd' })).toThrow(
      /--peers 'lmbd' is not known; there are file-per-buffer, /,
    )
  })

  it('knows variants of a backend', () => {
    const [choice] = parseRunOptions({ ...good, backend: 'file:threads:unchecked' }).backends
    expect(choice.settings).toEqual({ io: 'threads', checksums: false })
    expect(choice.description.name).toBe('file')
  })

  it('leaves no file behind when it tries where to write', () => {
    const path = join(directory, 'new', 'run.json')
    expect(parseRunOptions({ ...good, json: path }).jsonPath).toBe(path)
    expect(existsSync(join(directory, 'new'))).toBe(false)
  })

  it('knows backends made of others, each with its own size and variants', () => {
    const text = 'compressed(tiered(shmem:256MiB,encrypted(file:unchecked))), encrypted(memory:1MiB)+flip'
    const [stack, spoiled] = parseRunOptions({ ...good, backend: text }).backends
    expect(stack.name).toBe('compressed(tiered(shmem:256MiB,encrypted(file:unchecked)))')
    expect(stack.description).toMatchObject({ usesMemory: false, storesInProcess: false })
    expect(stack.description.backupCeilings).toContain('fioBestWrite')
    expect(spoiled.spoiler).toBe('flip')
    expect(spoiled.description).toMatchObject({ usesMemory: false, storesInProcess: true })
  })

  const wrong: [Partial<RunArguments>, string][] = [
    [{ s3Matrix: true }, '--s3-matrix takes --backend s3 --s3 embedded'],
    [{ s3Matrix: true, backend: 's3', s3Latency: '20ms' }, '--s3-matrix takes --backend s3'],
    [{ backend: 'floppy' }, "--backend 'floppy' is not known; there are memory, shmem, file"],
    [
      { backend: 'zipped(file)' },
      "--backend 'zipped(file)' is not made of backends as tiered, compressed, encrypted",
    ],
    [{ backend: 'compressed(file,shmem)' }, 'compressed is made of one backend'],
    [{ backend: 'tiered(shmem,,file)' }, 'tiered is made of one to 8 backends'],
    [{ backend: 'tiered(shmem:1GiB:2GiB,file)' }, "'shmem:1GiB:2GiB' has two sizes"],
    [{ backend: 'encrypted(floppy)' }, "--backend 'floppy' is not known"],
    [{ backend: 'encrypted(shmem:1x)' }, "'1x' is not a size"],
    [{ data: 'music' }, "--data 'music' is not known; there are half-zeros, records, text, random"],
    [{ data: 'text', input: ['.'] }, '--data and --input exclude each other'],
    [{ backend: 'shmem,,file' }, "--backend 'shmem,,file' has an empty name"],
    [{ backend: 'shmem:uring' }, "shmem has no variant 'uring'"],
    [{ backend: 'memory+melt' }, "after '+' comes one of flip, lose"],
    [{ workload: 'walk' }, "--workload 'walk' is not known; there are sweep, random, zipf"],
    [{ limit: '1MiB' }, "--limit '1MiB' is too small; it takes at least 8 MiB"],
    [{ limit: 'lots' }, "--limit 'lots' is not a size"],
    [{ pageSize: '5000' }, "--page-size '5000' is not a power of two from 4KiB to 2MiB"],
    [{ pageSize: '4MiB' }, "--page-size '4MiB' is not a power of two"],
    [{ pageSize: '1KiB' }, "--page-size '1KiB' is not a power of two"],
    [{ bufferSize: '3MiB' }, "--buffer-size '3MiB' is not a power of two"],
    [{ bufferSize: '64MiB' }, 'an eighth of the limit, 32 MiB'],
    [{ overcommit: '0.5' }, "--overcommit '0.5' is not a number from 1 to 1000"],
    [{ overcommit: 'much' }, "--overcommit 'much' is not a number"],
    [{ rounds: '0' }, "--rounds '0' is not a whole number from 1 to 100"],
    [{ rounds: '2.5' }, "--rounds '2.5' is not a whole number"],
    [{ concurrency: '-1' }, "--concurrency '-1' is not a whole number"],
    [{ io: 'magic' }, "--io 'magic' is not known; there are auto, uring, threads"],
    [{ checksums: 'maybe' }, "--checksums 'maybe' is not known; there are on, off"],
    [{ budget: 'soon' }, "--budget 'soon' is not a whole number from 1 to 86400"],
    [{ s3: 'minio' }, "--s3 'minio' is not known; there are embedded, ceph, env"],
    [{ s3Latency: 'late' }, "--s3-latency 'late' is not from 0ms to 10000ms"],
    [{ s3: 'env', s3Errors: '1%' }, "--s3 'env' takes neither --s3-latency nor --s3-errors"],
    [{ seed: 'x' }, "--seed 'x' is not a whole number"],
    [{ directory: '/does/not/exist' }, "--directory '/does/not/exist' does not exist"],
    [{ json: '/does/not/exist/run.json' }, "--json '/does/not/exist/run.json' cannot be written (ENOENT)"],
    [{ report: '/proc/run.html' }, "--report '/proc/run.html' cannot be written"],
  ]
  it.each(wrong)('refuses %j', (change, message) => {
    const attempt = () => parseRunOptions({ ...good, ...change })
    expect(attempt).toThrow(UsageError)
    expect(attempt).toThrow(message)
  })

  it('refuses a file where a directory belongs, and the other way round', () => {
    expect(() => parseRunOptions({ ...good, directory: join(directory, 'file') })).toThrow(
      'is not a directory',
    )
    expect(() => parseRunOptions({ ...good, json: directory })).toThrow(
      'is a directory; give the name of a file',
    )
  })
})
