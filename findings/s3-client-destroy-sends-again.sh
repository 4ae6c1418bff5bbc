#!/usr/bin/env bash
# s3-client-destroy-sends-again.sh: destroying the S3 client of AWS's SDK sends what is under way a second time.
#
# client.destroy() closes the sockets, those of requests under way too. The client takes that for a failure of the network and tries
# again, on a new socket that the destroyed client opens. So a call does not end with an error; it is made twice. A read just takes longer.
# A conditional write (If-None-Match: *), which the server had taken the first time, is refused the second: the caller is told that
# somebody else has the name, and it has it itself. The destroyed client goes on to serve later calls.
#
# Nothing of Spillway runs; the server is a few lines of node:http. Ends with 0 when it behaves as it did, with 1 when that has changed,
# with 77 where it cannot run.
# Seen with @aws-sdk/client-s3 3.1175.0 on Node 20.20 and 26.10, 30 November 2026:
#   read: content, sent 2 times; a later call is served
#   write of a new name: PreconditionFailed, sent 2 times; a later call is served
#   there is content
set -u
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch" || exit 77
echo '{ "private": true, "type": "module" }' > package.json
npm install --no-audit --no-fund --silent @aws-sdk/client-s3@3.1175.0 || { echo 'cannot run: npm install'; exit 77; }
cat > try.mjs <<'PROGRAM'
import { once } from 'node:events'
import { createServer } from 'node:http'
import { setTimeout as wait } from 'node:timers/promises'
import { GetObjectCommand, PutObjectCommand, S3Client } from '@aws-sdk/client-s3'

const objects = new Map([['there', 'content']])
let requests = 0
let answerAfter = () => wait(0)
const server = createServer(async (request, response) => {
  requests++
  const name = new URL(request.url, 'http://localhost').pathname.split('/').at(-1)
  let body = ''
  for await (const part of request) body += part
  const isTaken = request.method === 'PUT' && request.headers['if-none-match'] === '*' && objects.has(name)
  if (request.method === 'PUT' && !isTaken) objects.set(name, body)
  await answerAfter()
  if (isTaken) response.writeHead(412).end('<Error><Code>PreconditionFailed</Code></Error>')
  else response.writeHead(200, { etag: '"1"' }).end(request.method === 'GET' ? objects.get(name) : '')
}).listen(0, '127.0.0.1')
await once(server, 'listening')

async function look(what, command, read) {
  const client = new S3Client({
    endpoint: `http://127.0.0.1:${server.address().port}`,
    region: 'us-east-1',
    forcePathStyle: true,
    credentials: { accessKeyId: 'a', secretAccessKey: 'b' },
  })
  const before = requests
  const arrived = once(server, 'request')
  let release
  const held = new Promise((resolve) => (release = resolve))
  answerAfter = () => held
  const outcome = client.send(command).then(read, ({ name }) => name)
  await arrived
  await wait(200)
  client.destroy()
  answerAfter = () => wait(0)
  const told = await outcome
  release()
  const later = await client.send(new GetObjectCommand({ Bucket: 'pages', Key: 'there' })).then(() => 'served', ({ name }) => name)
  console.log(`${what}: ${told}, sent ${requests - before - 1} times; a later call is ${later}`)
  client.destroy()
}

await look('read', new GetObjectCommand({ Bucket: 'pages', Key: 'there' }), ({ Body }) => Body.transformToString())
const write = new PutObjectCommand({ Bucket: 'pages', Key: 'new', Body: 'content', IfNoneMatch: '*' })
await look('write of a new name', write, () => 'written')
console.log(`there is ${objects.get('new')}`)
server.close()
server.closeAllConnections()
PROGRAM
result=$(node --no-warnings try.mjs) || exit 1
echo "$result"
expected='read: content, sent 2 times; a later call is served
write of a new name: PreconditionFailed, sent 2 times; a later call is served
there is content'
[ "$result" = "$expected" ] && exit 0
echo 'this has changed'
exit 1
