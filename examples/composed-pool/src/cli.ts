import { S3Client } from '@aws-sdk/client-s3'
import { composePool, digestInThread } from './composed-pool.ts'

const [bucket, directory = '.', sizeMebibytes = '256', limitMebibytes = '64'] = process.argv.slice(2)
if (bucket === undefined)
  throw new Error('usage: cli.ts BUCKET [DIRECTORY] [MEBIBYTES OF EACH BUFFER] [OF MEMORY]')
const limitBytes = Number(limitMebibytes) * 2 ** 20
const sizeBytes = Number(sizeMebibytes) * 2 ** 20

// Credentials, region and AWS_ENDPOINT_URL_S3 come from the environment.
const client = new S3Client({ forcePathStyle: process.env['AWS_ENDPOINT_URL_S3'] !== undefined })
await using composed = await composePool({ limitBytes, directory, client, bucket })
const { pool, archive } = composed
const buffers = [
  await pool.allocate(sizeBytes, { label: 'frames' }),
  await pool.allocate(sizeBytes, { label: 'archive', backup: archive }),
]
for (const [index, buffer] of buffers.entries()) {
  const started = performance.now()
  await buffer.fill(index + 1)
  const filled = performance.now()
  const digest = await digestInThread(buffer)
  const times = { filledMs: filled - started, digestedMs: performance.now() - filled }
  console.log(buffer.label, digest, times)
}
console.log(String(pool.dump()))
