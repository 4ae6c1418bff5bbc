import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { RunResult } from '../src/results.ts'

const program = fileURLToPath(new URL('../dist/cli.js', import.meta.url))
const mebibyte = 1024 ** 2
let directory = ''
let input = ''
let scratch = ''

interface Outcome {
  readonly status: number | null
  readonly output: string
  readonly errors: string
}

function bench(...given: string[]): Promise<Outcome> {
  return new Promise((resolve) => {
    const child = execFile(
      process.execPath,
      [program, ...given],
      // Without fio: its jobs take seconds however small they are.
      { cwd: directory, env: { ...process.env, PATH: '' } },
      (_failure, output, errors) => {
        resolve({ status: child.exitCode, output, errors })
      },
    )
  })
}

beforeAll(() => {
  expect(existsSync(program), 'the bench is built: npm run build').toBe(true)
  directory = mkdtempSync(join(tmpdir(), 'bench-cli-'))
  input = join(directory, 'input')
  scratch = join(directory, 'scratch')
  mkdirSync(input)
  mkdirSync(scratch)
  // Files of every kind of size, of bytes that differ.
  for (const [index, length] of [1, 511, 4096, 70_000, 1_500_000, 3 * mebibyte + 7].entries()) {
    writeFileSync(
      join(input, `${index}.bin`),
      Uint8Array.from({ length }, (_, at) => (at * 31 + (at >> 8) + index) & 255),
    )
  }
})
afterAll(() => rmSync(directory, { recursive: true, force: true }))

const small = ['--limit', '8MiB', '--overcommit', '3', '--rounds', '2', '--no-report']

