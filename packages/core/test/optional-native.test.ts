import { expect, it } from 'vitest'
import { explainNativeImport, type NativeExports, OptionalNative } from '../src/index.ts'

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

/** A package whose mappings are counted. */
function nativeExports(availability: { available: boolean; reason?: string } = { available: true }) {
  const mapped = { bytes: 0 }
  const native: NativeExports = {
    available: () => availability,
    Mapping: {
      anonymous(bytes) {
        mapped.bytes += bytes
        const memory = new Uint8Array(bytes)
        return {
          view: (offset, length) => memory.subarray(offset, offset + length),
          close: () => {
            mapped.bytes -= bytes
          },
        }
      },
    },
  }
  return { native, mapped }
}

it('the native package is imported once where it works, and gives mapped memory from then on', async () => {
  const { native, mapped } = nativeExports()
  let imports = 0
  const optional = new OptionalNative(async () => {
    imports++
    return native
  })
  const before = optional.stagingMemory(8192)
  expect([before.memory.byteLength, before.close, mapped.bytes]).toEqual([8192, undefined, 0])
  const [one, other] = await Promise.all([optional.load(), optional.load()])
  expect(one).toEqual({ native, whyNot: '' })
  expect([other === one, (await optional.load()) === one, imports]).toEqual([true, true, 1])
  const { memory, close } = optional.stagingMemory(8192)
  expect([memory.byteLength, mapped.bytes]).toEqual([8192, 8192])
  close?.()
  expect(mapped.bytes).toBe(0)
})

it('the native package is tried again after what may pass, and not where it is missing', async () => {
  const { native } = nativeExports()
  const answers = [Object.assign(new Error('too many open files'), { code: 'EMFILE' }), native]
  const passing = new OptionalNative(async () => {
    const answer = answers.shift() as NativeExports | Error
    if (answer instanceof Error) throw answer
    return answer
  })
  expect((await passing.load()).native).toBeUndefined()
  expect((await passing.load()).native).toBe(native)
  let imports = 0
  const missing = new OptionalNative<NativeExports>(async () => {
    imports++
    throw new Error("Cannot find package '@spillway/native' imported from /app/index.js")
  })
  await missing.load()
  expect(await missing.load()).toEqual({ native: undefined, whyNot: '@spillway/native is not installed' })
  expect(imports).toBe(1)
})

it('says why the native package does not work here, and gives memory of the heap', async () => {
  const { native, mapped } = nativeExports({ available: false, reason: 'switched off' })
  const optional = new OptionalNative(async () => native)
  expect(await optional.load()).toEqual({ native: undefined, whyNot: 'switched off' })
  expect(optional.stagingMemory(4096).memory.byteLength).toBe(4096)
  expect(mapped.bytes).toBe(0)
})
