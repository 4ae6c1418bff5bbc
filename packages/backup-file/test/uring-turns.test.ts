import { expect, it } from 'vitest'
import { UringEngine } from '../src/uring-engine.ts'

const largeBytes = 256 * 1024

/** A ring whose reads end when the test says so; memory that is gone is refused before anything is begun. */
function engineOverFakeRing() {
  const underWay: PromiseWithResolvers<number>[] = []
  const gone = new Set<Uint8Array>()
  const ring = {
    read(_: number, into: Uint8Array) {
      if (gone.has(into)) throw new Error('the mapping is closed')
      const request = Promise.withResolvers<number>()
      underWay.push(request)
      return request.promise
    },
    close: async () => {},
  }
  const native = { available: () => ({ ioUring: true }), Ring: { open: () => ring } }
  const data = { fileDescriptor: 3 } as ConstructorParameters<typeof UringEngine>[1]
  const engine = new UringEngine(native as unknown as ConstructorParameters<typeof UringEngine>[0], data)
  return { engine, underWay, gone }
}

it('passes the turn of a request on whose memory is gone when it comes', async () => {
  const { engine, underWay, gone } = engineOverFakeRing()
  const first = Array.from({ length: 6 }, () => engine.read(new Uint8Array(largeBytes), 0))
  expect(underWay).toHaveLength(6)
  // As many as there are turns, and one more.
  const unmapped = Array.from({ length: 6 }, () => new Uint8Array(largeBytes))
  const refused = unmapped.map((memory) => engine.read(memory, 0))
  const told = Promise.all(refused.map((request) => expect(request).rejects.toThrow('the mapping is closed')))
  const last = engine.read(new Uint8Array(largeBytes), 0)
  expect(underWay).toHaveLength(6)
  for (const memory of unmapped) gone.add(memory)
  for (const request of underWay) request.resolve(largeBytes)
  await Promise.all(first)
  await told
  await new Promise(setImmediate)
  expect(underWay).toHaveLength(7)
  underWay[6]!.resolve(largeBytes)
  expect(await last).toBe(largeBytes)
  await engine.close()
})
