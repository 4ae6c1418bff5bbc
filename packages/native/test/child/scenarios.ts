/**
 * What a child process does to provoke a crash, one or more scenarios per run: `node --expose-gc scenarios.ts <seed> <name>…`.
 * The parent looks at the exit code. Natural ends are wanted where nothing else is said: that is where Node detaches
 * buffers and looks for handles that were left open.
 */
import { closeSync, constants, ftruncateSync, openSync, readFileSync, unlinkSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { isMainThread, MessageChannel, markAsUntransferable, Worker, workerData } from 'node:worker_threads'
import { allocate, createMemfd, Mapping, mappedAddress, Ring, systemPageBytes } from '../../src/index.ts'

const page = systemPageBytes()
const gc = globalThis.gc ?? (() => {})
const must = (holds: boolean, what: string) => {
  if (!holds) throw new Error(what)
}
const attempt = (work: () => unknown) => {
  try {
    return work()
  } catch (error) {
    return error
  }
}
const pause = (milliseconds = 0) => new Promise((resolve) => setTimeout(resolve, milliseconds))

function memfdMapping(pages: number): Mapping {
  const fd = createMemfd('scenario')
  ftruncateSync(fd, pages * page)
  allocate(fd, 0, pages * page)
  const mapping = Mapping.file(fd, { lengthBytes: pages * page })
  closeSync(fd)
  return mapping
}

function scratchFile(pages: number): number {
  const path = join(tmpdir(), `native-${process.pid}-${Math.random().toString(36).slice(2)}`)
  const fd = openSync(
    path,
    constants.O_RDWR | constants.O_CREAT | constants.O_EXCL | constants.O_DIRECT,
    0o600,
  )
  unlinkSync(path)
  allocate(fd, 0, pages * page)
  return fd
}

/** A descriptor that can be read from and written to, without anything to read yet. */
function emptyPipe(): number {
  const path = join(tmpdir(), `native-${process.pid}-${Math.random().toString(36).slice(2)}`)
  process.getBuiltinModule('node:child_process').execFileSync('mkfifo', [path])
  const fd = openSync(path, constants.O_RDWR)
  unlinkSync(path)
  return fd
}

/** Uses memory in every way that does not need the mapping. */
function touch(bytes: Uint8Array): void {
  bytes.fill(1)
  bytes.copyWithin(1, 0, bytes.length - 1)
  new DataView(bytes.buffer).setInt8(bytes.length - 1, 1)
  must(bytes[0] !== undefined, 'a view lost its memory')
}

const scenarios: Record<string, () => unknown> = {
  async 'views outlive everything'() {
    const views: Uint8Array[] = []
    for (const open of [() => Mapping.anonymous(4 * page), () => memfdMapping(4)]) {
      for (const closed of [false, true]) {
        let mapping: Mapping | undefined = open()
        const bytes = mapping.view(0, 4 * page)
        const part = mapping.view(page, 10)
        gc()
        touch(bytes)
        if (closed) mapping.close()
        mapping = undefined
        gc()
        await pause()
        gc()
        touch(bytes)
        touch(part)
        views.push(bytes, part)
      }
    }
    gc()
    for (const bytes of views) touch(bytes)
  },

  async 'mappings outlive views'() {
    const mapping = Mapping.anonymous(4 * page)
    for (let round = 0; round < 8; round++) {
      touch(mapping.view(0, 4 * page))
      gc()
      await pause()
    }
    must(mapping.view(0, 1)[0] === 1, 'memory changed')
    mapping.close()
    gc()
  },

  async 'buffers moved elsewhere'() {
    const kept: Uint8Array[] = []
    for (const work of [
      (buffer: ArrayBuffer) => buffer.transfer(),
      (buffer: ArrayBuffer) => buffer.transfer(page),
      (buffer: ArrayBuffer) => buffer.transferToFixedLength(),
      (buffer: ArrayBuffer) => structuredClone(buffer, { transfer: [buffer] }),
      (buffer: ArrayBuffer) => structuredClone(buffer),
      (buffer: ArrayBuffer) => {
        const { port1, port2 } = new MessageChannel()
        port1.on('message', (other) => kept.push(new Uint8Array(other)))
        try {
          port2.postMessage(buffer, [buffer])
        } finally {
          setTimeout(() => port1.close(), 10)
        }
      },
      (buffer: ArrayBuffer) => markAsUntransferable(buffer),
    ]) {
      for (const when of ['open', 'closed', 'between']) {
        const mapping = Mapping.anonymous(4 * page)
        const bytes = mapping.view(0, 4 * page)
        if (when === 'closed') mapping.close()
        const moved = attempt(() => work(bytes.buffer))
        gc()
        if (when === 'between') mapping.close()
        await pause()
        gc()
        // Node 22 lets a view be moved away; later ones refuse.
        if (!bytes.buffer.detached) bytes.fill(2)
        if (moved instanceof ArrayBuffer) kept.push(new Uint8Array(moved))
        must(mappedAddress(bytes) === undefined || when === 'open', 'a closed mapping has an address')
        mapping.close()
      }
    }
    await pause(30)
    gc()
    for (const bytes of kept) touch(bytes)
  },

  async 'closed while a ring works in it'() {
    const fd = scratchFile(256)
    for (let round = 0; round < 6; round++) {
      const ring = Ring.open({ entries: 8 })
      const mapping = Mapping.anonymous(64 * page)
      const bytes = mapping.view(0, 64 * page)
      const moved = Array.from({ length: 64 }, (_, index) => {
        const span = bytes.subarray(index * page, (index + 1) * page)
        return index % 2 === 0 ? ring.read(fd, span, index * page) : ring.write(fd, span, index * page)
      })
      if (round % 2 === 0) await pause()
      mapping.close()
      gc()
      touch(bytes)
      const closed = round % 3 === 0 ? ring.close() : undefined
      must(
        (await Promise.all(moved)).every((bytesMoved) => bytesMoved === page),
        'a request came back short',
      )
      bytes.fill(0)
      await closed
      await ring.close()
    }
  },

  'ended by exit while a ring works'() {
    const { bytes, ring, fd } = busyRing()
    process.on('exit', () => touch(bytes))
    ring.read(fd, bytes.subarray(0, page), 0)
    setImmediate(() => process.exit(0))
  },

  'ended by an exception while a ring works'() {
    process.on('uncaughtException', () => process.exit(0))
    busyRing()
    setTimeout(() => {
      throw new Error('wanted')
    }, 2)
  },

  'rings never closed'() {
    for (let index = 0; index < 5; index++) Ring.open({ entries: 4 })
    gc()
  },

  async 'rings never closed, after work'() {
    const mapping = Mapping.anonymous(page)
    const fd = scratchFile(1)
    for (let index = 0; index < 5; index++) await Ring.open({ entries: 4 }).read(fd, mapping.view(0, page), 0)
    gc()
  },

  async 'several workers'() {
    const mapping = Mapping.anonymous(page)
    const bytes = mapping.view(0, page)
    const codes = await Promise.all(
      ['ends', 'ends', 'exits', 'exits with a ring at work', 'leaves a ring'].map(
        (how) =>
          new Promise<number>((resolve, reject) => {
            const worker = new Worker(new URL(import.meta.url), { workerData: { how, bytes } })
            worker.on('error', reject)
            worker.on('exit', resolve)
          }),
      ),
    )
    must(codes.join() === '0,0,3,3,0', `workers ended with ${codes.join()}`)
    touch(bytes)
    mapping.close()
    touch(bytes)
  },

  async 'what a worker leaves open'() {
    const resident = () =>
      Number(/RssAnon:\s+(\d+)/.exec(readFileSync('/proc/self/status', 'latin1'))?.[1]) * 1024
    const before = resident()
    for (let round = 0; round < 3; round++) {
      const worker = new Worker(new URL(import.meta.url), { workerData: { how: 'leaves memory' } })
      await new Promise((resolve) => worker.once('exit', resolve))
    }
    must(resident() - before < 60 * 2 ** 20, `${resident() - before} bytes stayed`)
  },

  async 'workers terminated at any time'() {
    for (let delay = 0; delay < 28; delay += 7) {
      const worker = new Worker(new URL(import.meta.url), { workerData: { how: 'never ends' } })
      if (delay > 8) await new Promise((resolve) => worker.once('message', resolve))
      await pause(delay % 7)
      await worker.terminate()
      gc()
    }
  },

  'thousands of mappings opened and closed'() {
    const entries = () => readFileSync('/proc/self/maps', 'latin1').split('\n').length
    const before = entries()
    const stale: Uint8Array[] = []
    for (let round = 0; round < 2000; round++) {
      const mapping =
        round % 2 === 0 ? Mapping.anonymous(64 * page, { hugePages: round % 4 === 0 }) : memfdMapping(2)
      const bytes = mapping.view(page, page)
      bytes[0] = 1
      if (round % 100 === 0) stale.push(bytes)
      mapping.close()
    }
    must(entries() - before < 100, `${entries() - before} more entries in the kernel's table`)
    for (const bytes of stale) touch(bytes)
  },

  async 'a random history'() {
    await randomHistory(Number(process.argv[2]))
  },
}

/** A ring with requests in the kernel: some on a disk, some that never end. */
function busyRing() {
  const ring = Ring.open({ entries: 16 })
  const mapping = Mapping.anonymous(64 * page)
  const bytes = mapping.view(0, 64 * page)
  const fd = scratchFile(64)
  const pipe = emptyPipe()
  for (let index = 0; index < 40; index++) {
    ring.read(index < 36 ? fd : pipe, bytes.subarray(index * page, (index + 1) * page), 0).catch(() => {})
  }
  return { ring, bytes, fd }
}

async function randomHistory(seed: number): Promise<void> {
  let state = seed >>> 0
  const below = (limit: number) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return Math.floor((state / 2 ** 32) * limit)
  }
  const mappings: Mapping[] = []
  const views: Uint8Array[] = []
  const rings: Ring[] = []
  const pending: Promise<unknown>[] = []
  const fd = scratchFile(64)
  const pick = <Item>(items: Item[]): Item | undefined => items[below(items.length)]
  const steps: (() => unknown)[] = [
    () => mappings.push(Mapping.anonymous((1 + below(600)) * page, { hugePages: below(2) === 0 })),
    () => mappings.push(memfdMapping(1 + below(16))),
    () => {
      const mapping = pick(mappings)
      const offset = below(mapping?.lengthBytes ?? 1)
      if (mapping) views.push(mapping.view(offset, 1 + below(mapping.lengthBytes - offset)))
    },
    () => pick(views)?.fill(below(256)),
    () => pick(views)?.set(pick(views)?.subarray(0, 1) ?? []),
    () => pick(mappings)?.giveBack(below(4) * page, page),
    () => pick(mappings)?.remove(below(4) * page, page),
    () => pick(mappings)?.close(),
    () => mappings.splice(below(mappings.length), 1),
    () => views.splice(below(views.length), 1),
    () => {
      const bytes = pick(views)
      if (bytes) views.push(new Uint8Array((bytes.buffer as ArrayBuffer).transfer()))
    },
    () => rings.length < 4 && rings.push(Ring.open({ entries: 1 + below(8) })),
    () => {
      const bytes = pick(views)
      const ring = pick(rings)
      for (let count = below(12); bytes && ring && count > 0; count--) {
        const moved = below(2) === 0 ? ring.read(fd, bytes, below(64) * page) : ring.write(fd, bytes, 0)
        pending.push(moved.catch(() => {}))
      }
    },
    () => {
      pending.push(rings.splice(below(rings.length), 1)[0]?.close() ?? Promise.resolve())
    },
    () => pause(),
    () => gc(),
  ]
  for (let step = 0; step < 600; step++) {
    const result = attempt(() => pick(steps)?.())
    if (result instanceof Promise) await result
  }
  for (const ring of rings) pending.push(ring.close())
  await Promise.all(pending)
  for (const bytes of views) attempt(() => bytes.fill(1))
  gc()
}

