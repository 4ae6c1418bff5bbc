import { aborting } from './aborting.ts'
import { capacity } from './capacity.ts'
import { compressibleData, droppedHereAndThere } from './compressible-data.ts'
import { concurrency } from './concurrency.ts'
import { corruption } from './corruption.ts'
import { dropping } from './dropping.ts'
import { handleChecks } from './handles.ts'
import { images } from './images.ts'
import { leaks } from './leaks.ts'
import { lifecycle } from './lifecycle.ts'
import { misuse } from './misuse.ts'
import type { BackupSuiteOptions } from './options.ts'
import { roundTrip } from './round-trip.ts'
import { startingCopies } from './starting-copies.ts'
import { createSuite, type Suite } from './suite.ts'

const concerns: Record<string, (suite: Suite) => void> = {
  'round trip': roundTrip,
  dropping,
  handles: handleChecks,
  misuse,
  capacity,
  'data that could take less space': (suite) => {
    compressibleData(suite)
    droppedHereAndThere(suite)
  },
  aborting,
  concurrency,
  'starting copies': startingCopies,
  lifecycle,
  leaks,
}

/**
 * Registers the tests that every backup has to pass. Works with any runner that has `describe` and `it`, and branches
 * on `capabilities` and on nothing else.
 */
export function backupSuite(options: BackupSuiteOptions): void {
  const suite = createSuite(options)
  options.describe(`${options.name}: backup contract`, () => {
    for (const [concern, register] of Object.entries(concerns)) {
      options.describe(concern, () => register(suite))
    }
    if (options.reopen !== undefined) options.describe('images', () => images(suite))
    if (options.corrupt !== undefined) options.describe('corruption', () => corruption(suite))
  })
}
