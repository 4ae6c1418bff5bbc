import { equal, rejects } from 'node:assert/strict'
import { once } from 'node:events'
import { createServer } from 'node:http'
import { S3Client } from '@aws-sdk/client-s3'
import { S3Backup } from '@spillway/backup-s3'

const server = createServer((request, response) => {
  request.resume()
  response.writeHead(404, { 'content-type': 'application/xml' })
  response.end(
    '<?xml version="1.0"?><Error><Code>NoSuchBucket</Code><Message>no such bucket</Message></Error>',
  )
}).listen(0, '127.0.0.1')
await once(server, 'listening')
const client = new S3Client({
  endpoint: `http://127.0.0.1:${server.address().port}`,
  region: 'us-east-1',
  forcePathStyle: true,
  maxAttempts: 1,
  credentials: { accessKeyId: 'key', secretAccessKey: 'secret' },
})
await rejects(S3Backup.open({ client, bucket: 'missing', prefix: 'pages' }), (error) => {
  equal(error.code, 'ENOENT')
  return true
})
client.destroy()
server.close()
server.closeAllConnections()
console.log('a missing bucket is ENOENT')
