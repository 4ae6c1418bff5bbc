import { readFileSync } from 'node:fs'
import { defineConfig } from 'vitest/config'

const source = (path: string) => new URL(path, import.meta.url).pathname

/** The package whose tests run here, or the root with the tests of all. */
const { name, dependencies, devDependencies } = JSON.parse(readFileSync('package.json', 'utf8'))
const makesPools =
  ['spillway', '@spillway/pool'].includes(name) || '@spillway/pool' in { ...dependencies, ...devDependencies }

export default defineConfig({
  resolve: {
    // Tests run against the sources; the packed packages are tried separately by scripts/check-install.ts.
    alias: [
      {
        find: /^@spillway\/core\/conformance$/,
        replacement: source('packages/core/src/conformance/index.ts'),
      },
      { find: /^@spillway\/([a-z0-9-]+)$/, replacement: source('packages/$1/src/index.ts') },
    ],
  },
  test: {
    include: ['**/test/**/*.test.ts'],
    setupFiles: makesPools ? [source('packages/pool/test/support/check-always.ts')] : [],
    execArgv: ['--expose-gc'],
    // Programs that tests start begin four times sooner when what they import was compiled before.
    env: { NODE_COMPILE_CACHE: source('.vitest/compile-cache') },
    pool: 'forks',
    maxWorkers: 2,
    testTimeout: 60_000,
    hookTimeout: 60_000,
  },
})
