import { expect, it } from 'vitest'
import { openAt } from '../src/open-file-backup.ts'
import { kinds } from './kinds.ts'
import { expectHeld, pageBytes, pattern, singles, store } from './pages.ts'
import { scratchDirectory } from './places.ts'

const directory = scratchDirectory()
const engines = kinds(directory).filter(({ name }) => name !== 'memfs')

for (const { name } of engines) {
  const [io, direct] = name.split(', ')
  for (const boundary of [2 ** 31, 2 ** 32, 2 ** 40]) {
    it(`B1, T4: drops and reads neighbours across ${boundary} bytes of a sparse file (${name})`, async () => {
      await using backup = await openAt(
        {
          directory,
          io: io as 'uring' | 'threads',
          direct: direct === 'direct',
          keepFreeBytes: 0,
          capacityBytes: 512 * pageBytes,
        },
        boundary - 256 * pageBytes,
      )
      const bytes = pattern(512, boundary / 2 ** 20)
      const handles = singles(await store(backup, bytes))
      // Were an offset cut to 32 bits, or an index taken for bytes, another page would be hit.
      await backup.drop([handles[255], handles[257]])
      for (const page of [0, 254, 256, 258, 511]) {
        await expectHeld(backup, [handles[page]], bytes.subarray(page * pageBytes, (page + 1) * pageBytes))
      }
      await expect(backup.copyPages([handles[255]], [new Uint8Array(pageBytes)])).rejects.toMatchObject({
        code: 'ESTALE',
      })
      expect(backup.stats().mediumBytes).toBeLessThan(600 * pageBytes)
    })
  }
}
