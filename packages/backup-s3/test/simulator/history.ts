/**
 * One history: processes that open, store, read, drop, close, are killed or put to sleep, and sweep, in an order that a
 * scheduler chooses, against a service whose answers it lets through, holds back or loses; and an oracle that knows what
 * must be true at any time.
 */

import { type Request, SimulatedService } from './simulated-service.ts'
import type { Random } from './virtual-host.ts'
import { fire, Process, settled, whenSettled, world } from './virtual-host.ts'

export const pageBytes = 4096

export type Step =
  | { readonly kind: 'open' | 'openScratch' }
  | { readonly kind: 'store'; readonly pages: number }
  | { readonly kind: 'drop' | 'dropAll' | 'read' | 'close' | 'kill' | 'idle' }
  | { readonly kind: 'sleep' | 'wait'; readonly milliseconds: number }
  | { readonly kind: 'sweep' | 'sweepStores' }

export interface Script {
  readonly name: string
  readonly steps: readonly Step[]
}

interface HandleRun {
  readonly first: number
  readonly count: number
}

/** What is used of a backup: the published interface, so that other builds can be run, too. */
export interface Backup {
  backupPages(spans: readonly Uint8Array[]): Promise<{ handles: readonly HandleRun[]; error?: Error }>
  copyPages(
    handles: readonly HandleRun[],
    spans: readonly Uint8Array[],
  ): Promise<{ copied: number; error?: Error }>
  drop(handles: readonly HandleRun[]): Promise<void>
  close(): Promise<void>
  liveHandles(): HandleRun[]
  retainOnly(handles: readonly HandleRun[]): Promise<number>
}

export interface BackupClass {
  open(options: object): Promise<Backup>
  sweepOrphans(options: object): Promise<unknown>
}

/** Chooses what happens next. */
export interface Scheduler {
  readonly random: Random
  /** One of `count` things; 0 is what would happen by itself. */
  choose(count: number): number
  /** What becomes of a request when it is its turn. */
  fate(request: Request): 'through' | 'held' | 'lost before' | 'lost after' | 'twice'
}

/** A page that was acknowledged. */
interface Page {
  readonly id: number
  readonly handle: number
  readonly scope: string
  state: 'live' | 'dropped'
}

export class Violation extends Error {}

export const leaseMs = 3000
/** Time after which whatever was held arrives, and nobody waits any more. */
const longMs = 400_000

class Actor {
  readonly process: Process
  readonly script: Script
  next = 0
  isBusy = false
  backup: Backup | undefined
  /** The persistent store, or its own. */
  scope = ''
  openedAt = -1
  isPersistent = false

  constructor(script: Script) {
    this.process = new Process(script.name)
    this.script = script
  }

  get isDone(): boolean {
    return this.process.isKilled || (!this.isBusy && this.next >= this.script.steps.length)
  }
}

export class History {
  readonly service = new SimulatedService()
  readonly log: string[] = []
  /** Whether every request is noted. */
  isVerbose = false
  readonly #classes: readonly BackupClass[]
  readonly #scheduler: Scheduler
  readonly #actors: Actor[]
  readonly #pages = new Map<string, Page>()
  #nextId = 1
  #steps = 0
  #opened = 0
  /** Handles of the persistent store may go since a sweep of stores has begun. */
  #storeMayBeSwept = false
  #violation: Violation | undefined

  constructor(classes: readonly BackupClass[], scripts: readonly Script[], scheduler: Scheduler) {
    this.#classes = classes
    this.#scheduler = scheduler
    this.#actors = scripts.map((script) => new Actor(script))
    world.now = 1_700_000_000_000
    world.random = scheduler.random
    world.immediates.length = 0
  }

  /** Runs it to its end. Throws a `Violation`. */
  async run(): Promise<void> {
    await this.#drive(() => this.#actors.every((actor) => actor.isDone))
    this.#check()
    await this.#finish()
    this.#check()
  }

  #check(): void {
    if (this.#violation !== undefined) throw this.#violation
  }

