/** How many requests, of what size, when, and what they cost. */

import { faults, type S3Target, s3Target } from '@spillway/test-s3-server'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { pageHttpHandler, type S3BackupOptions } from '../src/index.ts'
import { countOf, openOn, pageSizeBytes, pick, randomPages, read } from './stores.ts'

const segment = '/s-'
let target: S3Target
beforeEach(async () => {
  target = await s3Target({ embedded: true, reuseProcess: true })
})
afterEach(() => target.close())

const open = (options: Partial<S3BackupOptions> = {}) => openOn(target, { deleteDelayMs: 0, ...options })

async function requests(operation: 'PutObject' | 'GetObject' | 'HeadObject') {
  return (await target.server!.log(operation)).filter(({ key }) => key?.includes(segment))
}

describe('backups', () => {
  it('calls that come close together share an object', async () => {
    const backup = await open({ lingerMs: 20 })
    const contents = Array.from({ length: 50 }, () => randomPages(2))
    const results = await Promise.all(contents.map((content) => backup.backupPages([content])))
    expect(await requests('PutObject')).toHaveLength(1)
    for (const [index, { handles }] of results.entries()) {
      expect((await read(backup, handles)).equals(contents[index])).toBe(true)
    }
    await backup.close()
  })

  it('callers that do not stop get their pages into few objects while the line is busy', async () => {
    await target.server!.faults.always('PutObject', faults.delayed(30), { keyIncludes: segment })
    const backup = await open()
    const caller = async () => {
      for (let call = 0; call < 5; call++) await backup.backupPages([randomPages(1)])
    }
    await Promise.all(Array.from({ length: 40 }, caller))
    expect(backup.stats().livePages).toBe(200)
    expect((await requests('PutObject')).length).toBeLessThan(40)
    await backup.close()
  })

  it('a promise resolves when the service has acknowledged, not before', async () => {
    await target.server!.faults.once('PutObject', faults.answeredLate(150), { keyIncludes: segment })
    const backup = await open()
    let settled = false
    const call = backup.backupPages([randomPages(1)]).then(() => {
      settled = true
    })
    while ((await target.server!.counters()).requests < 5)
      await new Promise((resolve) => setTimeout(resolve, 5))
    expect(settled).toBe(false)
    await call
    await backup.close()
  })

  it('T11: a batch of the size that is handled best is one object and one run of handles', async () => {
    const pages = 64
    const backup = await open({ segmentBytes: pages * pageSizeBytes })
    expect(backup.capabilities.preferredBatchPages).toBe(pages)
    for (const odd of [3, 1]) await backup.backupPages([randomPages(odd)])
    const batches = await Promise.all(
      Array.from({ length: 6 }, () => backup.backupPages([randomPages(pages)])),
    )
    for (const { handles } of batches) expect(handles).toHaveLength(1)
    expect(await requests('PutObject')).toHaveLength(8)
    expect(backup.stats().costs.verbs.put.housekeeping).toBe(3)
    await backup.close()
  })

  it('an object is its pages and their sums, and SHA-256, CRC-32 and If-None-Match travel with it', async () => {
    const backup = await open()
    await backup.backupPages([randomPages(100)])
    const [put] = await requests('PutObject')
    expect(put.headers['if-none-match']).toBe('*')
    expect(put.headers['x-amz-checksum-crc32']).toMatch(/^[A-Za-z0-9+/]{6}==$/)
    expect(put.headers['x-amz-content-sha256']).toMatch(/^[0-9a-f]{64}$/)
    const [{ bytes }] = (await target.list()).filter(({ key }) => key.includes(segment))
    expect(bytes).toBe(100 * (pageSizeBytes + 4) + 64)
    await backup.close()
  })

  it('sends no SHA-256 when payloads are not to be signed, and no CRC-32 when the client is told so', async () => {
    const client = target.client({ requestChecksumCalculation: 'WHEN_REQUIRED' })
    const backup = await open({ payloadSigning: 'unsigned', client })
    const content = randomPages(3)
    const { handles } = await backup.backupPages([content])
    const [put] = await requests('PutObject')
    expect(put.headers['x-amz-content-sha256']).toBe('UNSIGNED-PAYLOAD')
    expect(put.headers['x-amz-checksum-crc32']).toBeUndefined()
    expect((await read(backup, handles)).equals(content)).toBe(true)
    await backup.close()
  })

  it('T6: an abort settles at once although the service hangs, and nothing is left', async () => {
    const prefix = target.prefix()
    await target.server!.faults.always('PutObject', faults.hung, { keyIncludes: segment })
    const backup = await open({ prefix, segmentBytes: 4 * pageSizeBytes, bufferBytes: 8 * pageSizeBytes })
    const controller = new AbortController()
    const reason = new Error('enough')
    const call = backup.backupPages([randomPages(40)], { signal: controller.signal })
    while ((await requests('PutObject')).length === 0) await new Promise((resolve) => setTimeout(resolve, 5))
    controller.abort(reason)
    const { handles, error } = await call
    expect(handles).toEqual([])
    expect(error).toMatchObject({ code: 'EINTR', cause: reason })
    await target.server!.faults.clear()
    await backup.close()
    expect(await target.list(prefix)).toEqual([])
  })

  it('a caller whose memory is gone gets an error, and stops nobody else', async () => {
    const backup = await open({ lingerMs: 20 })
    const content = randomPages(5)
    const gone = new Uint8Array(10 * pageSizeBytes)
    const broken = backup.backupPages([gone])
    const other = backup.backupPages([content])
    structuredClone(gone, { transfer: [gone.buffer] })
    expect((await broken).error).toMatchObject({ code: 'EFAULT' })
    expect((await broken).handles).toEqual([])
    const { handles } = await other
    expect((await read(backup, handles)).equals(content)).toBe(true)
    expect(backup.stats().livePages).toBe(5)
    await backup.close()
  })

  it.each([1, 40])(
    'a restore of %i pages whose memory is gone gets an error, and stops nobody else',
    async (pages) => {
      const backup = await open()
      const content = randomPages(pages + 5)
      const { handles } = await backup.backupPages([content])
      const gone = new Uint8Array(pages * pageSizeBytes)
      const places = Array.from({ length: pages + 5 }, (_, place) => place)
      const broken = backup.copyPages(pick(handles, places.slice(0, pages)), [gone])
      const other = read(backup, pick(handles, places.slice(pages)))
      structuredClone(gone, { transfer: [gone.buffer] })
      expect((await broken).error).toMatchObject({ code: 'EFAULT' })
      expect((await other).equals(content.subarray(pages * pageSizeBytes))).toBe(true)
      expect((await read(backup, handles)).equals(content)).toBe(true)
      await backup.close()
    },
  )

  it('an abort of one caller does not disturb those who share its segment', async () => {
    await target.server!.faults.once('PutObject', faults.delayed(200), { keyIncludes: segment })
    const backup = await open({ lingerMs: 20 })
    const controller = new AbortController()
    const content = randomPages(5)
    const aborted = backup.backupPages([randomPages(7)], { signal: controller.signal })
    const kept = backup.backupPages([content])
    while ((await target.server!.counters()).requests < 4)
      await new Promise((resolve) => setTimeout(resolve, 5))
    await new Promise((resolve) => setTimeout(resolve, 50))
    controller.abort()
    expect((await aborted).error).toMatchObject({ code: 'EINTR' })
    const { handles } = await kept
    expect((await read(backup, handles)).equals(content)).toBe(true)
    expect(backup.stats().livePages).toBe(5)
    await backup.close()
  })
})

