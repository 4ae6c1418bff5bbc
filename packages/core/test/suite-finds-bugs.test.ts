import { describe, expect, it } from 'vitest'
import { type BackupSuiteOptions, backupSuite, faultyBackupSuite } from '../src/conformance/index.ts'
import { type Backup, MemoryMedium, memoryBackup } from '../src/index.ts'
import { imageMutants } from './fixtures/image-mutants.ts'
import { change, mutants, unchanged } from './fixtures/mutants.ts'
import { endsLater, startedCopyMutants } from './fixtures/started-copy-mutants.ts'

type Suite = (options: BackupSuiteOptions) => void

/**
 * Runs a suite without a test runner, or one concern of it, up to the first failure; returns the name of the test that
 * failed.
 */
async function firstFailureOf(
  suite: Suite,
  mutate: (backup: Backup) => Backup,
  concern?: string,
): Promise<string | undefined> {
  const tests: [string, () => Promise<void>][] = []
  suite({
    describe: (name, body) => {
      const isWanted = concern === undefined || name === concern || name.startsWith('mutant')
      if (isWanted) body()
    },
    it: (name, body) => tests.push([name, body]),
    name: 'mutant',
    startsCopies: true,
    ...(concern === 'images' ? withImages(mutate) : withoutImages(mutate)),
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

type Opening = Pick<BackupSuiteOptions, 'open' | 'reopen'>

function withoutImages(mutate: (backup: Backup) => Backup): Opening {
  return {
    open: async ({ capacityPages }) => mutate(memoryBackup({ capacityBytes: capacityPages * 4096 })),
  }
}

function withImages(mutate: (backup: Backup) => Backup): Opening {
  const opened = new WeakMap<Backup, { medium: MemoryMedium; capacityBytes: number }>()
  const openIn = (medium: MemoryMedium, capacityBytes: number): Backup => {
    const backup = mutate(memoryBackup({ medium, capacityBytes }))
    opened.set(backup, { medium, capacityBytes })
    return backup
  }
  return {
    open: async ({ capacityPages }) => openIn(new MemoryMedium(), capacityPages * 4096),
    reopen: async (closed) => {
      const { medium, capacityBytes } = opened.get(closed)!
      return openIn(medium, capacityBytes)
    },
  }
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

  for (const [bug, mutate] of Object.entries(startedCopyMutants)) {
    it(`finds the bug in startCopy: ${bug}`, async () => {
      expect(await firstFailureOf(backupSuite, mutate, 'starting copies')).toBeDefined()
    })
  }

  for (const [bug, mutate] of Object.entries(imageMutants)) {
    it(`finds the bug in images: ${bug}`, async () => {
      expect(await firstFailureOf(backupSuite, mutate, 'images')).toBeDefined()
    })
  }

  it('passes the reference with images', async () => {
    expect(await firstFailureOf(backupSuite, unchanged, 'images')).toBeUndefined()
  })

  it('passes a backup whose started copies end in a later turn', async () => {
    expect(await firstFailureOf(backupSuite, endsLater, 'starting copies')).toBeUndefined()
  })

  it('fails a backup that never starts a copy, or cannot, where it was said to do so', async () => {
    const refuses = (backup: Backup): Backup => change(backup, () => ({ startCopy: () => false }))
    expect(await firstFailureOf(backupSuite, refuses, 'starting copies')).toBeDefined()
    const without = (backup: Backup): Backup => change(backup, () => ({ startCopy: undefined as never }))
    expect(await firstFailureOf(backupSuite, without, 'starting copies')).toBeDefined()
  })
})
