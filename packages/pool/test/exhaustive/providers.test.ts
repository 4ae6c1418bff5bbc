import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { VirtualTime } from '../model/virtual-time.ts'
import { page } from '../support/bytes.ts'
import { codeOf, type Operation, pin, pinToWrite, read, restore, write } from './support/operations.ts'
import { allOfIt, failed, goOn } from './support/run.ts'
import { Scene, type SceneOptions } from './support/scene.ts'
import { fewestChunks, pagesOf, partitions, type Shape, withStates } from './support/shapes.ts'

const time = new VirtualTime()
beforeAll(() => time.install())
afterAll(() => time.uninstall())

const statesEach = allOfIt ? 125 : 5
const mixes = partitions(3).flatMap((partition, index) => withStates(partition, statesEach, 90 + index))

type Calls = 'gets' | 'maps' | 'cachingCalls'
type Refusal = 'refuseGet' | 'refuseMap' | 'refuseCaching'

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

  it('T25, B3: in buffers of 1 to 40 pages', async () => {
    for (let pageCount = 1; pageCount <= 40; pageCount++) {
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
