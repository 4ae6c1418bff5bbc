import type { ErrorCode, FaultMethod, FaultStop } from '@spillway/core'
import type { Advice, PagedBuffer, TransferResult } from '../../src/index.ts'
import { page, pattern } from '../support/bytes.ts'
import type { Random } from '../support/random.ts'
import { comparePin, holdPin, isPending, releasePin, writePin } from './pins.ts'
import { memories, providerOf, type Subject, type World } from './world.ts'

/** One call on the pool or a buffer, with everything it does drawn from `random`. */
export type Operation = (world: World, random: Random) => Promise<void>

const noise = pattern(64 * page, 7)

export const operations: Readonly<Record<string, Operation>> = {
  async allocate(world, random) {
    if (world.subjects.length >= 5) return
    const sizeBytes = random.below(8) === 0 ? random.below(page) : random.below(34 * page) + 1
    const which = [0, 0, 0, 1, 1, 2][random.below(6)]!
    await world.allocate(sizeBytes, which, random.below(5), random.below(4))
  },

  async write(world, random) {
    const range = pickRange(world, random)
    if (range === undefined || !world.use(range.subject, 'changes')) return
    const bytes = noiseOf(random, range.length)
    const retryMayFail = isImpatient(random)
    await change(world, range, bytes, random, (signal) =>
      range.subject.buffer.write(range.offset, bytes, { signal, retryMayFail }),
    )
  },

  async fill(world, random) {
    const range = pickRange(world, random)
    if (range === undefined || !world.use(range.subject, 'changes')) return
    const { subject, offset, length } = range
    const value = random.below(256)
    const retryMayFail = isImpatient(random)
    await change(world, range, new Uint8Array(length).fill(value), random, (signal) =>
      subject.buffer.fill(value, { offset, length, signal, retryMayFail }),
    )
  },

  async copy(world, random) {
    const from = pickRange(world, random)
    const to = pickRange(world, random)
    if (from === undefined || to === undefined) return
    const length = Math.min(from.length, to.length)
    if (!world.use(from.subject, 'changes')) return
    if (to.subject !== from.subject && !world.use(to.subject, 'changes')) return
    // What may have been purged has no known content to copy.
    if (from.subject.mayBePurged) return
    const bytes = from.subject.oracle.slice(from.offset, from.offset + length)
    const retryMayFail = isImpatient(random)
    await change(world, { ...to, length, source: from }, bytes, random, (signal) =>
      from.subject.buffer.copyTo(to.subject.buffer, {
        offset: from.offset,
        length,
        targetOffset: to.offset,
        signal,
        retryMayFail,
      }),
    )
  },

  async read(world, random) {
    const range = pickRange(world, random)
    if (range === undefined) return
    const { subject, offset, length } = range
    const known = world.use(subject, 'reads')
    const found = new Uint8Array(length).fill(0xee)
    const retryMayFail = isImpatient(random)
    const { error } = await world.attempt(
      (signal) => subject.buffer.read(offset, found, { signal, retryMayFail }),
      abortTicks(random),
    )
    if (error === undefined && known) world.compare(subject, offset, found)
  },

  async readable(world, random) {
    const range = pickRange(world, random)
    if (range === undefined) return
    const { subject, offset, length } = range
    const known = world.use(subject, 'reads')
    const pieceBytes = [1000, page, 5 * page, 64 * page][random.below(4)]!
    const retryMayFail = isImpatient(random)
    const { value } = await world.attempt(
      (signal) => bytesOf(subject.buffer, { offset, length, pieceBytes, retryMayFail, signal }),
      abortTicks(random),
    )
    if (value === undefined) return
    if (value.byteLength !== length) throw new Error(`a stream of ${length} bytes has ${value.byteLength}`)
    if (known) world.compare(subject, offset, value)
  },

  async writable(world, random) {
    const range = pickRange(world, random)
    if (range === undefined || !world.use(range.subject, 'changes')) return
    const bytes = noiseOf(random, range.length)
    const pieceBytes = [1000, page, 5 * page, 64 * page][random.below(4)]!
    const retryMayFail = isImpatient(random)
    const { subject, offset, length } = range
    await change(world, range, bytes, random, async (signal) => {
      const writer = subject.buffer.writable({ offset, length, signal, retryMayFail }).getWriter()
      // A stream that failed tells all who ask.
      writer.closed.catch(() => {})
      writer.ready.catch(() => {})
      for (let done = 0; done < length; done += pieceBytes) {
        await writer.write(bytes.subarray(done, done + pieceBytes))
      }
      await writer.close()
    })
  },

  async readAll(world, random) {
    const subject = pick(world, random)
    if (subject === undefined) return
    const known = world.use(subject, 'reads')
    const found = new Uint8Array(subject.oracle.byteLength).fill(0xee)
    const { error } = await world.attempt((signal) => subject.buffer.read(0, found, { signal }))
    if (error === undefined && known) world.compare(subject, 0, found)
  },

  async pin(world, random) {
    const range = pickRange(world, random)
    if (range === undefined || range.subject.pins.length >= 3) return
    const { subject, offset, length } = range
    const write = random.below(2) === 0
    const known = world.use(subject, write ? 'changes' : 'reads')
    if (write && !known) return
    const retryMayFail = isImpatient(random)
    const { value: pin } = await world.attempt(
      (signal) => subject.buffer.pin({ offset, length, write, signal, retryMayFail }),
      abortTicks(random),
    )
    if (pin !== undefined) holdPin(world, subject, pin, offset, length, known)
  },

  async tryPin(world, random) {
    const range = pickRange(world, random)
    if (range === undefined || world.grouped) return
    const { subject, offset, length } = range
    const pin = subject.buffer.tryPin({ offset, length })
    if (pin === undefined) return
    comparePin(world, subject, { pin, offset, length, copy: undefined })
    pin.release()
  },

  async writePinned(world, random) {
    const subject = pickPinned(world, random)
    if (subject === undefined || !world.use(subject, 'changes')) return
    const held = subject.pins[random.below(subject.pins.length)]!
    comparePin(world, subject, held)
    if (held.pin.write) writePin(subject, held, (length) => noiseOf(random, length))
  },

  async unpin(world, random) {
    const subject = pickPinned(world, random)
    if (subject === undefined) return
    const index = random.below(subject.pins.length)
    const held = subject.pins[index]!
    // In debug mode others see what was written now.
    const pending = isPending(held)
    const known = world.use(subject, pending ? 'changes' : 'reads')
    if (pending && !known) return
    subject.pins.splice(index, 1)
    if (known) comparePin(world, subject, held)
    releasePin(subject, held)
  },

  async backup(world, random) {
    const subject = pick(world, random)
    if (subject === undefined) return
    const atomic = random.below(3) === 0
    const writeback = random.below(2) === 0
    const retryMayFail = isImpatient(random)
    const resident = subject.buffer.residentBytes
    const alone = world.isAlone
    if (subject.backup === undefined) {
      const refused = await subject.buffer.backup().catch((failure) => failure.code)
      if (refused === 'EBADF' && world.closing) return
      if (refused !== 'EINVAL') throw new Error('T34: a backup without a backup')
      return
    }
    const { value } = await world.attempt(
      (signal) => subject.buffer.backup({ atomic, writeback, signal, retryMayFail }),
      abortTicks(random),
    )
    if (value === undefined || !alone) return
    assertPages(value, (resident - subject.buffer.residentBytes) / page)
    if (value.error === undefined) {
      if (subject.buffer.residentBytes !== 0) throw new Error('T39: pages are left after a full backup')
    } else if (atomic && subject.buffer.residentBytes !== resident) {
      throw new Error('T63: pages left although not all could')
    }
  },

  async restore(world, random) {
    const subject = pick(world, random)
    if (subject === undefined) return
    const backedUp = subject.buffer.backedUpBytes
    const alone = world.isAlone
    const retryMayFail = isImpatient(random)
    const { value } = await world.attempt(
      (signal) => subject.buffer.restore({ signal, retryMayFail }),
      abortTicks(random),
    )
    if (value === undefined || !alone || value.error !== undefined) return
    if (value.pages * page < backedUp - subject.buffer.backedUpBytes)
      throw new Error(`T41: ${value.pages} pages restored, ${backedUp} bytes were stored`)
    if (subject.buffer.backedUpBytes !== 0) throw new Error('T13: handles are left after a full restore')
  },

  async purge(world, random) {
    const subject = pick(world, random)
    if (subject === undefined || !world.use(subject, 'changes')) return
    const { offset, length } = random.below(2) === 0 ? pickPages(subject, random) : wholeOf(subject)
    const { error } = await world.attempt(() => subject.buffer.purge({ offset, length }))
    if (error !== undefined) {
      if (subject.pins.length === 0 && !world.grouped) throw error
      // Somebody pinned it while it was being purged: a part is gone.
      const wasPurgeable = subject.mayBePurged
      subject.mayBePurged = true
      const found = await world.readBack(subject, offset, length)
      if (!subject.freed) world.compare(subject, offset, found, true)
      subject.mayBePurged = wasPurgeable
      return
    }
    subject.oracle.fill(0, offset, offset + length)
  },

  async free(world, random) {
    const subject = pick(world, random)
    if (subject === undefined || subject.pins.length > 0 || !world.use(subject, 'changes')) return
    subject.freed = true
    world.subjects = world.subjects.filter((other) => other !== subject)
    await world.ends('free', subject.buffer.free())
    if (subject.buffer.residentBytes + subject.buffer.backedUpBytes > 0)
      throw new Error('T50: not all is given up')
  },

  async shrink(world, random) {
    const before = world.residentBytes
    const pool = world.pools[random.below(world.pools.length)]!
    const wanted = random.below(world.options.limitPages + 1) * page
    const { value } = await world.attempt(() => pool.shrink(wanted))
    if (value === undefined || world.grouped) return
    const given = before - world.residentBytes
    if (given < 0) throw new Error('T29: there is more memory after a shrink')
  },

  async setLimit(world, random) {
    const least = Math.max(2 ** world.options.maxOrder, world.minPages)
    const limitPages = least + random.below(2 * world.options.limitPages)
    const { error } = await world.attempt(
      (signal) => world.setLimit(limitPages * page, signal),
      abortTicks(random),
    )
    if (
      error === undefined &&
      !world.grouped &&
      world.pools.some(({ limitBytes }) => limitBytes !== limitPages * page)
    )
      throw new Error('T28: the limit is not what was set')
  },

  async faults(world, random) {
    const method = faultMethods[random.below(faultMethods.length)]!
    const code = codes[random.below(codes.length)]!
    const stop = stops[random.below(stops.length)] ?? random.below(20)
    const rare = random.below(2) === 0
    world.faulty = true
    world.backups[random.below(2)]!.inject(
      rare
        ? { method, code, stop, times: 1 + random.below(4) }
        : { method, code, stop, every: 1 + random.below(4), times: 40 },
    )
  },

  async heal(world) {
    world.heal()
  },

  async advise(world, random) {
    const subject = pick(world, random)
    if (subject === undefined || world.grouped) return
    const advice = advices[random.below(advices.length)]!
    subject.buffer.advise(advice, pickPages(subject, random))
    if (advice === 'purgeable') {
      subject.mayBePurged = true
    } else if (subject.mayBePurged && advice !== 'willneed' && advice !== 'dontneed') {
      world.compare(subject, 0, await world.readBack(subject, 0, subject.oracle.byteLength))
      if (!subject.freed) subject.mayBePurged = false
    }
  },

  async setProvider(world, random) {
    if (world.providers.length >= 4) return
    // Native memory only where the history has it already: not every machine does.
    const kinds = memories.filter((memory) => memory !== 'mmap' || memory === world.options.memory)
    const provider = providerOf(kinds[random.below(kinds.length)]!)
    if (world.pools.length > 1) {
      const refused = await world.pool.setProvider(provider).catch((failure) => failure.code)
      if (refused !== 'EBUSY') throw new Error('the provider of a memory that two pools have was changed')
      return
    }
    if (random.below(5) === 0) {
      provider.probe = () => Promise.resolve(false)
      const refused = await world.pool.setProvider(provider).catch((failure) => failure.code)
      if (refused !== 'ENOSYS') throw new Error('T81: a provider that does not work is taken')
      return
    }
    world.providers.push(provider)
    await world.ends('setProvider', world.pool.setProvider(provider))
  },

  async providerFaults(world, random) {
    const provider = world.providers[random.below(world.providers.length)]!
    const refusal = refusals[random.below(refusals.length)]!
    let left = 1 + random.below(4)
    world.faulty = true
    provider[refusal] = () => left-- > 0
  },

  async setBackup(world, random) {
    const subject = pick(world, random)
    // While others store it or bring it in, it may be refused or not.
    if (subject === undefined || world.grouped) return
    const next = random.below(3) === 0 ? undefined : world.backups[random.below(2)]
    const stored = subject.buffer.backedUpBytes
    const refusal = await world.ends(
      'setBackup',
      subject.buffer.setBackup(next).catch((failure) => failure.code),
    )
    if (refusal === undefined) {
      if (stored > 0 && next !== subject.backup) throw new Error('T55: pages are left in the former backup')
      subject.backup = next
    } else if (refusal !== 'EBUSY') {
      throw new Error(`T85: setBackup is refused with ${refusal}`)
    }
  },

  async reopen(world, random) {
    if (world.grouped || random.below(6) > 0) return
    await world.reopen()
  },
}

