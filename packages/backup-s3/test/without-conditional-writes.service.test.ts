/**
 * Services that do not honour `If-None-Match: *`: the embedded server in both ways to lack it, or with
 * `S3_CONDITIONAL_WRITES=0` the service that the tests run against.
 */
import { pageHttpHandler, S3Backup } from '@spillway/backup-s3'
import { hasConditionalWrites, s3Target } from '@spillway/test-s3-server'
import { describe, expect, it } from 'vitest'
import { openOn, randomPages, read } from './stores.ts'

const embedded = hasConditionalWrites()
const ways = embedded
  ? [
      ['ignores them', { ignoreConditionalPut: true }],
      ['refuses them', { refuseConditionalPut: true }],
    ]
  : [['runs here', {}]]

describe.each(ways)('a service without conditional writes that %s', (_, quirks) => {
  it.each([false, true])(
    'is told at open, with the advice, and nothing is left (persistent: %s)',
    async (persistent) => {
      await using target = await s3Target({ embedded, quirks: quirks as object })
      const { bucket } = target
      const prefix = target.prefix()
      const client = target.client({ requestHandler: pageHttpHandler() })
      const refused = S3Backup.open({ client, bucket, prefix, persistent, retryForMs: 5_000 })
      await expect(refused).rejects.toMatchObject({ code: 'ENOSYS' })
      await expect(refused).rejects.toThrow('conditionalWrites: false')
      expect(await target.list(prefix)).toEqual([])
    },
  )

  it('keeps scratch pages all the same, and nothing is left of them', async () => {
    await using target = await s3Target({ embedded, quirks: quirks as object })
    const prefix = target.prefix()
    const client = target.client({ requestHandler: pageHttpHandler() })
    const backup = await openOn(target, { client, prefix, conditionalWrites: false })
    const content = randomPages(300)
    const { handles, error } = await backup.backupPages([content])
    expect(error).toBeUndefined()
    expect((await read(backup, handles)).equals(content)).toBe(true)
    await backup.close()
    expect(await target.list(prefix)).toEqual([])
  })
})
