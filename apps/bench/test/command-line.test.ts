import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
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

/** Commands that have not ended: one whose test gave up takes its children with it. */
const running = new Set<ChildProcess>()

function bench(...given: string[]): Promise<Outcome> {
  return new Promise((resolve) => {
    const child = execFile(
      process.execPath,
      [program, ...given],
      // Without fio: its jobs take seconds however small they are.
      {
        cwd: directory,
        env: { ...process.env, PATH: '', COLUMNS: '', npm_config_offline: 'true', npm_config_cache: scratch },
      },
      (_failure, output, errors) => {
        running.delete(child)
        resolve({ status: child.exitCode, output, errors })
      },
    )
    running.add(child)
  })
}

afterEach(() => {
  for (const child of running) child.kill('SIGKILL')
  running.clear()
})
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

describe('run', () => {
  it('spills real files on every backend, verifies them, and leaves nothing but its results', async () => {
    const json = join(directory, 'run.json')
    const report = join(directory, 'run.html')
    const { status, output, errors } = await bench(
      ...['run', '--backend', 'shmem,file', '--input', input, '--directory', scratch],
      ...['--peers', 'file-per-buffer,direct-file,node-sqlite,lmdb'],
      ...['--workload', 'random', '--budget', '2'],
      ...['--limit', '8MiB', '--overcommit', '3', '--rounds', '1', '--json', json, '--report', report],
    )
    expect(errors).toBe('')
    expect(output).toContain('wrongBytes 0, lostPages 0')
    expect(status, output).toBe(0)
    // Nothing that moves: one line per case on a pipe.
    expect(output).not.toContain('\u001b[')
    expect(output).not.toContain('\r')
    const tables = output.slice(output.indexOf('\n\n'), output.indexOf('every byte came back'))
    const longest = tables.split('\n').filter((line) => !line.startsWith('note: '))
    expect(Math.max(...longest.map((line) => line.length)), output).toBeLessThanOrEqual(80)
    expect(output.split('\n').filter((line) => line.startsWith('✓'))).toHaveLength(5)
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
      'peer:node-sqlite random',
    ])
    // Nothing can be installed here: that is told, and the rest runs.
    expect(run.missingPeers).toEqual([
      { name: 'lmdb', reason: expect.stringMatching(/^it could not be installed: .+/) },
    ])
    expect(output).toContain('peer lmdb was not measured: it could not be installed')
    expect(output).toContain('beside peers')
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

  it('exits with 1, tells what went wrong, and keeps the rest, when backends lose bytes, fail or never settle', async () => {
    const json = join(directory, 'spoiled.json')
    const core = import.meta.resolve('@spillway/core')
    const module = (name: string, source: string) => {
      writeFileSync(join(directory, name), `import { memoryBackup } from '${core}'\n${source}`)
      return `./${name}`
    }
    const full = module(
      'full.mjs',
      "export const open = ({ pageSizeBytes }) => memoryBackup({ capacityBytes: 12 * 2 ** 20, pageSizeBytes })\nexport const title = 'full'",
    )
    const silent = module('silent.mjs', 'export const open = () => new Promise(() => {})')
    const { status, output, errors } = await bench(
      ...[
        'run',
        '--live',
        '--backend',
        'memory+flip,lossy=memory+lose',
        '--backend',
        full,
        '--backend',
        silent,
      ],
      ...['--input', input, '--workload', 'sweep', '--no-ceilings', '--json', json, '--patience', '10'],
      ...['--limit', '8MiB', '--overcommit', '3', '--rounds', '1', '--budget', '2', '--no-report'],
    )
    expect(status, output).toBe(1)
    expect(output).toContain('NOT every byte came back')
    // A page for each case whose backend could be opened.
    expect(errors.match(/^live: http:\/\/127\.0\.0\.1:\d+\/[\w-]{32}\/$/gm)).toHaveLength(3)
    const { cases, failedCases } = JSON.parse(readFileSync(json, 'utf8')) as RunResult
    expect(cases[0].wrongBytes).toBeGreaterThan(0)
    expect(cases[0].lostPages).toBe(0)
    expect(cases[1]).toMatchObject({ backend: 'lossy', spec: 'memory+lose', wrongBytes: 0 })
    expect(cases[1].lostPages).toBeGreaterThan(0)
    // What returns wrong bytes is not measured.
    expect(cases[0].touchedBytesPerSecond).toBeNull()
    expect(failedCases).toMatchObject([
      { backend: 'full', phase: 'load', message: expect.stringContaining('ENOSPC') },
      { backend: './silent.mjs', phase: 'start', message: expect.stringContaining('no progress for 10 s') },
    ])
    expect(failedCases[0].measured?.['restoreBytesPerSecond']).toBeGreaterThan(0)
  }, 180_000)

  it('starts an S3 server that refuses requests, spills to it and beside it with other page sizes and engines', async () => {
    const json = join(directory, 's3.json')
    const { status, output, errors } = await bench(
      ...['run', '--backend', 's3,file:threads:unchecked', '--input', input, '--directory', scratch],
      ...['--workload', 'zipf', '--page-size', '64KiB'],
      ...['--s3-latency', '1ms', '--s3-errors', '1%', '--budget', '1', '--no-ceilings', '--no-report'],
      ...['--limit', '8MiB', '--overcommit', '2', '--rounds', '1', '--json', json],
    )
    expect(errors).toBe('')
    expect(status, output).toBe(0)
    const run = JSON.parse(readFileSync(json, 'utf8')) as RunResult
    expect(output).toContain('✓ file:threads:unchecked · zipf')
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
    // Two processes and a server have to start: on a busy machine that takes long.
  }, 180_000)

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
    running.add(child)
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
    [['run', '--directory', '/proc', '--no-json', '--no-report'], "--directory '/proc' cannot be written"],
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
