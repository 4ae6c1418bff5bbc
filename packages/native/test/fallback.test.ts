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

describe('where descriptors have run out', () => {
  it('says EMFILE, and works as soon as there are some again', () => {
    const program = `
      const { closeSync, openSync } = await import('node:fs')
      const taken = []
      try { for (;;) taken.push(openSync('/dev/null')) } catch {}
      const before = native.available()
      const call = codeOf(() => native.createMemfd('x'))
      taken.splice(0, 8).forEach(closeSync)
      const { available, memfd, punchHole } = native.available()
      console.log(JSON.stringify([before, call, { available, memfd, punchHole }]))`
    const answer = answerOf(program, {}) as unknown[]
    expect(answer).toMatchObject([
      { available: false, reason: expect.stringMatching(/too many open files/i) },
      ['EMFILE', expect.stringContaining('dlopen')],
      { available: true, memfd: true, punchHole: true },
    ])
  })
})

describe('the warning that native code does not load', () => {
  const warned = (before: string, environment: Record<string, string> = {}) =>
    answerOf(
      `${before}
      const warnings = []
      process.on('warning', ({ code, message }) => warnings.push([code, message]))
      for (let call = 0; call < 3; call++) native.available()
      await new Promise((resolve) => setImmediate(resolve))
      console.log(JSON.stringify(warnings))`,
      environment,
    )

  it('comes once, with the reason', () => {
    const broken = `const { default: Module } = await import('node:module'); Module._load = () => { throw new Error('no koffi') };`
    expect(warned(broken)).toEqual([['SPILLWAY_NATIVE_NOT_LOADED', expect.stringContaining('no koffi')]])
  })

  it('does not come where it works, is switched off, or cannot work', () => {
    expect(warned('')).toEqual([])
    expect(warned('', { SPILLWAY_DISABLE_NATIVE: '1' })).toEqual([])
    expect(warned(`Object.defineProperty(process, 'platform', { value: 'darwin' });`)).toEqual([])
  })
})
