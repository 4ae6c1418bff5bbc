import { describe, expect, it } from 'vitest'
import { type BackupSuiteOptions, backupSuite, faultyBackupSuite } from '../src/conformance/index.ts'
import { type Backup, memoryBackup } from '../src/index.ts'
import { mutants, unchanged } from './fixtures/mutants.ts'

type Suite = (options: BackupSuiteOptions) => void

/** Runs a suite without a test runner; returns the names of the tests that failed. */
async function failuresOf(suite: Suite, change: (backup: Backup) => Backup): Promise<string[]> {
  const tests: [string, () => Promise<void>][] = []
  suite({
    describe: (_, body) => body(),
    it: (name, body) => tests.push([name, body]),
    name: 'mutant',
    open: async ({ capacityPages }) => change(memoryBackup({ capacityBytes: capacityPages * 4096 })),
  })
  const failed: string[] = []
  for (const [name, body] of tests) await body().catch(() => failed.push(name))
  return failed
}

describe('the conformance suite', () => {
  it('passes the reference, with any runner', async () => {
    expect(await failuresOf(backupSuite, unchanged)).toEqual([])
    expect(await failuresOf(faultyBackupSuite, unchanged)).toEqual([])
  })

  for (const [bug, mutate] of Object.entries(mutants)) {
    it(`finds the bug: ${bug}`, async () => {
      expect(await failuresOf(backupSuite, mutate)).not.toEqual([])
    })
  }
})
