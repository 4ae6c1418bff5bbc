import { execFile } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'

const fixture = fileURLToPath(new URL('./fixtures/node-test-suite.ts', import.meta.url))

function runNodeTest(backup: string): Promise<{ status: number; output: string }> {
  // A test runner that finds itself inside another one reports to it; these two know nothing of each other.
  const { NODE_TEST_CONTEXT: _, ...environment } = process.env
  return new Promise((resolve) => {
    const argv = ['--test', '--test-reporter=tap', fixture]
    const env = { ...environment, BACKUP_UNDER_TEST: backup }
    execFile(process.execPath, argv, { env, maxBuffer: 2 ** 26 }, (error, stdout) => {
      resolve({ status: error === null ? 0 : 1, output: stdout })
    })
  })
}

describe('the conformance suite with node:test', () => {
  it('passes for a good backup', async () => {
    const { status, output } = await runNodeTest('good')
    expect(output).toMatch(/# fail 0/)
    expect(Number(/# pass (\d+)/.exec(output)?.[1])).toBeGreaterThan(60)
    expect(status).toBe(0)
  })

  it('fails for a bad one', async () => {
    const { status, output } = await runNodeTest('bad')
    expect(output).toMatch(/# fail [1-9]/)
    expect(status).toBe(1)
  })
})