for (const fast of [false, true]) {
  const client = () => target.client(fast ? { requestHandler: pageHttpHandler() } : {})
  describe(`restores with ${fast ? 'pageHttpHandler()' : 'the SDK handler'}`, () => {
    it('adjacent pages are one GET, also over several calls', async () => {
      const backup = await open({ client: client() })
      const content = randomPages(512)
      const { handles } = await backup.backupPages([content])
      await target.server!.clearLog()
      const parts = [0, 1, 2, 3].map((part) => {
        const memory = Buffer.alloc(128 * pageSizeBytes)
        const run = { first: handles[0].first + part * 128, count: 128 }
        return backup.copyPages([run], [memory]).then(() => memory)
      })
      expect(Buffer.concat(await Promise.all(parts)).equals(content)).toBe(true)
      expect(await requests('GetObject')).toHaveLength(1)
      await backup.close()
    })

    it('near pages are read together, far ones are not, and a random page costs less than 64 KiB more', async () => {
      const backup = await open({ client: client(), mergeGapBytes: 8 * pageSizeBytes })
      const content = randomPages(1024)
      const { handles } = await backup.backupPages([content])
      await target.server!.clearLog()
      const places = [0, 5, 14, 200, 208, 700]
      const copy = await read(backup, pick(handles, places))
      for (const [index, place] of places.entries()) {
        const expected = content.subarray(place * pageSizeBytes, (place + 1) * pageSizeBytes)
        expect(copy.subarray(index * pageSizeBytes, (index + 1) * pageSizeBytes).equals(expected)).toBe(true)
      }
      expect(await requests('GetObject')).toHaveLength(3)
      expect(backup.stats().overReadBytes).toBe((4 + 8 + 7) * pageSizeBytes)
      expect(backup.stats().overReadBytes / places.length).toBeLessThan(65536)
      await backup.close()
    })

    it('the same page may be asked for several times at once, in any order', async () => {
      const backup = await open({ client: client() })
      const content = randomPages(8)
      const { handles } = await backup.backupPages([content])
      const places = [3, 3, 7, 0, 3, 1, 0]
      const copy = await read(backup, pick(handles, places))
      for (const [index, place] of places.entries()) {
        const expected = content.subarray(place * pageSizeBytes, (place + 1) * pageSizeBytes)
        expect(copy.subarray(index * pageSizeBytes, (index + 1) * pageSizeBytes).equals(expected)).toBe(true)
      }
      await backup.close()
    })

    it('a body that breaks off is continued at the byte that was reached', async () => {
      const backup = await open({ client: client(), retryBaseMs: 1 })
      const content = randomPages(1000)
      const { handles } = await backup.backupPages([content])
      await target.server!.clearLog()
      for (const from of [1, 2, 3]) {
        await target.server!.faults.once('GetObject', faults.cut(1_000_001), { from, keyIncludes: segment })
      }
      expect((await read(backup, handles)).equals(content)).toBe(true)
      const gets = await requests('GetObject')
      expect(gets).toHaveLength(4)
      const starts = gets.map(({ range }) => Number(/(\d+)-/.exec(range!)![1]))
      for (const [index, start] of starts.slice(1).entries()) {
        expect(start).toBeGreaterThan(starts[index])
      }
      expect(starts.slice(1)).toEqual([1, 2, 3].map((times) => times * 1_000_001))
      expect(backup.stats().resumes).toBe(3)
      await backup.close()
    })

    it('a body that falls silent is continued', async () => {
      const backup = await open({ client: client(), retryBaseMs: 1, bodyTimeoutMs: 100 })
      const content = randomPages(500)
      const { handles } = await backup.backupPages([content])
      await target.server!.faults.once('GetObject', faults.stalled({ afterBytes: 900_000 }), {
        keyIncludes: segment,
      })
      expect((await read(backup, handles)).equals(content)).toBe(true)
      expect(backup.stats().resumes).toBe(1)
      await backup.close()
    })

    it.each([
      ['a byte short', faults.truncated(1)],
      ['half as long', faults.truncated(4 * pageSizeBytes)],
      ['the whole object', faults.rangeIgnored],
    ])('an answer that is %s instead of the range is not taken, and asked for again', async (_, fault) => {
      const backup = await open({ client: client() })
      const content = randomPages(32)
      const { handles } = await backup.backupPages([content])
      const wanted = [{ first: handles[0].first + 8, count: 8 }]
      const expected = content.subarray(8 * pageSizeBytes, 16 * pageSizeBytes)
      await target.server!.faults.once('GetObject', fault, { keyIncludes: segment })
      expect((await read(backup, wanted)).equals(expected)).toBe(true)
      expect(backup.stats().retries).toBe(1)
      // For ever: said, and not tried for as long as an outage.
      await target.server!.faults.always('GetObject', fault, { keyIncludes: segment })
      const before = (await requests('GetObject')).length
      const { copied, error } = await backup.copyPages(wanted, [Buffer.alloc(8 * pageSizeBytes)])
      expect(copied).toBe(0)
      expect(error).toMatchObject({ code: 'EIO', retryable: false })
      expect((await requests('GetObject')).length - before).toBeLessThan(6)
      await target.server!.faults.clear()
      await backup.close()
    })

    it('with retryMayFail nothing is tried twice, and the prefix that came is told', async () => {
      const backup = await open({ client: client() })
      const content = randomPages(100)
      const { handles } = await backup.backupPages([content])
      await target.server!.clearLog()
      await target.server!.faults.once('GetObject', faults.cut(40.5 * pageSizeBytes), {
        keyIncludes: segment,
      })
      const memory = Buffer.alloc(content.length)
      const { copied, error } = await backup.copyPages(handles, [memory], { retryMayFail: true })
      expect(copied).toBe(40)
      expect(error).toMatchObject({ code: 'EIO', retryable: true })
      expect(memory.subarray(0, 40 * pageSizeBytes).equals(content.subarray(0, 40 * pageSizeBytes))).toBe(
        true,
      )
      expect(await requests('GetObject')).toHaveLength(1)
      await backup.close()
    })

    it('one slow answer in a hundred is asked for again, and the first to come wins', async () => {
      const backup = await open({ client: client(), firstByteTimeoutMs: 1000, retryBaseMs: 1 })
      const content = randomPages(16)
      const { handles } = await backup.backupPages([content])
      let calls = 0
      const readAll = async (times: number) => {
        for (let call = 0; call < times; call++, calls++) {
          expect((await read(backup, handles)).equals(content)).toBe(true)
        }
      }
      // A slow machine may use up what was saved for hedges; then the timeout takes their place, and it is tried again.
      let won = false
      for (let round = 0; round < 8 && !won; round++) {
        await readAll(80)
        const before = backup.stats()
        await target.server!.faults.once('GetObject', faults.hung, { keyIncludes: segment })
        await readAll(1)
        const after = backup.stats()
        won = after.hedges > before.hedges && after.retries === before.retries
      }
      expect(won).toBe(true)
      expect(backup.stats().hedges).toBeLessThanOrEqual(1 + 0.015 * (calls + backup.stats().retries))
      await backup.close()
    })

    it('T6: an abort settles at once and leaves the memory alone afterwards', async () => {
      const backup = await open({ client: client() })
      const content = randomPages(1000)
      const { handles } = await backup.backupPages([content])
      const stall = faults.stalled({ afterBytes: 500_000, forMs: 150 })
      await target.server!.faults.once('GetObject', stall, { keyIncludes: segment })
      const controller = new AbortController()
      const memory = Buffer.alloc(content.length)
      const call = backup.copyPages(handles, [memory], { signal: controller.signal })
      while (memory[400_000] === 0 && memory[400_001] === 0)
        await new Promise((resolve) => setTimeout(resolve, 2))
      controller.abort()
      const { copied, error } = await call
      expect(error).toMatchObject({ code: 'EINTR' })
      const bytes = copied * pageSizeBytes
      expect(memory.subarray(0, bytes).equals(content.subarray(0, bytes))).toBe(true)
      memory.fill(0)
      await new Promise((resolve) => setTimeout(resolve, 300))
      expect(memory.every((byte) => byte === 0)).toBe(true)
      await backup.close()
    })

    it('T6: an abort of one caller gives its memory back and lets the others have theirs', async () => {
      const backup = await open({ client: client(), retryBaseMs: 1 })
      const content = randomPages(1000)
      const { handles } = await backup.backupPages([content])
      const stall = faults.stalled({ afterBytes: 1_000_000, forMs: 600 })
      await target.server!.faults.once('GetObject', stall, { keyIncludes: segment })
      const controller = new AbortController()
      const [first, second] = [Buffer.alloc(content.length / 2), Buffer.alloc(content.length / 2)]
      const run = (from: number) => [{ first: handles[0].first + from, count: 500 }]
      const aborted = backup.copyPages(run(0), [first], { signal: controller.signal })
      const other = backup.copyPages(run(500), [second])
      while (first[900_000] === 0 && first[900_001] === 0)
        await new Promise((resolve) => setTimeout(resolve, 2))
      controller.abort()
      expect((await aborted).error).toMatchObject({ code: 'EINTR' })
      first.fill(0)
      expect(await other).toEqual({ copied: 500 })
      expect(second.equals(content.subarray(content.length / 2))).toBe(true)
      expect(first.every((byte) => byte === 0)).toBe(true)
      await backup.close()
    })

    it('a page that is damaged for good is EBADMSG, with what came before it, and is not asked for again', async () => {
      await target.server!.faults.once('PutObject', faults.flippedInStore(70 * pageSizeBytes + 9), {
        keyIncludes: segment,
      })
      const backup = await open({ client: client() })
      const content = randomPages(100)
      const { handles } = await backup.backupPages([content])
      const memory = Buffer.alloc(content.length)
      const result = await backup.copyPages(handles, [memory])
      expect(result.copied).toBe(70)
      expect(result.error).toMatchObject({ code: 'EBADMSG', page: 70, handle: handles[0].first + 70 })
      await target.server!.clearLog()
      const again = await backup.copyPages(pick(handles, [70]), [memory.subarray(0, pageSizeBytes)])
      expect(again).toMatchObject({ copied: 0, error: { code: 'EBADMSG' } })
      expect(await requests('GetObject')).toEqual([])
      const rest = await read(
        backup,
        pick(
          handles,
          Array.from({ length: 29 }, (_, page) => 71 + page),
        ),
      )
      expect(rest.equals(content.subarray(71 * pageSizeBytes))).toBe(true)
      await backup.close()
    })

    it('an object that was replaced behind its back is never taken for the pages', async () => {
      const prefix = target.prefix()
      const backup = await open({ client: client(), prefix, retryBaseMs: 1 })
      const { handles } = await backup.backupPages([randomPages(20)])
      const { epoch } = backup.stats()
      const number = Math.floor(handles[0].first / 2 ** 21)
      const { PutObjectCommand } = await import('@aws-sdk/client-s3')
      await target.client().send(
        new PutObjectCommand({
          Bucket: target.bucket,
          Key: `${prefix}${epoch}/s-${String(number).padStart(10, '0')}`,
          Body: randomPages(21),
        }),
      )
      const memory = Buffer.alloc(20 * pageSizeBytes)
      expect(await backup.copyPages(handles, [memory])).toMatchObject({
        copied: 0,
        error: { code: 'EBADMSG' },
      })
      await backup.close()
    })
  })
}

