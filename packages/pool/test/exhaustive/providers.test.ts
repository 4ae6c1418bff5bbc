import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { VirtualTime } from '../model/virtual-time.ts'
import { page } from '../support/bytes.ts'
import {
  atomicBackup,
  backup,
  codeOf,
  evict,
  type Operation,
  pin,
  pinToWrite,
  purge,
  read,
  restore,
  setLimit,
  shrink,
  write,
} from './support/operations.ts'
import { allOfIt, failed, goOn, sizes } from './support/run.ts'
import { Scene, type SceneOptions } from './support/scene.ts'
import { fewestChunks, pagesOf, partitions, type Shape, withStates } from './support/shapes.ts'

const time = new VirtualTime()
const warnings = process.listeners('warning')
beforeAll(() => {
  time.install()
  // That a provider fails is told as a warning.
  process.removeAllListeners('warning')
})
afterAll(() => {
  time.uninstall()
  for (const listener of warnings) process.on('warning', listener)
})

const statesEach = allOfIt ? 125 : 1
const mixes = partitions(3).flatMap((partition, index) => withStates(partition, statesEach, 90 + index))

type Calls = 'gets' | 'puts' | 'releases' | 'maps' | 'unmaps' | 'cachingCalls'
type Refusal = 'refuseGet' | 'refusePut' | 'refuseRelease' | 'refuseMap' | 'refuseUnmap' | 'refuseCaching'

interface Failure {
  readonly calls: Calls
  readonly refusal: Refusal
  /** Whether all later calls fail as well. */
  readonly forGood: boolean
}

/** Runs an operation with the provider failing at each call that it makes; returns how many failed. */
async function failAtEveryCall(
  options: SceneOptions,
  operation: Operation,
  { calls, refusal, forGood }: Failure,
  stopped: (scene: Scene, error: unknown, before: { resident: number; stored: number }) => void,
): Promise<number> {
  const undisturbed = await Scene.build(options, time)
  const start = undisturbed.provider[calls]
  const outcome = await operation.run(undisturbed)
  if (outcome.error !== undefined) throw outcome.error
  const count = undisturbed.provider[calls] - start
  await undisturbed.finish()
  for (let call = 1; call <= count; call++) {
    const scene = await Scene.build(options, time)
    const before = { resident: scene.buffer.residentBytes, stored: scene.buffer.backedUpBytes }
    scene.provider[refusal] = (number) => (forGood ? number >= start + call : number === start + call)
    try {
      const { error } = await operation.run(scene)
      await scene.check()
      if (error !== undefined) stopped(scene, error, before)
      await goOn(scene, operation)
    } catch (failure) {
      throw failed(failure, options, operation, `${refusal} ${call}${forGood ? ' and all after it' : ''}`)
    }
  }
  return count
}

const sized = (pageCount: number, state: 'empty' | 'stored'): SceneOptions => ({
  shape: fewestChunks(pageCount, state),
  maxOrder: 3,
  limitPages: pageCount + 16,
})
const mixed = (shape: Shape): SceneOptions => ({ shape, maxOrder: 3, limitPages: pagesOf(shape) + 16 })

function isNoMemory(error: unknown): void {
  if (codeOf(error) !== 'ENOMEM') throw error
}

describe('a provider that has no memory, at every request', () => {
  const writeAndRead = [write, pinToWrite, read, pin, restore]

  it('T20, T21: one refusal lowers the order and fails nothing', async () => {
    let refusals = 0
    for (const shape of mixes) {
      for (const operation of writeAndRead) {
        refusals += await failAtEveryCall(
          mixed(shape),
          operation,
          { calls: 'gets', refusal: 'refuseGet', forGood: false },
          (_, error) => {
            throw error
          },
        )
      }
    }
    expect(refusals).toBeGreaterThan(mixes.length)
  })

  it('T21, T25, B2, B3, I2, I11: when there is none any more it is ENOMEM, and nothing has changed', async () => {
    for (const shape of mixes) {
      for (const operation of [pin, pinToWrite]) {
        await failAtEveryCall(
          mixed(shape),
          operation,
          { calls: 'gets', refusal: 'refuseGet', forGood: true },
          (scene, error, before) => {
            isNoMemory(error)
            expect(scene.buffer.residentBytes).toBe(before.resident)
            expect(scene.buffer.backedUpBytes).toBe(before.stored)
          },
        )
      }
    }
  })

  it('T25, B3: in buffers of 1 to 42 pages', async () => {
    for (const pageCount of sizes.filter((size) => size <= 42)) {
      for (const state of ['empty', 'stored'] as const) {
        for (const operation of [write, read]) {
          const failure: Failure = { calls: 'gets', refusal: 'refuseGet', forGood: true }
          await failAtEveryCall(sized(pageCount, state), operation, failure, (_, error) => isNoMemory(error))
        }
      }
    }
  })
})

