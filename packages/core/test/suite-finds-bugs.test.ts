import { describe, expect, it } from 'vitest'
import { type BackupSuiteOptions, backupSuite, faultyBackupSuite } from '../src/conformance/index.ts'
import { type Backup, memoryBackup } from '../src/index.ts'
import { mutants, unchanged } from './fixtures/mutants.ts'

type Suite = (options: BackupSuiteOptions) => void

/** Runs a suite without a test runner, up to the first failure; returns the name of the test that failed. */
async function firstFailureOf(suite: Suite, change: (backup: Backup) => Backup): Promise<string | undefined> {
  const tests: [string, () => Promise<void>][] = []
  suite({
    describe: (_, body) => body(),
    it: (name, body) => tests.push([name, body]),
    name: 'mutant',
    open: async ({ capacityPages }) => change(memoryBackup({ capacityBytes: capacityPages * 4096 })),
  })
  for (const [name, body] of tests) {
    const passed = await body().then(
      () => true,
      () => false,
    )
    if (!passed) return name
  }
  return undefined
}

describe('the conformance suite', () => {
  it('passes the reference, with any runner', async () => {
    expect(await firstFailureOf(backupSuite, unchanged)).toBeUndefined()
    expect(await firstFailureOf(faultyBackupSuite, unchanged)).toBeUndefined()
  })

  for (const [bug, mutate] of Object.entries(mutants)) {
    it(`finds the bug: ${bug}`, async () => {
      expect(await firstFailureOf(backupSuite, mutate)).toBeDefined()
    })
  }
})
