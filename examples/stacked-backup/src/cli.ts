import { S3Client } from '@aws-sdk/client-s3'
import { Pool } from '@spillway/pool'
import { openMedia, stackOf } from './stacked-backup.ts'

const [bucket, directory = '.', sizeMebibytes = '256'] = process.argv.slice(2)
if (bucket === undefined) throw new Error('usage: cli.ts BUCKET [DIRECTORY] [MEBIBYTES]')
const sizeBytes = Number(sizeMebibytes) * 2 ** 20

// Credentials, region and AWS_ENDPOINT_URL_S3 come from the environment.
const client = new S3Client({ forcePathStyle: process.env['AWS_ENDPOINT_URL_S3'] !== undefined })
const shmemBytes = sizeBytes / 8
const media = await openMedia({ shmemBytes, fileBytes: sizeBytes / 4, directory, client, bucket })
const { backup, tiers } = stackOf(media)
await using pool = new Pool({ limitBytes: Math.max(8 * 2 ** 20, sizeBytes / 8), backup })
const buffer = await pool.allocate(sizeBytes, { label: 'records' })
for (let offset = 0; offset < sizeBytes; offset += 2 ** 20) {
  await buffer.write(
    offset,
    new Uint8Array(2 ** 20).map((_, index) => (index * index) >> 9),
  )
}
const { error } = await buffer.backup()
if (error) throw error
console.log(tiers.stats().tiers)
await pool.close()
await backup.close()
