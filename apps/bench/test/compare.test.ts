import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { compareCommand, compareRuns } from '../src/compare-command.ts'
import { UsageError } from '../src/usage-error.ts'
import { madeUpCase, madeUpRun } from './made-up-run.ts'

const before = madeUpRun([madeUpCase('file', 'sweep', [1.9e9, 2e9, 2.1e9])])
let directory = ''
const save = (name: string, value: unknown) => {
  const path = join(directory, name)
  writeFileSync(path, typeof value === 'string' ? value : JSON.stringify(value))
  return path
}

beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'bench-compare-'))
  vi.spyOn(console, 'log').mockImplementation(() => {})
})
afterAll(() => {
  vi.restoreAllMocks()
  rmSync(directory, { recursive: true, force: true })
})

describe('compare', () => {
  it('gives the ratio of the medians', () => {
    const after = madeUpRun([madeUpCase('file', 'sweep', [2.9e9, 3e9, 3.1e9])])
    expect(compareRuns(before, after, 0.1)[0]).toMatchObject({
      subject: 'file · sweep',
      figure: 'touched',
      ratio: 1.5,
      regressed: false,
    })
  })

  it('calls it a regression when every round is slower and the median by more than the threshold', () => {
    const slower = madeUpRun([madeUpCase('file', 'sweep', [1.4e9, 1.5e9, 1.6e9])])
    const noisy = madeUpRun([madeUpCase('file', 'sweep', [1.4e9, 1.5e9, 2e9])])
    const regressed = (after: typeof slower, threshold: number) =>
      compareRuns(before, after, threshold).some((each) => each.regressed)
    expect(regressed(slower, 0.1)).toBe(true)
    expect(regressed(slower, 0.3)).toBe(false)
    expect(regressed(noisy, 0.1)).toBe(false)
  })

  it('compares only the same thing', () => {
    const other = madeUpRun([madeUpCase('file', 'sweep', [1e9], { limitBytes: 1 })])
    expect(compareRuns(before, other, 0.1)).toEqual([])
  })

  it('exits with 1 on a regression and with 0 otherwise', () => {
    const first = save('first.json', before)
    const slow = save('slow.json', madeUpRun([madeUpCase('file', 'sweep', [1e9, 1e9, 1e9])]))
    expect(compareCommand(first, first, '10')).toBe(0)
    expect(compareCommand(first, slow, '10')).toBe(1)
    expect(compareCommand(first, slow, '60%')).toBe(0)
  })

  it('says what is wrong with its input', () => {
    const first = save('first.json', before)
    const wrong: [string, string, string][] = [
      [join(directory, 'nowhere.json'), '10', 'cannot be read (ENOENT)'],
      [save('text.json', 'not { json'), '10', 'is not JSON'],
      [save('null.json', 'null'), '10', "has no array 'cases'"],
      [save('old.json', { ...before, resultVersion: 0 }), '10', 'has result version 0'],
      [save('empty.json', madeUpRun([])), '10', 'have no case in common'],
      [first, 'ten', "--threshold 'ten' is not a percentage"],
      [first, '100', "--threshold '100' is not a percentage"],
    ]
    for (const [path, threshold, message] of wrong) {
      expect(() => compareCommand(first, path, threshold), path).toThrow(UsageError)
      expect(() => compareCommand(first, path, threshold), path).toThrow(message)
    }
  })
})
