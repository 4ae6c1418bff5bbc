import { execFileSync } from 'node:child_process'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'

/** What `program` prints in a process with this environment. */
function answerOf(program: string, environment: Record<string, string>, ...flags: string[]): unknown {
  const index = JSON.stringify(join(import.meta.dirname, '../src/index.ts'))
  const code = `
    import * as native from ${index}
    const codeOf = (work) => { try { work(); return 'fine' } catch (error) { return [error.code, error.message] } }
    ${program}`
  const output = execFileSync(
    process.execPath,
    ['--no-warnings', ...flags, '--input-type=module', '-e', code],
    {
      encoding: 'utf8',
      env: { ...process.env, ...environment },
    },
  )
  return JSON.parse(output)
}

const everyCall = `console.log(JSON.stringify({
  available: native.available(),
  calls: [
    () => native.systemPageBytes(),
    () => native.createMemfd('x'),
    () => native.allocate(0, 0, 1),
    () => native.punchHole(0, 0, 1),
    () => native.lockFile(0),
    () => native.Mapping.anonymous(4096),
    () => native.Mapping.file(0, { lengthBytes: 4096 }),
    () => native.Ring.open({ entries: 1 }),
  ].map(codeOf),
  address: String(native.mappedAddress(new Uint8Array(1))),
}))`

const nothing = {
  available: false,
  memfd: false,
  mmap: false,
  hugePages: false,
  punchHole: false,
  ioUring: false,
}

describe('where something is missing', () => {
  it.each([
    ['switched off', { SPILLWAY_DISABLE_NATIVE: '1' }, '', 'SPILLWAY_DISABLE_NATIVE'],
    [
      'another system',
      {},
      `Object.defineProperty(process, 'platform', { value: 'darwin' });`,
      'this is darwin',
    ],
    ['another processor', {}, `Object.defineProperty(process, 'arch', { value: 's390x' });`, 's390x'],
    [
      'koffi does not load',
      {},
      `const { default: Module } = await import('node:module'); Module._load = () => { throw new Error('no koffi') };`,
      'no koffi',
    ],
  ])('imports, says so, and every call is one clear ENOSYS: %s', (_name, environment, before, reason) => {
    const answer = answerOf(before + everyCall, environment) as {
      available: { reason: string; ioUringReason: string }
      calls: [string, string][]
      address: string
    }
    expect(answer.available).toMatchObject(nothing)
    expect(answer.available.reason).toContain(reason)
    expect(answer.available.ioUringReason).toContain(reason)
    for (const [code, message] of answer.calls) {
      expect(code).toBe('ENOSYS')
      expect(message).toContain(reason)
    }
    expect(answer.calls).toHaveLength(8)
    expect(answer.address).toBe('undefined')
  })

  it('has everything but rings where io_uring is switched off', () => {
    const answer = answerOf(
      `console.log(JSON.stringify([native.available(), codeOf(() => native.Ring.open({ entries: 1 }))]))`,
      { SPILLWAY_DISABLE_IO_URING: '1' },
    )
    expect(answer).toMatchObject([
      {
        available: true,
        mmap: true,
        memfd: true,
        ioUring: false,
        ioUringReason: expect.stringContaining('switched off'),
      },
      ['ENOSYS', expect.stringContaining('switched off')],
    ])
  })
})