describe('a provider whose caching hook fails, at every call', () => {
  for (const caching of ['write-combined', 'uncached'] as const) {
    it(`T24, T25, B3, B15, I5: ${caching} memory goes back as what it is, and the same call works later`, async () => {
      for (const shape of mixes) {
        // A restore takes chunks that are idle with their caching, so that runs are cut by them.
        for (const idlePages of [0, 2]) {
          const options: SceneOptions = {
            ...mixed(shape),
            buffer: { caching },
            pool: { idleBytes: idlePages * page },
          }
          for (const operation of [pinToWrite, read]) {
            await failAtEveryCall(
              options,
              operation,
              { calls: 'cachingCalls', refusal: 'refuseCaching', forGood: false },
              (_, error) => expect(String(error)).toContain('caching refused'),
            )
          }
        }
      }
    })
  }
})

describe('a provider that cannot map, at every call', () => {
  it('T26, I4: is EFAULT, every mapping ends once, and the same call works later', async () => {
    for (const shape of mixes) {
      for (const operation of [pin, pinToWrite, read]) {
        await failAtEveryCall(
          { ...mixed(shape), buffer: { deviceMapped: true } },
          operation,
          { calls: 'maps', refusal: 'refuseMap', forGood: false },
          (_, error) => expect(codeOf(error)).toBe('EFAULT'),
        )
      }
    }
  })
})

/** What gives memory up; none of it may fail because a provider does not take it. */
const givingUp = [backup, atomicBackup, purge, shrink, evict, setLimit]

describe('a provider that fails to take memory back, at every call', () => {
  const kinds = [
    ['put', { calls: 'puts', refusal: 'refusePut' }, {}],
    ['put of whole blocks', { calls: 'puts', refusal: 'refusePut' }, { pageExactRelease: false }],
    ['release', { calls: 'releases', refusal: 'refuseRelease' }, { carved: true }],
    [
      'setting the caching back',
      { calls: 'cachingCalls', refusal: 'refuseCaching' },
      { buffer: { caching: 'write-combined' } },
    ],
    ['unmap', { calls: 'unmaps', refusal: 'refuseUnmap' }, { buffer: { deviceMapped: true } }],
  ] as const
  /** Of these sizes chunks have the orders that they get by themselves. */
  const natural = (['dirty', 'stored', 'clean'] as const).flatMap((state) =>
    (allOfIt ? [3, 5, 7, 11, 14] : [7]).map((size) => fewestChunks(size, state)),
  )
  for (const [what, failure, more] of kinds) {
    const shapes = 'carved' in more ? natural : mixes.filter((_, index) => index % (allOfIt ? 4 : 6) === 0)
    it(`T18, T25, I1, I2, I4, I5, I6, I11: ${what}: nothing is lost, every gauge is exact, and it is offered again`, async () => {
      let failures = 0
      for (const shape of shapes) {
        for (const operation of givingUp) {
          const options: SceneOptions = { ...mixed(shape), limitPages: pagesOf(shape) + 8, ...more }
          for (const forGood of [false, true]) {
            failures += await failAtEveryCall(options, operation, { ...failure, forGood }, (_, error) => {
              // Only what has to give memory to the system can fail for it.
              const may = operation === shrink ? error === 'stopped' : codeOf(error) === 'ENOMEM'
              if (!may || (operation !== setLimit && operation !== shrink && operation !== evict)) throw error
            })
          }
        }
      }
      expect(failures).toBeGreaterThan(shapes.length)
    })

    it(`T19, I2, I11, I12: ${what}: close() offers it once more, and what is refused then stays counted`, async () => {
      for (const shape of shapes) {
        const options: SceneOptions = { ...mixed(shape), pool: { idleBytes: 64 * page }, ...more }
        const first = await Scene.build(options, time)
        const start = first.provider[failure.calls]
        await first.pool.close()
        const calls = first.provider[failure.calls] - start
        for (let call = 1; call <= calls; call++) {
          const scene = await Scene.build(options, time)
          scene.provider[failure.refusal] = (number) => number === start + call
          await scene.pool.close()
          scene.checkEmpty()
          expect(scene.pool.stats().providerFailures).toBe(1)
        }
        const stubborn = await Scene.build(options, time)
        stubborn.provider[failure.refusal] = () => true
        await stubborn.pool.close()
        const { residentBytes, inUseBytes, buffers } = stubborn.pool.stats()
        expect([inUseBytes, buffers]).toEqual([0, 0])
        expect(residentBytes).toBeLessThanOrEqual(stubborn.provider.pagesOut * page)
        expect(stubborn.pool.verify()).toEqual([])
        expect(stubborn.provider.violations).toEqual([])
      }
    })
  }

  it('T18: it is told once as a warning with a code, and counted each time', async () => {
    const told: (string | undefined)[] = []
    const listen = (warning: Error & { code?: string }) => told.push(warning.code)
    // Warnings of what came before are told by now.
    await new Promise((resolve) => setImmediate(resolve))
    process.on('warning', listen)
    const scene = await Scene.build({ shape: fewestChunks(7, 'dirty'), maxOrder: 2 }, time)
    scene.provider.refusePut = () => true
    await scene.buffer.backup()
    await scene.returned()
    expect(scene.pool.stats()).toMatchObject({ inUseBytes: 0, idleBytes: 7 * page })
    expect(scene.pool.stats().providerFailures).toBeGreaterThan(1)
    await new Promise((resolve) => setImmediate(resolve))
    expect(told).toEqual(['SPILLWAY_PROVIDER_FAILED'])
    process.off('warning', listen)
    await scene.finish()
  })
})
