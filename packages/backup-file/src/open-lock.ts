import { createServer, type Server } from 'node:net'
import { delay, nowMs, SpillwayError } from '@spillway/core'
import { codeOf } from './file-system.ts'

/**
 * Lets one opener at a time look at a name and sweep what a dead owner left: without it two openers could each find
 * the same dead file, and the second would unlink what the first just created.
 *
 * Within the process that is a queue, between processes a socket in Linux's abstract name space: the kernel gives it to one
 * and takes it back when that one dies. It is held while a name is opened, not longer.
 */
export async function withOpenLock<Result>(name: string, work: () => Promise<Result>): Promise<Result> {
  const previous = queue.get(name) ?? Promise.resolve()
  const turn = previous.then(async () => {
    const socket = await bind(name)
    try {
      return await work()
    } finally {
      await new Promise((resolve) => (socket === undefined ? resolve(undefined) : socket.close(resolve)))
    }
  })
  const settled = turn.then(
    () => {},
    () => {},
  )
  queue.set(name, settled)
  try {
    return await turn
  } finally {
    if (queue.get(name) === settled) queue.delete(name)
  }
}

const queue = new Map<string, Promise<void>>()
const patienceMs = 2000

async function bind(name: string): Promise<Server | undefined> {
  if (process.platform !== 'linux') return undefined
  for (const givenUpAt = nowMs() + patienceMs; ; ) {
    try {
      return await listen(`\0spillway-open-${name}`)
    } catch (failure) {
      // Where sockets are forbidden the queue has to do.
      if (codeOf(failure) !== 'EADDRINUSE') return undefined
    }
    if (nowMs() > givenUpAt) {
      throw new SpillwayError('EBUSY', `somebody else has been opening this file for ${patienceMs} ms`)
    }
    await delay(5)
  }
}

function listen(path: string): Promise<Server> {
  return new Promise((resolve, reject) => {
    const server = createServer((stranger) => stranger.destroy())
    server.once('error', reject)
    server.listen({ path, exclusive: true }, () => resolve(server))
  })
}
