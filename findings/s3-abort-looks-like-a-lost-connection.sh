#!/usr/bin/env bash
# s3-abort-looks-like-a-lost-connection.sh: whoever aborts reading an S3 object is told that the server hung up.
#
# client.send(command, { abortSignal }) of AWS's SDK ends with AbortError, and with the signal's reason as cause, while the answer has not
# begun. Most of a GET is the body, and there the same signal closes the socket, and what reads the body gets "aborted" with the code
# ECONNRESET and without the reason: to the letter what it gets when the server hangs up in the middle. That code is what one
# tries again after, and what a health check counts. fetch rejects with the reason of the signal at either time.
#
# Nothing of Spillway runs; the server is a few lines of node:http. Ends with 0 when it behaves as it did, with 1 when that has changed,
# with 77 where it cannot run.
# Seen with @aws-sdk/client-s3 3.1175.0 on Node 20.20 and 26.10 (Deno 2.9.6 and Bun 1.4.5 alike), 30 November 2026:
#   S3, aborted before the answer: AbortError, no code, Request aborted, cause enough
#   S3, aborted within the body: Error, code ECONNRESET, aborted, no cause
#   S3, the server hangs up: Error, code ECONNRESET, aborted, no cause
#   fetch, aborted before the answer: Error, no code, enough, no cause
#   fetch, aborted within the body: Error, no code, enough, no cause
set -u
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch" || exit 77
echo '{ "private": true, "type": "module" }' > package.json
npm install --no-audit --no-fund --silent @aws-sdk/client-s3@3.1175.0 || { echo 'cannot run: npm install'; exit 77; }
cat > try.mjs <<'PROGRAM'
import { once } from 'node:events'
import { createServer } from 'node:http'
import { GetObjectCommand, S3Client } from '@aws-sdk/client-s3'

let answers = true
const server = createServer((_, response) => {
  if (!answers) return
  response.writeHead(200, { 'content-length': '1000000', etag: '"1"' })
  response.write(Buffer.alloc(500_000))
}).listen(0, '127.0.0.1')
await once(server, 'listening')
const endpoint = `http://127.0.0.1:${server.address().port}`
const credentials = { accessKeyId: 'a', secretAccessKey: 'b' }
const client = new S3Client({ endpoint, region: 'us-east-1', forcePathStyle: true, credentials })

const through = {
  S3: (signal) => client.send(new GetObjectCommand({ Bucket: 'pages', Key: 'page' }), { abortSignal: signal }),
  fetch: (signal) => fetch(`${endpoint}/pages/page`, { signal }),
}
const told = ({ name, code, message, cause }) =>
  `${name}, ${code === undefined ? 'no code' : `code ${code}`}, ${message}, ${cause === undefined ? 'no cause' : `cause ${cause.message}`}`

async function look(client, what) {
  const controller = new AbortController()
  const stop = () => (what === 'the server hangs up' ? server.closeAllConnections() : controller.abort(new Error('enough')))
  answers = what !== 'aborted before the answer'
  const arrived = once(server, 'request')
  const answer = through[client](controller.signal)
  let reading = answer
  if (answers) {
    const { Body, body } = await answer
    const chunks = (Body ?? body)[Symbol.asyncIterator]()
    await chunks.next()
    reading = (async () => {
      while (!(await chunks.next()).done);
    })()
  } else await arrived
  const outcome = reading.then(() => 'all of it', told)
  setTimeout(stop, 100)
  console.log(`${client}, ${what}: ${await outcome}`)
}

await look('S3', 'aborted before the answer')
await look('S3', 'aborted within the body')
await look('S3', 'the server hangs up')
await look('fetch', 'aborted before the answer')
await look('fetch', 'aborted within the body')
server.close()
server.closeAllConnections()
PROGRAM
result=$(node --no-warnings try.mjs) || exit 1
echo "$result"
expected='S3, aborted before the answer: AbortError, no code, Request aborted, cause enough
S3, aborted within the body: Error, code ECONNRESET, aborted, no cause
S3, the server hangs up: Error, code ECONNRESET, aborted, no cause
fetch, aborted before the answer: Error, no code, enough, no cause
fetch, aborted within the body: Error, no code, enough, no cause'
[ "$result" = "$expected" ] && exit 0
echo 'this has changed'
exit 1