/** How often each is drawn. */
export const weights: Readonly<Record<keyof typeof operations, number>> = {
  allocate: 6,
  write: 16,
  fill: 3,
  copy: 4,
  read: 12,
  readAll: 3,
  readable: 3,
  writable: 3,
  pin: 8,
  tryPin: 3,
  writePinned: 4,
  unpin: 7,
  backup: 9,
  restore: 8,
  purge: 3,
  free: 4,
  shrink: 5,
  setLimit: 3,
  faults: 4,
  heal: 3,
  advise: 4,
  setProvider: 1,
  providerFaults: 1,
  setBackup: 2,
  reopen: 1,
}

const faultMethods: readonly FaultMethod[] = [
  'backupPages',
  'backupPages',
  'copyPages',
  'copyPages',
  'bytesAvailable',
  'drop',
]
const codes: readonly ErrorCode[] = ['EIO', 'ENOSPC', 'ENOMEM', 'EINTR', 'EBADMSG', 'ETIMEDOUT', 'EAGAIN']
const stops: readonly FaultStop[] = [0, 'half', 'first of chunk', 'half of chunk', 1, 2, 5, 11]
const advices: readonly Advice[] = [
  'normal',
  'normal',
  'random',
  'sequential',
  'willneed',
  'dontneed',
  'purgeable',
]

