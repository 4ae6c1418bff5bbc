import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import {
  type Backup,
  faultyBackup,
  MemoryMedium,
  memoryBackup,
  nullBackup,
  replaceHost,
  shareBackup,
} from '../src/index.ts'

/** A loop of calls that a backup in memory answers at once must not keep timers, sockets and other callers from their turns. */
describe('a loop of calls to a backup that answers at once', () => {
  const page = new Uint8Array(4096).fill(1)

  // The clock says at each look that a slice is used up, so that the number of turns does not depend on the machine.
  let clockMs = 0
  beforeAll(() => replaceHost({ nowMs: () => ++clockMs }))
  afterAll(() => replaceHost())

  const calls: Record<string, (backup: Backup) => Promise<unknown>> = {
    'store and drop': async (backup) => backup.drop((await backup.backupPages([page])).handles),
    'drop of nothing': (backup) => backup.drop([]),
    'drop that is refused': (backup) => backup.drop([{ first: 1, count: 1 }]).catch(() => {}),
    'store of nothing': (backup) => backup.backupPages([]),
    'copy that is refused': (backup) =>
      backup.copyPages([{ first: 1, count: 1 }], [page.slice()]).catch(() => {}),
    bytesAvailable: (backup) => backup.bytesAvailable(),
    reserve: async (backup) => (await backup.reserve(4096)).release(),
    'an image that is saved and loaded': async ({ images }) => {
      await images?.save('image', { body: [{ index: 0, bytes: page }], keeps: [[]] })
      await images?.load('image')
    },
    'names of images': async ({ images }) => images?.names(),
  }
  const backups: Record<string, () => Backup> = {
    memory: () => memoryBackup({ medium: new MemoryMedium() }),
    null: () => nullBackup(),
    shared: () => shareBackup(memoryBackup()).reference(),
    faulty: () => faultyBackup(memoryBackup()),
  }
  for (const [kind, open] of Object.entries(backups)) {
    for (const [name, call] of Object.entries(calls)) {
      // Only the memory backup with a medium holds images.
      if (name.includes('image') && kind !== 'memory') continue
      it(`gives the event loop its turns: ${kind}, ${name}`, async () => {
        await using backup = open()
        let turns = 0
        let isOver = false
        const count = () => {
          if (isOver) return
          turns++
          setImmediate(count)
        }
        setImmediate(count)
        for (let index = 0; index < (name.includes('store and') ? 500 : 1500); index++) await call(backup)
        isOver = true
        expect(turns).toBeGreaterThan(5)
      })
    }
  }
})