describe('run', () => {
  it('spills real files on every backend, verifies them, and leaves nothing but its results', async () => {
    const json = join(directory, 'run.json')
    const report = join(directory, 'run.html')
    const { status, output, errors } = await bench(
      ...['run', '--backend', 'shmem,file', '--input', input, '--directory', scratch, '--peers'],
      ...['--workload', 'random', '--budget', '2'],
      ...['--limit', '8MiB', '--overcommit', '3', '--rounds', '1', '--json', json, '--report', report],
    )
    expect(errors).toBe('')
    expect(output).toContain('wrongBytes 0, lostPages 0')
    expect(status, output).toBe(0)
    // Nothing that moves: one line per case on a pipe.
    expect(output).not.toContain('\u001b[')
    expect(output.split('\n').filter((line) => line.startsWith('✓'))).toHaveLength(4)
    expect(readdirSync(scratch)).toEqual([])

    const run = JSON.parse(readFileSync(json, 'utf8')) as RunResult
    expect(run).toMatchObject({
      nodeVersion: process.version,
      failedCases: [],
      machine: { processors: expect.any(Number) },
    })
    expect(run.cases.map(({ backend, workload }) => `${backend} ${workload}`)).toEqual([
      'shmem random',
      'file random',
      'peer:file-per-buffer random',
      'peer:direct-file random',
    ])
    for (const each of run.cases) {
      expect(each).toMatchObject({
        pageSizeBytes: 4096,
        limitBytes: 8 * mebibyte,
        dataBytes: 24 * mebibyte,
        verifiedBytes: 24 * mebibyte,
        wrongBytes: 0,
        lostPages: 0,
      })
      expect(each.touchedBytesPerSecond).toBeGreaterThan(0)
      expect(each.rounds.touchedBytesPerSecond).toHaveLength(1)
      expect(each.eventLoopDelayMaxMs).toBeGreaterThanOrEqual(each.eventLoopDelayP99Ms)
      expect(each.cpuSeconds).toBeGreaterThan(0)
      expect(each.ceilings['typedArraySet']).toBeGreaterThan(0)
      expect(each.ceilings['nodeBufferedRead']).toBeGreaterThan(0)
      if (each.peer) continue
      expect(each.backupBytesPerSecond).toBeGreaterThan(0)
      expect(each.restoreBytesPerSecond).toBeGreaterThan(0)
      expect(each.latencies.pageRestoreDepth32?.count).toBeGreaterThan(0)
      if (process.platform !== 'linux') continue
      expect(each.peakRssBytes).toBeGreaterThan(each.baselineRssBytes)
      expect(each.memory.samples.length).toBeGreaterThan(3)
      expect(each.peakRssBytes - each.baselineRssBytes).toBeLessThanOrEqual(each.limitBytes + 32 * mebibyte)
    }
    expect(readFileSync(report, 'utf8')).toContain('Every byte came back')
    // Two seconds are never enough: the rounds gave way, their number and the verification did not.
    expect(run.settings.budgetSeconds).toBe(2)
    expect(run.cases.some(({ shortened }) => Object.keys(shortened).length > 0)).toBe(true)
    expect(output).toContain('each round moved less to stay within 2 s (--budget)')
  })

  it('works with other page sizes, engines and without checksums', async () => {
    const { status, output, errors } = await bench(
      ...[
        'run',
        '--backend',
        'file:threads:unchecked',
        '--input',
        input,
        '--workload',
        'zipf',
        '--page-size',
        '64KiB',
      ],
      ...['--directory', scratch, '--no-ceilings', '--no-json', ...small],
    )
    expect(errors).toBe('')
    expect(output).toContain('✓ file:threads:unchecked · zipf')
    expect(status, output).toBe(0)
  })

  it('exits with 1 and counts when a backend flips one byte or loses a page', async () => {
    const json = join(directory, 'spoiled.json')
    const { status, output } = await bench(
      ...[
        'run',
        '--backend',
        'memory+flip,memory+lose',
        '--input',
        input,
        '--workload',
        'sweep',
        '--no-ceilings',
        '--json',
        json,
        ...small,
      ],
    )
    expect(status, output).toBe(1)
    expect(output).toContain('NOT every byte came back')
    const { cases } = JSON.parse(readFileSync(json, 'utf8')) as RunResult
    expect(cases[0].wrongBytes).toBeGreaterThan(0)
    expect(cases[0].lostPages).toBe(0)
    expect(cases[1].wrongBytes).toBe(0)
    expect(cases[1].lostPages).toBeGreaterThan(0)
    // What returns wrong bytes is not measured.
    expect(cases[0].touchedBytesPerSecond).toBeNull()
  })

  it('starts an S3 server, spills to it although it refuses requests, and measures bare calls beside', async () => {
    const json = join(directory, 's3.json')
    const { status, output, errors } = await bench(
      ...['run', '--backend', 's3', '--input', input, '--directory', scratch, '--workload', 'random'],
      ...['--s3-latency', '1ms', '--s3-errors', '1%', '--budget', '1', '--no-ceilings', '--no-report'],
      ...['--limit', '8MiB', '--overcommit', '2', '--rounds', '1', '--json', json],
    )
    expect(errors).toBe('')
    expect(status, output).toBe(0)
    const run = JSON.parse(readFileSync(json, 'utf8')) as RunResult
    expect(run.cases[0]).toMatchObject({ backend: 's3', verifiedBytes: 16 * mebibyte, wrongBytes: 0 })
    expect(run.s3?.loops.map(({ way, verb }) => `${verb} ${way}`).sort()).toEqual([
      'GET backup-s3',
      "GET backup-s3, SDK's handler",
      'GET bare 8 MiB objects',
      'GET one object per page',
      'PUT backup-s3',
      "PUT backup-s3, SDK's handler",
      'PUT bare 8 MiB objects',
      'PUT one object per page',
    ])
    expect(run.s3?.wrongAnswers).toBe(0)
    expect(run.s3?.putsPerGiB).toBeGreaterThanOrEqual(128)
  })

  it('stops its children and leaves no file on Ctrl-C', async () => {
    const child = spawn(
      process.execPath,
      [
        program,
        'run',
        '--backend',
        'file',
        '--input',
        input,
        '--directory',
        scratch,
        '--no-ceilings',
        '--rounds',
        '100',
        '--limit',
        '64MiB',
      ],
      { cwd: directory, stdio: ['ignore', 'pipe', 'pipe'] },
    )
    let errors = ''
    child.stderr.on('data', (text) => {
      errors += text
    })
    await once(child.stdout, 'data')
    // Until the process of the case runs.
    let children: string[] = []
    while (children.length === 0) {
      await new Promise((resolve) => setTimeout(resolve, 10))
      const path = `/proc/${child.pid}/task/${child.pid}/children`
      children = readFileSync(path, 'utf8')
        .split(' ')
        .filter((id) => id !== '')
    }
    expect(readdirSync(scratch)).toHaveLength(1)
    child.kill('SIGINT')
    const [status] = await once(child, 'close')
    expect(errors).toBe('')
    expect(status).toBe(130)
    for (const process of children) expect(existsSync(`/proc/${process}`)).toBe(false)
    expect(readdirSync(scratch)).toEqual([])
    expect(existsSync(join(directory, 'bench-results'))).toBe(false)
  })
})

describe('bad usage', () => {
  it.each([
    [['run', '--backend', 'floppy'], "--backend 'floppy' is not known"],
    [['run', '--input', '/does/not/exist'], "--input '/does/not/exist' does not exist"],
    [['run', '--directory', '/proc', '--no-json', '--no-report'], "--directory '/proc' cannot be written"],
    [['run', '--limit', '1TiB', '--no-json', '--no-report'], '--limit 1 TiB with --overcommit 4 takes'],
    [['run', '--frobnicate'], "unknown option '--frobnicate'"],
    [['compare', 'nowhere.json', 'nowhere.json'], "'nowhere.json' cannot be read (ENOENT)"],
    [['dance'], "unknown command 'dance'"],
  ])('%j is one clear line and exit status 2', async (given, message) => {
    const { status, output, errors } = await bench(...given)
    expect(errors).toContain(message)
    expect(errors.trim().split('\n')).toHaveLength(1)
    expect(output).toBe('')
    expect(status, output).toBe(2)
  })
})