const refusals = [
  'refuseGet',
  'refusePut',
  'refuseRelease',
  'refuseMap',
  'refuseUnmap',
  'refuseCaching',
] as const

interface Range {
  readonly subject: Subject
  readonly offset: number
  readonly length: number
}

function pick(world: World, random: Random): Subject | undefined {
  return world.subjects[random.below(Math.max(1, world.subjects.length))]
}

function pickPinned(world: World, random: Random): Subject | undefined {
  const pinned = world.subjects.filter(({ pins }) => pins.length > 0)
  return pinned[random.below(Math.max(1, pinned.length))]
}

/** Any bytes, whole pages, or all of a buffer. */
function pickRange(world: World, random: Random): Range | undefined {
  const subject = pick(world, random)
  if (subject === undefined) return undefined
  const { byteLength } = subject.oracle
  const unit = random.below(2) === 0 ? page : 1
  const offset = random.below(Math.floor(byteLength / unit) + 1) * unit
  const most = Math.min(byteLength - offset, [page, 3 * page, 12 * page, byteLength][random.below(4)]!)
  const length = random.below(4) === 0 ? most : random.below(Math.floor(most / unit) + 1) * unit
  return { subject, offset, length: Math.min(most, length) }
}

function wholeOf({ oracle }: Subject): { offset: number; length: number } {
  return { offset: 0, length: oracle.byteLength }
}