async function beWorker(how: string): Promise<void> {
  const mapping = Mapping.anonymous(16 * page)
  const bytes = mapping.view(0, 16 * page)
  touch(bytes)
  process.on('exit', () => touch(bytes))
  if (how === 'ends') {
    const ring = Ring.open({ entries: 4 })
    must((await ring.write(scratchFile(16), bytes, 0)) === bytes.length, 'a request came back short')
    await ring.close()
  } else if (how === 'exits') {
    process.exit(3)
  } else if (how === 'exits with a ring at work') {
    busyRing()
    setTimeout(() => process.exit(3), 2)
  } else if (how === 'leaves memory') {
    touch(Mapping.anonymous(64 * 2 ** 20).view(0, 64 * 2 ** 20))
  } else if (how === 'leaves a ring') {
    must((await Ring.open({ entries: 4 }).write(scratchFile(16), bytes, 0)) === bytes.length, 'short')
  } else {
    const { parentPort } = await import('node:worker_threads')
    busyRing()
    parentPort?.postMessage('ready')
    setInterval(() => touch(bytes), 1)
  }
}

if (isMainThread) {
  for (const name of process.argv.slice(3)) {
    await (scenarios[name] as () => unknown)()
    writeSync(1, `${name}: done\n`)
  }
} else {
  await beWorker(workerData.how)
}
