import { defineConfig } from 'vitest/config'
import root from '../../vitest.config.ts'

/** The tests that need no more than an S3 service, one file after the other: it is the same for all. */
export default defineConfig({
  ...root,
  root: new URL('../..', import.meta.url).pathname,
  test: {
    ...root.test,
    include: ['packages/backup-s3/test/**/*.service.test.ts'],
    fileParallelism: false,
    testTimeout: 120_000,
    hookTimeout: 120_000,
  },
})