/** Whole pages of a buffer, none at times; its end is the end of a page. */
function pickPages({ oracle }: Subject, random: Random): { offset: number; length: number } {
  const pageCount = Math.ceil(oracle.byteLength / page)
  const first = random.below(Math.max(1, pageCount))
  const end = first + random.below(pageCount - first + 1)
  return { offset: first * page, length: Math.min(end * page, oracle.byteLength) - first * page }
}

async function bytesOf(
  buffer: PagedBuffer,
  options: Parameters<PagedBuffer['readable']>[0],
): Promise<Uint8Array> {
  const pieces: Uint8Array[] = []
  for await (const piece of buffer.readable(options)) pieces.push(piece)
  return Buffer.concat(pieces)
}

/** Whether a call would rather fail than wait for a backup. */
function isImpatient(random: Random): boolean | undefined {
  return random.below(6) === 0 ? true : undefined
}

function noiseOf(random: Random, length: number): Uint8Array {
  const offset = random.below(noise.byteLength - length + 1)
  return noise.subarray(offset, offset + length)
}

function abortTicks(random: Random): number {
  return random.below(12) === 0 ? random.below(25) : -1
}

/** Makes a change; when it fails, each byte is the old or the new one. */
async function change(
  world: World,
  { subject, offset, length, source }: Range & { readonly source?: Range },
  bytes: Uint8Array,
  random: Random,
  call: (signal: AbortSignal | undefined) => Promise<void>,
): Promise<void> {
  const { error } = await world.attempt(call, abortTicks(random))
  // A pin that was released beside the call may have written before it or after it, also to what was copied.
  const isOpen = [subject, source?.subject].some((each) => each !== undefined && world.isChangedAmid(each))
  if (error === undefined && !isOpen) {
    subject.oracle.set(bytes, offset)
    return
  }
  const found = await world.readBackQuietly(subject, offset, length)
  if (subject.freed) return
  const before = subject.oracle.subarray(offset, offset + length)
  for (let index = 0; index < length; index++) {
    const byte = found[index]
    if (byte === bytes[index] || byte === before[index] || (subject.mayBePurged && byte === 0)) continue
    if (source !== undefined && byte === source.subject.oracle[source.offset + index]) continue
    throw new Error(`I1: byte ${offset + index} of a write is neither the old nor the new one`)
  }
  before.set(found)
}

function assertPages({ pages }: TransferResult, left: number): void {
  if (pages !== left) throw new Error(`T32: ${pages} pages reported, ${left} left memory`)
}