  #fail(text: string): void {
    this.#violation ??= new Violation(text)
  }

  #note(text: string): void {
    if (this.log.length < 2000)
      this.log.push(`${((world.now - 1_700_000_000_000) / 1000).toFixed(3)} ${text}`)
  }

  /** Lets things happen until all is done. */
  #drive(isOver: () => boolean): Promise<void> {
    return new Promise((resolve, reject) => {
      const turn = () => {
        try {
          if (this.#violation !== undefined || isOver()) {
            resolve()
            return
          }
          if (++this.#steps > 60_000) throw new Violation('the history does not end')
          this.#step()
          whenSettled(turn)
        } catch (error) {
          reject(error)
        }
      }
      whenSettled(turn)
    })
  }

  /** One thing happens. */
  #step(): void {
    const immediate = world.immediates.shift()
    if (immediate !== undefined) {
      world.current = immediate.process
      if (!immediate.process?.isKilled) immediate.callback()
      return
    }
    const events: (() => void)[] = []
    for (const request of this.service.requests) {
      if (request.heldUntil > world.now) continue
      if (request.state === 'sent') events.push(() => this.#travel(request))
      else if (!request.process.isAsleep) events.push(() => this.service.comeBack(request))
    }
    for (const { process } of this.#actors) {
      process.wake()
      if (process.isKilled || process.isAsleep) continue
      const timer = process.nextTimer
      if (timer !== undefined && timer.at <= process.now) events.push(() => fire(process, timer))
    }
    for (const actor of this.#actors) {
      const isReady = !actor.isBusy && !actor.isDone && !actor.process.isAsleep
      if (isReady) events.push(() => this.#begin(actor))
    }
    if (events.length > 0) events[this.#scheduler.choose(events.length)]!()
    else this.#passTime()
  }

  #travel(request: Request): void {
    const fate = this.#scheduler.fate(request)
    if (this.isVerbose)
      this.#note(
        `${request.process.name} ${request.verb} ${request.input.Key ?? request.input.Prefix ?? request.input.Delete?.Objects.map(({ Key }) => Key).join() ?? ''}`,
      )
    if (fate !== 'through')
      this.#note(`${request.process.name} ${request.verb} ${request.input.Key ?? ''}: ${fate}`)
    if (fate === 'held') {
      request.heldUntil = world.now + leaseMs * (0.5 + 3 * this.#scheduler.random())
      return
    }
    if (fate !== 'lost before') {
      this.service.arrive(request)
      if (fate === 'twice') this.service.arrive(request)
    }
    if (fate === 'lost before' || fate === 'lost after') this.service.breakOff(request)
  }

  /** Nothing can happen now: the time goes on to when something can. */
  #passTime(): void {
    let next = Number.POSITIVE_INFINITY
    for (const { heldUntil } of this.service.requests)
      if (heldUntil > world.now) next = Math.min(next, heldUntil)
    for (const { process } of this.#actors) {
      if (process.isKilled) continue
      if (process.isAsleep) next = Math.min(next, process.asleepUntil)
      else if (process.nextTimer !== undefined) next = Math.min(next, process.nextTimer.at + process.behindMs)
    }
    if (next === Number.POSITIVE_INFINITY) throw new Violation('nothing can happen any more')
    world.now = Math.max(world.now + 1, Math.ceil(next))
  }

  #begin(actor: Actor): void {
    const step = actor.script.steps[actor.next++]!
    const { process } = actor
    world.current = process
    if (step.kind === 'kill') {
      this.#note(`${process.name} is killed`)
      process.kill()
      actor.openedAt = -1
      // What it has sent may arrive yet.
      for (const request of this.service.requests) if (request.process === process) request.isWanted = false
      return
    }
    if (step.kind === 'sleep') {
      this.#note(`${process.name} sleeps ${step.milliseconds}`)
      process.sleep(step.milliseconds)
      return
    }
    actor.isBusy = true
    this.#perform(actor, step).then(
      () => {
        actor.isBusy = false
      },
      (error: Error) => {
        if (error instanceof Violation) this.#fail(error.message)
        else this.#note(`${process.name} ${step.kind} fails: ${error.message.slice(0, 150)}`)
        actor.isBusy = false
        // Who could not open has nothing to do.
        if (step.kind === 'open' || step.kind === 'openScratch') actor.next = actor.script.steps.length
      },
    )
  }

  async #perform(actor: Actor, step: Step): Promise<void> {
    const { process } = actor
    const backupClass = this.#classes[this.#actors.indexOf(actor)]!
    switch (step.kind) {
      case 'wait':
        await new Promise((resolve) => setTimeout(resolve, step.milliseconds))
        return
      case 'idle':
        await Promise.resolve()
        return
      case 'open':
      case 'openScratch': {
        actor.isPersistent = step.kind === 'open'
        const backup = await backupClass.open(this.#options(process, actor.isPersistent, actor.script))
        actor.backup = backup
        actor.scope = actor.isPersistent ? 'store' : `scratch of ${process.name}`
        actor.openedAt = ++this.#opened
        this.#note(`${process.name} has opened`)
        return
      }
      case 'sweep':
      case 'sweepStores': {
        const persistent = step.kind === 'sweepStores'
        if (persistent) this.#storeMayBeSwept = true
        const { persistent: _, ownerWaitMs, ...options } = this.#options(process, false, actor.script)
        await backupClass.sweepOrphans({ ...options, persistent })
        this.#note(`${process.name} has swept`)
        return
      }
    }
    const { backup } = actor
    if (backup === undefined) return
    if (step.kind === 'store') await this.#store(actor, backup, step.pages)
    else if (step.kind === 'drop') await this.#drop(actor, backup, this.#own(actor).slice(0, 1))
    else if (step.kind === 'dropAll') await this.#drop(actor, backup, this.#own(actor))
    else if (step.kind === 'read') await this.#read(actor, backup)
    else if (step.kind === 'close') {
      const { openedAt } = actor
      actor.openedAt = -1
      await backup.close()
      this.#note(`${process.name} (opened as ${openedAt}) has closed`)
    }
  }

  #options(process: Process, persistent: boolean, { name }: Script) {
    return {
      client: this.service.clientFor(process),
      bucket: 'bucket',
      prefix: 'p/',
      name,
      persistent,
      ownerWaitMs: 3 * leaseMs,
      leaseMs,
      segmentBytes: 2 * pageBytes,
      bufferBytes: 8 * pageBytes,
      lingerMs: 0,
      deleteDelayMs: 10,
      firstByteTimeoutMs: 1000,
      bodyTimeoutMs: 1000,
      retryForMs: 4000,
      retryBaseMs: 10,
      retryMaxMs: 500,
      hedgeShare: 0,
      compaction: { maxAmplification: 1, bytesPerSecond: 1e9 },
    }
  }

  async #store(actor: Actor, backup: Backup, pages: number): Promise<void> {
    const memory = Buffer.alloc(pages * pageBytes)
    const first = this.#nextId
    this.#nextId += pages
    for (let page = 0; page < pages; page++)
      memory.fill(tag(first + page), page * pageBytes, (page + 1) * pageBytes)
    const newer = this.#newerOwner(actor)
    const { handles, error } = await backup.backupPages([memory])
    let page = 0
    for (const run of handles) {
      for (let handle = run.first; handle < run.first + run.count; handle++, page++) {
        const key = `${actor.scope} ${handle}`
        if (this.#pages.has(key)) this.#fail(`handle ${handle} was given twice`)
        this.#pages.set(key, { id: first + page, handle, scope: actor.scope, state: 'live' })
      }
    }
    this.#note(`${actor.process.name} stored ${page} of ${pages} ${error?.message.slice(0, 120) ?? ''}`)
    // It began to store when somebody else had opened the store already.
    if (page > 0 && newer !== undefined) this.#fail(`${actor.process.name} and ${newer} own the store`)
  }

  /** Who has opened the store after this actor, and not left it. */
  #newerOwner(actor: Actor): string | undefined {
    if (!actor.isPersistent) return undefined
    return this.#actors.find(
      (other) => other.isPersistent && other.openedAt > actor.openedAt && actor.openedAt > 0,
    )?.process.name
  }

  #own(actor: Actor): Page[] {
    const live = new Set(
      actor
        .backup!.liveHandles()
        .flatMap(({ first, count }) => Array.from({ length: count }, (_, page) => first + page)),
    )
    return [...this.#pages.values()].filter(
      ({ scope, state, handle }) => scope === actor.scope && state === 'live' && live.has(handle),
    )
  }

  async #drop(_: Actor, backup: Backup, pages: readonly Page[]): Promise<void> {
    // Told to the oracle first: who is killed while dropping may have dropped.
    for (const page of pages) page.state = 'dropped'
    await backup.drop(pages.map(({ handle }) => ({ first: handle, count: 1 })))
  }

  /** Reads all pages of its store: each is what it was, or there is an error that says why not. */
  async #read(actor: Actor, backup: Backup): Promise<void> {
    const known = [...this.#pages.values()].filter(
      ({ scope, state }) => scope === actor.scope && state === 'live',
    )
    for (const page of known) {
      const failure = await this.#readPage(actor, backup, page)
      if (failure === undefined || page.state !== 'live') continue
      if (!['ESTALE', 'EBADMSG', 'ENOENT'].includes(failure)) continue
      if (actor.isPersistent && this.#storeMayBeSwept) continue
      // Whoever has lost the store may find that. Whoever can still store something has not lost it.
      const isOlder = this.#newerOwner(actor) !== undefined
      const { handles } = await backup.backupPages([Buffer.alloc(pageBytes)])
      if (handles.length > 0 && !isOlder && this.#newerOwner(actor) === undefined)
        this.#fail(`${actor.process.name} owns the store, and reads page ${page.id} with ${failure}`)
    }
  }

  async #readPage(actor: Actor, backup: Backup, page: Page): Promise<string | undefined> {
    const memory = Buffer.alloc(pageBytes)
    try {
      const { copied, error } = await backup.copyPages([{ first: page.handle, count: 1 }], [memory])
      if (copied === 0) return (error as { code?: string } | undefined)?.code ?? 'none'
    } catch (error) {
      return (error as { code?: string }).code ?? String(error)
    }
    if (!memory.equals(Buffer.alloc(pageBytes, tag(page.id))))
      this.#fail(`${actor.process.name} reads another page than ${page.id} for handle ${page.handle}`)
    return undefined
  }

  /** Everything that was on its way arrives, everybody is gone, and one last owner looks what is there. */
  async #finish(): Promise<void> {
    for (const { process } of this.#actors) process.kill()
    for (const request of [...this.service.requests]) {
      if (request.state === 'sent') this.service.arrive(request)
      this.service.forget(request)
    }
    world.immediates.length = 0
    await settled()
    world.now += longMs
    const script: Script = { name: 'last', steps: [] }
    const last = new Actor(script)
    this.#actors.push(last)
    const usesStore = this.#actors.some(({ script: { steps } }) => steps.some(({ kind }) => kind === 'open'))
    await this.#calmly(last, async () => {
      const backupClass = this.#classes[this.#classes.length - 1]!
      if (usesStore) {
        const backup = await backupClass.open(this.#options(last.process, true, script))
        await this.#verifyAll(last, backup)
        await backup.retainOnly([])
        await backup.close()
      }
      for (let round = 0; round < 2; round++) {
        const { persistent: _, ownerWaitMs, ...options } = this.#options(last.process, false, script)
        await backupClass.sweepOrphans(options)
        await new Promise((resolve) => setTimeout(resolve, longMs))
      }
    })
    this.#assertClean()
  }

  async #verifyAll(last: Actor, backup: Backup): Promise<void> {
    last.scope = 'store'
    const live = new Set(
      backup
        .liveHandles()
        .flatMap(({ first, count }) => Array.from({ length: count }, (_, page) => first + page)),
    )
    for (const page of this.#pages.values()) {
      if (page.scope !== 'store') continue
      const failure = await this.#readPage(last, backup, page)
      if (failure === undefined && !live.has(page.handle)) this.#fail(`page ${page.id} is read and not live`)
      if (failure === undefined || page.state === 'dropped') continue
      if (this.#storeMayBeSwept && failure === 'ESTALE') continue
      this.#fail(`page ${page.id} was acknowledged and is lost: ${failure}`)
    }
  }

  /** Runs work of one process without any fault. */
  async #calmly(actor: Actor, work: () => Promise<void>): Promise<void> {
    let isOver = false
    let failure: Error | undefined
    world.current = actor.process
    work().then(
      () => {
        isOver = true
      },
      (error: Error) => {
        failure = error
        isOver = true
      },
    )
    const { choose, fate } = this.#scheduler
    this.#scheduler.choose = () => 0
    this.#scheduler.fate = () => 'through'
    try {
      await this.#drive(() => isOver)
    } finally {
      this.#scheduler.choose = choose
      this.#scheduler.fate = fate
    }
    if (failure !== undefined) this.#fail(`the last owner fails: ${failure.message}`)
  }

  /** Nothing is left but what says that the store is empty. */
  #assertClean(): void {
    const left = [...this.service.objects.keys()]
    const manifests = left.filter((key) => /\/store-\d+\/m-\d+$/.test(key))
    const others = left.filter((key) => !/\/heads\/|\/store-\d+\/m-\d+$|\/leases\/store-\d+$/.test(key))
    if (others.length > 0) this.#fail(`left for ever: ${others.join(', ')}`)
    if (manifests.length > 2) this.#fail(`left for ever: ${manifests.join(', ')}`)
    if (left.length - manifests.length > 2) this.#fail(`left for ever: ${left.join(', ')}`)
  }
}

function tag(id: number): Buffer {
  const bytes = Buffer.alloc(8)
  bytes.writeUInt32LE(id)
  bytes.writeUInt32LE(Math.imul(id, 0x9e3779b1) >>> 0, 4)
  return bytes
}
