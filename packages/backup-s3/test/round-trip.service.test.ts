import { pageHttpHandler } from '@spillway/backup-s3'
import type { HandleRun } from '@spillway/core'
import { type S3Target, s3Target } from '@spillway/test-s3-server'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { openOn, pageSizeBytes, pick, randomPages, read } from './stores.ts'

let target: S3Target
beforeAll(async () => {
  target = await s3Target()
})
afterAll(() => target.close())

/** 100,000 with `SPILLWAY_LONG=1`: 400 MiB. */
const manyPages = process.env['SPILLWAY_LONG'] === '1' ? 100_000 : 5_000

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

    it(`T3: ${manyPages} pages come back unchanged, whole and at random`, async () => {
      const backup = await openOn(target, { client: client() })
      const batchPages = 5000
      const batch = randomPages(batchPages)
      const words = new Uint32Array(batch.buffer, batch.byteOffset, batch.length / 4)
      const batches: HandleRun[][] = []
      for (let number = 0; number < manyPages / batchPages; number++) {
        // Every page of every batch is different: its first word tells which it is.
        for (let page = 0; page < batchPages; page++) words[page * 1024] = number * batchPages + page
        const { handles, error } = await backup.backupPages([batch])
        expect(error).toBeUndefined()
        batches.push([...handles])
      }
      const copy = Buffer.alloc(batch.length)
      const copyWords = new Uint32Array(copy.buffer, copy.byteOffset, copy.length / 4)
      for (const [number, handles] of batches.entries()) {
        for (let page = 0; page < batchPages; page++) words[page * 1024] = number * batchPages + page
        expect(await backup.copyPages(handles, [copy])).toEqual({ copied: batchPages })
        expect(copy.equals(batch)).toBe(true)
      }
      const places = Array.from({ length: 300 }, () => Math.floor(Math.random() * manyPages))
      const all = batches.flat()
      const some = copy.subarray(0, 300 * pageSizeBytes)
      expect(await backup.copyPages(pick(all, places), [some])).toEqual({ copied: 300 })
      for (const [index, place] of places.entries()) expect(copyWords[index * 1024]).toBe(place)
      expect(backup.stats().livePages).toBe(manyPages)
      await backup.close()
    })

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