describe('costs', () => {
  it('counts what the server counted, by verb, with the prices that were set', async () => {
    const prices = {
      per1000Puts: 5,
      per1000Gets: 0.4,
      per1000Lists: 5,
      per1000Deletes: 1,
      perGiBReceived: 90,
    }
    await target.server!.clearLog()
    const backup = await open({ prices, segmentBytes: 64 * pageSizeBytes })
    const { handles } = await backup.backupPages([randomPages(200)])
    await read(backup, handles)
    await backup.drop(handles)
    const { costs } = backup.stats()
    const log = await target.server!.log()
    const count = (operation: string) => log.filter((record) => record.operation === operation).length
    expect(costs.verbs.put.requests).toBe(count('PutObject'))
    expect(costs.verbs.get.requests).toBe(count('GetObject'))
    expect(costs.verbs.head.requests).toBe(count('HeadObject'))
    expect(costs.verbs.get.bytesReceived).toBeGreaterThanOrEqual(200 * pageSizeBytes)
    const { put, get, head, list, delete: deletes } = costs.verbs
    const dollars =
      (put.requests * 5 + (get.requests + head.requests) * 0.4 + list.requests * 5 + deletes.requests * 1) /
        1000 +
      (get.bytesReceived / 2 ** 30) * 90
    expect(costs.dollars).toBeCloseTo(dollars, 9)
    expect(costs.putsPerGiB).toBeCloseTo(4 / ((200 * pageSizeBytes) / 2 ** 30), 6)
    await backup.close()
  })

  it('needs no more than 132 requests per GiB each way, for batches of the size that is handled best', async () => {
    const backup = await open()
    const batch = randomPages(2048)
    const runs = []
    for (let call = 0; call < 4; call++) runs.push((await backup.backupPages([batch])).handles)
    for (const handles of runs) await read(backup, handles)
    const { putsPerGiB, getsPerGiB } = backup.stats().costs
    expect(putsPerGiB).toBeLessThanOrEqual(132)
    expect(getsPerGiB).toBeLessThanOrEqual(132)
    expect(backup.stats().requestAmplification).toBeLessThan(1.04)
    await backup.close()
  })

  it('refuses with EDQUOT when the budget is used up, sends nothing, loses nothing, and still cleans up', async () => {
    const prefix = target.prefix()
    const backup = await open({ prefix, segmentBytes: 8 * pageSizeBytes, lingerMs: 0 })
    backup.setBudget({ maxRequests: backup.stats().costs.requests + 3 })
    const content = randomPages(40)
    const { handles, error } = await backup.backupPages([content])
    expect(countOf(handles)).toBe(24)
    expect(error).toMatchObject({ code: 'EDQUOT', backup: 's3' })
    expect(await backup.bytesAvailable()).toBe(0)
    const before = (await target.server!.counters()).requests
    const memory = Buffer.alloc(24 * pageSizeBytes)
    expect(await backup.copyPages(handles, [memory])).toMatchObject({ copied: 0, error: { code: 'EDQUOT' } })
    expect((await target.server!.counters()).requests).toBe(before)
    backup.setBudget({ maxDollars: 100 })
    expect((await read(backup, handles)).equals(content.subarray(0, 24 * pageSizeBytes))).toBe(true)
    backup.setBudget({ maxDollars: 0 })
    await backup.close()
    expect(await target.list(prefix)).toEqual([])
  })

  it('keeps to maxRequestsPerSecond, and an abort ends the wait', async () => {
    const backup = await open({ maxRequestsPerSecond: 50, segmentBytes: pageSizeBytes, compaction: false })
    const started = performance.now()
    const { handles } = await backup.backupPages([randomPages(30)])
    // Five requests may come at once, and opening took some of them.
    expect(performance.now() - started).toBeGreaterThan(400)
    const controller = new AbortController()
    const memory = Buffer.alloc(30 * pageSizeBytes)
    const call = backup.copyPages(handles, [memory], { signal: controller.signal })
    setTimeout(() => controller.abort(), 50)
    expect((await call).error).toMatchObject({ code: 'EINTR' })
    await backup.close()
  })

  it('says EDQUOT with the service’s own words when its quota is used up, and has no room for a while', async () => {
    await target.server!.setQuota(20 * pageSizeBytes)
    // Two at a time, and two fit; the second may be overtaken by the third, and then is the one that does not.
    const segmentBytes = 8 * pageSizeBytes
    const backup = await open({ segmentBytes, bufferBytes: 2 * segmentBytes, lingerMs: 0 })
    const content = randomPages(40)
    const { handles, error } = await backup.backupPages([content])
    const kept = countOf(handles)
    expect([8, 16]).toContain(kept)
    expect(error).toMatchObject({ code: 'EDQUOT' })
    expect(error!.message).toContain('QuotaExceeded')
    expect(await backup.bytesAvailable()).toBe(0)
    expect((await read(backup, handles)).equals(content.subarray(0, kept * pageSizeBytes))).toBe(true)
    await backup.close()
  })

  it('metadata of 100,000 handles is at most 2.4 MB', async () => {
    const { SegmentTable, segmentObject } = await import('../src/segments/segment-table.ts')
    const { gc } = globalThis as { gc?: () => void }
    const held = () => {
      gc!()
      const { heapUsed, arrayBuffers } = process.memoryUsage()
      return heapUsed + arrayBuffers
    }
    const table = new SegmentTable(() => {})
    const before = held()
    for (let number = 1; number <= Math.ceil(100_000 / 2048); number++) {
      const checksums = new Uint32Array(2048)
      table.addWritten(segmentObject('scratch-1', number, 1, 2048, 2048 * 4100, checksums))
    }
    expect(held() - before).toBeLessThan(2_400_000)
    expect(table.livePages).toBeGreaterThanOrEqual(100_000)
  })
})
