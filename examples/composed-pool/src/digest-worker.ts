import { createHash } from 'node:crypto'
import { parentPort } from 'node:worker_threads'

const hash = createHash('sha256')

/** Takes memory to look at, in order, and then `undefined`; answers each time, in the end with the digest. */
parentPort!.on('message', (bytes: Uint8Array | undefined) => {
  if (bytes !== undefined) hash.update(bytes)
  parentPort!.postMessage(bytes === undefined ? hash.digest('hex') : '')
})
