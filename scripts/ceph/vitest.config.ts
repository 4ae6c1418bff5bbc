import { defineConfig } from 'vitest/config'
import root from '../../vitest.config.ts'

/** The tests that need no more than an S3 service, and the scenarios that need a cluster whose daemons can be killed. */
export default defineConfig({
  ...root,
  root: new URL('../..', import.meta.url).pathname,
  test: {
    ...root.test,
    include: ['packages/backup-s3/test/**/*.service.test.ts', 'packages/backup-s3/test/**/*.scenario.ts'],
    // One cluster for all: a killed daemon is everybody's.
    fileParallelism: false,
    testTimeout: 120_000,
    hookTimeout: 120_000,
  },
})
