import { SpillwayError } from '@spillway/core'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { VirtualTime } from '../model/virtual-time.ts'
import { page } from '../support/bytes.ts'
import { backup, evict, setLimit, shrink } from './support/operations.ts'
import { allOfIt, codes, failAtEveryPage } from './support/run.ts'
import { Scene, type SceneOptions } from './support/scene.ts'
import { fewestChunks, pagesOf, partitions, type Shape, withStates } from './support/shapes.ts'

const time = new VirtualTime()
const warnings = process.listeners('warning')
beforeAll(() => {
  time.install()
  // Each failure of a backup is told as a warning.
  process.removeAllListeners('warning')
})
afterAll(() => {
  time.uninstall()
  for (const listener of warnings) process.on('warning', listener)
})

const statesEach = allOfIt ? 125 : 1
const mixes = partitions(3).flatMap((partition, index) => withStates(partition, statesEach, 50 + index))

/** Exactly as much memory as the buffer has pages, so that another one drives all of it out. */
const tight = (shape: Shape): SceneOptions => ({ shape, maxOrder: 3, limitPages: pagesOf(shape) })

describe('reclaim with a failure at every page', () => {
  it('T57, T60, T61, B12, I1, I3, I7, I9: eviction by another buffer fails or succeeds, and can be tried again', async () => {
    let failures = 0
    for (const shape of mixes) failures += await failAtEveryPage(tight(shape), evict, 'backupPages', time)
    expect(failures).toBeGreaterThan(mixes.length)
  })

  it('eviction by another pool of its budget fails or succeeds, and can be tried again [T57, T60, I7, I11]', async () => {
    let failures = 0
    const some = allOfIt ? mixes : mixes.filter((_, index) => index % 3 === 0)
    for (const shape of some) {
      const options = { ...tight(shape), neighbour: true }
      failures += await failAtEveryPage(options, evict, 'backupPages', time)
      if (allOfIt) await failAtEveryPage({ ...options, pageExactRelease: false }, evict, 'backupPages', time)
    }
    expect(failures).toBeGreaterThan(some.length)
  })

  it('a lower limit of a budget of two pools is set or not, and never passed [T28, T57, I7]', async () => {
    for (const shape of mixes) {
      const options = { ...tight(shape), neighbour: true, limitPages: 16 }
      await failAtEveryPage(options, setLimit, 'backupPages', time)
    }
  })

  it('T57, B12: every code at every page of an eviction', async () => {
    const options = { ...tight(fewestChunks(13, 'dirty')), limitPages: 13 }
    await failAtEveryPage(options, evict, 'backupPages', time, () => codes)
    await failAtEveryPage({ ...options, pool: { split: 'always' } }, evict, 'backupPages', time, () => codes)
  })

  it('T29, T30, T72, I7, I9: shrink gives what it says, keeps the rest, and goes on', async () => {
    for (const shape of mixes) {
      const scene = { ...tight(shape), limitPages: 16 }
      await failAtEveryPage(scene, shrink, 'backupPages', time)
    }
    const dirty = { ...tight(fewestChunks(13, 'dirty')), limitPages: 16 }
    await failAtEveryPage(dirty, shrink, 'backupPages', time, () => codes)
  })

  it('T28, T57, I7: a lower limit is set or not, and never passed', async () => {
    for (const shape of mixes) {
      const exact = { ...tight(shape), limitPages: 16 }
      await failAtEveryPage(exact, setLimit, 'backupPages', time)
      await failAtEveryPage(
        { ...exact, pageExactRelease: false, limitPages: 24 },
        setLimit,
        'backupPages',
        time,
      )
    }
  })
})

describe('giving up with every drop refused once', () => {
  for (const [name, giveUp] of [
    ['T36: purge', (scene: Scene) => scene.buffer.purge().then(() => {})],
    ['T49, T50: free', (scene: Scene) => scene.buffer.free()],
    ['T19, T49: close', (scene: Scene) => scene.pool.close()],
  ] as const) {
    it(`${name}, I2, I3, I11, I12: leaves nothing behind, whatever state the buffer is in`, async () => {
      for (const [index, shape] of mixes.entries()) {
        const options = { ...tight(shape), limitPages: 16, backup: { scattered: index % 2 === 0 } }
        const undisturbed = await Scene.build(options, time)
        await giveUp(undisturbed)
        await undisturbed.check()
        const calls = undisturbed.backup.asked.drop
        undisturbed.oracle.fill(0)
        if (!name.includes('close')) await undisturbed.finish()
        for (let call = 0; call < calls; call++) {
          const scene = await Scene.build(options, time)
          const code = codes[(index + call) % codes.length]!
          const refusal = new SpillwayError(code, 'as planned')
          const others = new Array<undefined>(call).fill(undefined)
          scene.backup.dropFailures = [...others, refusal]
          await giveUp(scene)
          await scene.check()
          scene.heal()
          await scene.check()
          expect(scene.backup.stats().livePages).toBe(0)
          scene.oracle.fill(0)
          if (!name.includes('close')) await scene.finish()
          else scene.checkEmpty()
        }
      }
    })
  }
})

describe('a backup whose capacity ends at every page', () => {
  it('T8, T34, T37, T84: what fits is stored, what does not stays, nothing is lost', async () => {
    for (let capacityPages = 1; capacityPages <= 22; capacityPages++) {
      for (const scattered of [false, true]) {
        const options: SceneOptions = {
          shape: fewestChunks(21, 'dirty'),
          maxOrder: 4,
          backup: { capacityPages, scattered },
        }
        const scene = await Scene.build(options, time)
        const { pages, error } = await scene.buffer.backup()
        expect(pages).toBe(Math.min(21, capacityPages))
        expect((error as SpillwayError | undefined)?.code).toBe(capacityPages < 21 ? 'ENOSPC' : undefined)
        await scene.check()
        // Full: refused before anything happens.
        if (capacityPages < 21) await expect(scene.buffer.backup()).rejects.toMatchObject({ code: 'EBUSY' })
        expect(scene.buffer.residentBytes).toBe(Math.max(0, 21 - capacityPages) * page)
        await scene.check()
        await scene.finish()
      }
    }
  })

  it('T34, I11: a backup that does not know its room refuses with every code, and nothing has happened', async () => {
    for (const code of codes) {
      const scene = await Scene.build({ shape: fewestChunks(13, 'dirty'), maxOrder: 3 }, time)
      scene.backup.availableFailure = new SpillwayError(code, 'as planned')
      await expect(scene.buffer.backup()).rejects.toMatchObject({ code })
      expect(scene.buffer.residentBytes).toBe(13 * page)
      scene.heal()
      backup.done!(scene, await scene.buffer.backup())
      await scene.finish()
    }
  })
})
