import { expect, it } from 'vitest'
import { explainNativeImport } from '../src/index.ts'

it('a native package that cannot be imported is told of once, with the reason, and only where it is installed', async () => {
  const warnings: string[] = []
  process.on('warning', (warning: Error & { code?: string }) => {
    if (warning.code === 'SPILLWAY_NATIVE_NOT_LOADED') warnings.push(warning.message)
  })
  const absent = new Error("Cannot find package '@spillway/native' imported from /app/index.js")
  expect(explainNativeImport(absent)).toEqual({
    reason: '@spillway/native is not installed',
    isTransient: false,
  })
  const full = Object.assign(new Error('too many open files, open index.js'), { code: 'EMFILE' })
  expect(explainNativeImport(full).isTransient).toBe(true)
  // Loaders wrap it in errors of their own.
  expect(explainNativeImport(new Error('Cannot read package config: too many open files')).isTransient).toBe(
    true,
  )
  for (let time = 0; time < 3; time++) {
    const { reason, isTransient } = explainNativeImport(new Error('bad ELF class'))
    expect({ reason, isTransient }).toEqual({
      reason: '@spillway/native cannot be loaded, though it is installed: bad ELF class',
      isTransient: false,
    })
  }
  await new Promise((resolve) => setImmediate(resolve))
  expect(warnings).toEqual(['@spillway/native cannot be loaded, though it is installed: bad ELF class'])
})
