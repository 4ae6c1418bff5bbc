import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { VirtualTime } from '../model/virtual-time.ts'
import { atomicBackup, backup, copy, pin, pinToWrite, read, restore, write } from './support/operations.ts'
import { abortAtEveryPage, allOfIt, codes, failAtEveryPage, sizes } from './support/run.ts'
import type { SceneOptions } from './support/scene.ts'
import { fewestChunks, partitions, type Shape, withStates } from './support/shapes.ts'

const time = new VirtualTime()
beforeAll(() => time.install())
afterAll(() => time.uninstall())

const pagesOfAll = sizes.reduce((sum, size) => sum + size, 0)
/** Every way to cut 8 pages into chunks, in many states. */
const statesEach = allOfIt ? 125 : 1
const mixes = partitions(3).flatMap((partition, index) => withStates(partition, statesEach, index + 1))

const sized = (shape: Shape): SceneOptions => ({ shape, maxOrder: 6 })
const mixed = (shape: Shape): SceneOptions => ({ shape, maxOrder: 3 })

describe('buffers of 1 to 64 pages in every mix of orders, a failure at every page', () => {
  it('T32, T37, T38, T39, T47, I1, I2, I3, I11: a backup stops there, keeps everything, and goes on', async () => {
    let failures = 0
    for (const size of sizes) {
      failures += await failAtEveryPage(sized(fewestChunks(size, 'dirty')), backup, 'backupPages', time)
    }
    expect(failures).toBeGreaterThanOrEqual(pagesOfAll)
  })

  it('T41, T42, T43, T46, T47, B2, I1, I3, I7: a restore stops there, and copies no page in twice', async () => {
    let failures = 0
    for (const size of sizes) {
      failures += await failAtEveryPage(sized(fewestChunks(size, 'stored')), restore, 'copyPages', time)
    }
    expect(failures).toBeGreaterThanOrEqual(pagesOfAll)
  })

  it('T63, T64, I3: an atomic backup leaves everything where it was', async () => {
    for (const size of sizes.filter((size) => size % 3 === 1)) {
      await failAtEveryPage(sized(fewestChunks(size, 'dirty')), atomicBackup, 'backupPages', time)
    }
  })
})

describe('every code at every page', () => {
  // Three chunks of different orders.
  const [large, small] = allOfIt ? [21, 13] : [7, 7]
  const options: SceneOptions[] = [
    sized(fewestChunks(large, 'dirty')),
    { ...sized(fewestChunks(small, 'dirty')), pool: { split: 'always' } },
    { ...sized(fewestChunks(small, 'dirty')), backup: { scattered: true } },
  ]
  for (const operation of [backup, atomicBackup]) {
    it(`T32, T37, T63: ${operation.name}`, async () => {
      for (const scene of options) await failAtEveryPage(scene, operation, 'backupPages', time, () => codes)
    })
  }
  for (const operation of [restore, read, pin, write]) {
    it(`T43, T45, T47: ${operation.name}`, async () => {
      for (const scattered of [false, true]) {
        const scene = { ...sized(fewestChunks(large, 'stored')), backup: { scattered } }
        await failAtEveryPage(scene, operation, 'copyPages', time, () => codes)
      }
    })
  }
})

describe('8 pages cut in each of the 26 ways, chunks in every state, a failure at every page', () => {
  const cases = [
    ['T32, T37, T38, T56', backup, 'backupPages'],
    ['T56, T63', atomicBackup, 'backupPages'],
    ['T41, T43, T56', restore, 'copyPages'],
    ['T43, T86', read, 'copyPages'],
    ['T43, T86', write, 'copyPages'],
    ['T43, T86', pinToWrite, 'copyPages'],
    ['T43, T86', copy, 'copyPages'],
  ] as const
  for (const [numbers, operation, method] of cases) {
    it(`${numbers}, I1, I2, I3, I11: ${operation.name}`, async () => {
      let failures = 0
      for (const shape of mixes) failures += await failAtEveryPage(mixed(shape), operation, method, time)
      expect(failures).toBeGreaterThan(mixes.length)
    })
  }

  it('T11, T38, T83: the same with handles that are never adjacent, small batches and several calls in flight', async () => {
    for (const [index, shape] of mixes.entries()) {
      if (index % 3 > 0) continue
      const scene: SceneOptions = {
        ...mixed(shape),
        backup: { scattered: true, batchPages: 3, callsInFlight: 2 },
        pageExactRelease: index % 2 === 0,
      }
      await failAtEveryPage(scene, backup, 'backupPages', time)
      await failAtEveryPage(scene, restore, 'copyPages', time)
    }
  })
})

describe('8 pages cut in each of the 26 ways, chunks in every state, aborted before every page', () => {
  const cases = [
    ['T6, T37', backup, 'backupPages'],
    ['T6, T63', atomicBackup, 'backupPages'],
    ['T6, T43', restore, 'copyPages'],
    ['T6, T86', write, 'copyPages'],
    ['T6, T86', pin, 'copyPages'],
  ] as const
  for (const [numbers, operation, method] of cases) {
    it(`${numbers}: ${operation.name} ends with EINTR and goes on`, async () => {
      for (const [index, shape] of mixes.entries()) {
        if (index % 2 === 0) await abortAtEveryPage(mixed(shape), operation, method, time)
      }
    })
  }
})
