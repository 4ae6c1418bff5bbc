import { pageHttpHandler } from '@spillway/backup-s3'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type S3Target, s3Target } from './harness/index.ts'
import { openOn, pageSizeBytes, randomPages, read } from './stores.ts'

let target: S3Target
beforeAll(async () => {
  target = await s3Target()
})
afterAll(() => target.close())

const handlers = {
  'the SDK handler': () => target.client(),
  'pageHttpHandler()': () => target.client({ requestHandler: pageHttpHandler() }),
}

for (const [handler, client] of Object.entries(handlers)) {
  describe(`round trips with ${handler}`, () => {
    for (const pages of [1, 2, 255, 256, 257, 2048, 2049]) {
      it(`T3: ${pages} pages in segments of 256 come back unchanged, twice`, async () => {
        const prefix = target.prefix()
        const backup = await openOn(target, { client: client(), prefix, segmentBytes: 256 * pageSizeBytes })
        const content = randomPages(pages)
        const { handles, error } = await backup.backupPages([content])
        expect(error).toBeUndefined()
        for (let round = 0; round < 2; round++) {
          expect((await read(backup, handles)).equals(content)).toBe(true)
        }
        await backup.close()
        expect(await target.list(prefix)).toEqual([])
      })
    }

    it('T3: reads into spans of every kind of memory, in any cut', async () => {
      const backup = await openOn(target, { client: client() })
      const content = randomPages(300)
      const { handles } = await backup.backupPages([content])
      const resizable = new Uint8Array(new ArrayBuffer(100 * pageSizeBytes, { maxByteLength: 2 ** 22 }))
      const shared = new Uint8Array(new SharedArrayBuffer(100 * pageSizeBytes))
      const plain = new Uint8Array(99 * pageSizeBytes)
      const single = new Uint8Array(pageSizeBytes)
      const spans = [resizable, shared, single, plain]
      expect(await backup.copyPages(handles, spans)).toEqual({ copied: 300 })
      expect(Buffer.concat(spans).equals(content)).toBe(true)
      await backup.close()
    })

    it('carries pages of 2 MiB', async () => {
      const size = 2 * 2 ** 20
      const backup = await openOn(target, { client: client(), pageSizeBytes: size })
      const content = randomPages(5, size)
      const { handles, error } = await backup.backupPages([content])
      expect(error).toBeUndefined()
      expect((await read(backup, handles, size)).equals(content)).toBe(true)
      await backup.close()
    })
  })
}
