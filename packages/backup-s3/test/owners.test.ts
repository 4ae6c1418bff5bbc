/** The protocol of owners in a simulator: every order of requests, lost and late ones, and machines that sleep. */
import { execFile } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { describe, expect, it } from 'vitest'

const seed = process.env['SPILLWAY_SEED'] ?? '1'
const histories = process.env['SPILLWAY_HISTORIES'] ?? '80'
const simulator = fileURLToPath(new URL('simulator/main.ts', import.meta.url))

describe(`histories of owners, waiters and sweepers (seed ${seed})`, () => {
  it.each([[[]], [['--wide']]])(
    'lose no acknowledged page, have one owner at a time, and leave nothing for ever %j',
    async (more) => {
      const run = promisify(execFile)
      const options = ['--histories', histories, '--seed', seed, ...more]
      const { stdout } = await run(process.execPath, [simulator, ...options])
      expect(stdout).toContain(`${histories} histories`)
      expect(stdout).toContain(' 0 violations')
    },
  )
})
