import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'

/** Runs scenarios of child/scenarios.ts in a process of their own; resolves to how that ended. */
function run(scenarios: string[], seed = 0): Promise<{ code: unknown; signal: unknown; output: string }> {
  const script = join(import.meta.dirname, 'child/scenarios.ts')
  const parameters = ['--expose-gc', '--no-warnings', script, String(seed), ...scenarios]
  return new Promise((resolve) => {
    execFile(process.execPath, parameters, { timeout: 50_000 }, (error, stdout, stderr) => {
      resolve({ code: error?.code ?? 0, signal: error?.signal ?? null, output: stdout + stderr })
    })
  })
}

describe('no order of calls ends the process', () => {
  it.each([
    [['views outlive everything', 'mappings outlive views', 'buffers moved elsewhere']],
    [['closed while a ring works in it', 'thousands of mappings opened and closed']],
    [['rings never closed, after work', 'rings never closed']],
    [['several workers', 'what a worker leaves open', 'workers terminated at any time']],
  ])('%s', async (scenarios) => {
    const output = scenarios.map((name) => `${name}: done\n`).join('')
    expect(await run(scenarios)).toEqual({ code: 0, signal: null, output })
  })

  it.each(['ended by exit while a ring works', 'ended by an exception while a ring works'])(
    '%s',
    async (scenario) => {
      expect(await run([scenario])).toMatchObject({ code: 0, signal: null })
    },
  )

  it('a random history', async () => {
    const seed = Math.floor(Math.random() * 2 ** 31)
    const ended = await run(['a random history'], seed)
    expect(ended, `seed ${seed}`).toEqual({ code: 0, signal: null, output: 'a random history: done\n' })
  })
})
