import { type ChildProcess, execFile } from 'node:child_process'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { Pattern } from '../src/large/pattern.ts'
import { parseLargeOptions } from '../src/large-command.ts'

const mebibyte = 1024 ** 2
const program = fileURLToPath(new URL('../dist/cli.js', import.meta.url))
let directory = ''

beforeAll(() => {
  expect(existsSync(program), 'the bench is built: npm run build').toBe(true)
  directory = mkdtempSync(join(tmpdir(), 'bench-large-'))
})
afterAll(() => rmSync(directory, { recursive: true, force: true }))

/** Commands that have not ended: one whose test gave up takes its children with it. */
const running = new Set<ChildProcess>()
afterEach(() => {
  for (const child of running) child.kill('SIGKILL')
  running.clear()
})

function large(...given: string[]): Promise<{ status: number | null; output: string }> {
  return new Promise((resolve) => {
    const child = execFile(
      process.execPath,
      [program, 'large', '--directory', directory, ...given],
      (_failure, output, errors) => {
        running.delete(child)
        resolve({ status: child.exitCode, output: output + errors })
      },
    )
    running.add(child)
  })
}

describe('the pattern of a large buffer', () => {
  it('counts every byte that differs, wherever a range begins and ends', () => {
    const pattern = new Pattern(7, 64 * 1024)
    const memory = new Uint8Array(32 * 1024)
    pattern.write(5 * 4096, memory)
    const range = memory.subarray(4093, 20_001)
    expect(pattern.countWrong(5 * 4096 + 4093, range)).toBe(0)
    range[0] ^= 1
    range[10_000] ^= 128
    expect(pattern.countWrong(5 * 4096 + 4093, range)).toBe(2)
    // Another place, another seed, and zeros are other bytes.
    expect(pattern.countWrong(6 * 4096 + 4093, range)).toBeGreaterThan(15_000)
    expect(new Pattern(8, 64 * 1024).countWrong(5 * 4096, memory)).toBeGreaterThan(31_000)
    expect(pattern.countWrong(5 * 4096, new Uint8Array(4096))).toBeGreaterThan(4000)
  })
})

describe('large', () => {
  it('writes, reads and verifies a buffer many times the limit, in memory of the limit and 32 MiB', async () => {
    const json = join(directory, 'large.json')
    const { status, output } = await large('--size', '96MiB', '--limit', '16MiB', '--json', json)
    expect(output).toContain('96 MiB verified, 0 wrong bytes')
    expect(status, output).toBe(0)
    const result = JSON.parse(readFileSync(json, 'utf8'))
    expect(result).toMatchObject({
      clean: true,
      verifiedBytes: 96 * mebibyte,
      wrongBytes: 0,
      randomReads: 48,
    })
    expect(result.poolStats).toMatchObject({ buffers: 1, refusals: 0, restoreFailures: 0, backupFailures: 0 })
    rmSync(json)
    expect(readdirSync(directory)).toEqual([])
    if (process.platform !== 'linux') return
    const { peakBytes, baselineBytes } = result.memory
    expect(peakBytes - baselineBytes).toBeGreaterThan(16 * mebibyte)
    expect(peakBytes - baselineBytes).toBeLessThanOrEqual((16 + 32) * mebibyte)
  })

  it.runIf(process.platform === 'linux')('exits with 1 when memory goes beyond the headroom', async () => {
    const { status, output } = await large(
      '--size',
      '32MiB',
      '--limit',
      '8MiB',
      '--headroom',
      '1',
      '--no-json',
    )
    expect(output).toContain('✗ 32 MiB under 8 MiB: 32 MiB verified, 0 wrong bytes')
    expect(status, output).toBe(1)
  })

  it.each([
    [{ size: '10MiB' }, "--size '10MiB' is not large"],
    [{ limit: '1MiB' }, "--limit '1MiB' is too small"],
    [{ backend: 'memory' }, "--backend 'memory' is not one of"],
    [{ backend: 'file+flip' }, "--backend 'file+flip' is not one of"],
    [{ seed: 'x' }, "--seed 'x' is not a whole number"],
    [{ headroom: '-1' }, "--headroom '-1' is not a size"],
  ])('%j is bad usage', (given, message) => {
    const usual = { size: '1GiB', limit: '64MiB', headroom: '32MiB', backend: 'file', seed: '1', json: false }
    expect(() => parseLargeOptions({ ...usual, ...given })).toThrow(message)
  })
})
