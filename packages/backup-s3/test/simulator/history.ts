/**
 * One history: processes that open, store, read, drop, close, are killed or stand still, and sweep, in an order that a
 * scheduler chooses, against a service whose answers it lets through, holds back or loses; and an oracle that knows what
 * must be true at any time.
 */

import { type Backup, handlesOf, Oracle, type Page, pageBytes, Violation } from './oracle.ts'
import { type Fate, type Interruption, type Request, SimulatedService } from './simulated-service.ts'
import { fire, Process, type Random, settled, whenSettled, world } from './virtual-host.ts'

export type Step =
  | { readonly kind: 'open' | 'openScratch'; readonly abortAfter?: number }
  | { readonly kind: 'storeAborted'; readonly pages: number; readonly abortAfter: number }
  | { readonly kind: 'jump' | 'setClock'; readonly milliseconds: number }
  | { readonly kind: 'ownSweep' | 'sweepAborted'; readonly abortAfter?: number }
  | { readonly kind: 'undeletable' | 'deletable' }
  | { readonly kind: 'store'; readonly pages: number }
  | { readonly kind: 'drop' | 'dropAll' | 'retainFirst' | 'read' | 'close' | 'kill' | 'idle' }
  | { readonly kind: 'stop' | 'sleep' | 'wait'; readonly milliseconds: number }
  | { readonly kind: 'sweep' | 'sweepStores' }
  | { readonly kind: 'together'; readonly steps: readonly Step[] }

export interface Script {
  readonly name: string
  readonly steps: readonly Step[]
}

export interface BackupClass {
  open(options: object): Promise<Backup>
  sweepOrphans(options: object): Promise<unknown>
}

/** Chooses what happens next. */
export interface Scheduler {
  readonly random: Random
  /** How early the `Date` of an answer may be, in milliseconds: not more than the margin of a lease. */
  readonly earlyMs: number
  /** Which of `count` processes goes on; 0 is the one that went on last, if it can. */
  process(count: number): number
  /** Which of `count` things that may happen to it; 0 is what comes by itself. */
  event(count: number): number
  /** What becomes of a request when it is its turn. */
  fate(): Fate
  /** What its process does before an answer reaches it. */
  interruption(): Interruption
  /** For how long a request is held, or a process stands still. */
  pauseMs(): number
}

/** The usual lease. Times of steps and pauses are given for it, and grow with it. */
export const leaseMs = 3000
/** Time after which whatever was held arrives, and nobody waits any more. */
const longMs = 400_000
const startMs = 1_700_000_000_000
const mostSteps = 60_000

class Actor {
  readonly process: Process
  readonly script: Script
  readonly backupClass: BackupClass
  next = 0
  isBusy = false
  backup: Backup | undefined
  /** The persistent store, or its own. */
  scope = ''
  /** Whether it has the store, as far as it knows. */
  isOwner = false
  /** Orders owners of a store: by when they claimed it. */
  epoch = ''
  isPersistent = false
  /** What ends its call after so many requests. */
  aborts: { controller: AbortController; left: number }[] = []
  /** Handles that were in the store when it opened that. */
  found: ReadonlySet<number> = new Set()

  constructor(script: Script, backupClass: BackupClass) {
    this.process = new Process(script.name)
    this.script = script
    this.backupClass = backupClass
  }

  get isDone(): boolean {
    return this.process.isKilled || (!this.isBusy && this.next >= this.script.steps.length)
  }
}

type Event = () => void

export class History {
  readonly service = new SimulatedService()
  readonly log: string[] = []
  /** Whether every request is noted. */
  isVerbose = false
  leaseMs = leaseMs
  readonly #lastClass: BackupClass
  readonly #actors: Actor[]
  readonly #oracle = new Oracle()
  readonly #scheduler: Scheduler
  #current: Actor | undefined
  #steps = 0
  /** Who is sweeping stores. */
  readonly #sweepers = new Set<Actor>()
  /** Pages of owners up to this epoch may have been swept. */
  #sweptEpoch = ''

  /** @param classes a copy of the package for each script, and one for who looks at the end */
  constructor(classes: readonly BackupClass[], scripts: readonly Script[], scheduler: Scheduler) {
    this.#lastClass = classes[scripts.length]!
    this.#scheduler = scheduler
    this.#actors = scripts.map((script, index) => new Actor(script, classes[index]!))
    world.now = startMs
    world.random = scheduler.random
    this.service.earlyMs = scheduler.earlyMs
  }

  /** Runs it to its end. Throws a `Violation`. */
  async run(): Promise<void> {
    try {
      await this.#drive(() => this.#actors.every((actor) => actor.isDone))
      if (this.#oracle.violation === undefined) await this.#finish()
    } catch (error) {
      if (!(error instanceof Violation)) throw error
      this.#oracle.fail(error.message)
    }
    for (const actor of this.#actors) await this.#bury(actor)
    if (this.#oracle.violation !== undefined) throw this.#oracle.violation
  }

  #note(text: string): void {
    if (this.log.length < 2000) this.log.push(`${((world.now - startMs) / 1000).toFixed(3)} ${text}`)
  }

  /** Lets things happen until all is done. */
  #drive(isOver: () => boolean): Promise<void> {
    return new Promise((resolve, reject) => {
      const turn = () => {
        try {
          if (this.#oracle.violation !== undefined || isOver()) {
            resolve()
            return
          }
          if (++this.#steps > mostSteps) throw new Violation('the history does not end')
          this.#step()
          whenSettled(turn)
        } catch (error) {
          reject(error)
        }
      }
      whenSettled(turn)
    })
  }

  /** One thing happens to one process, or time passes. */
  #step(): void {
    const current = this.#current
    const able: [Actor, Event[]][] = []
    const withEvents = (actor: Actor) => {
      const events = this.#eventsOf(actor)
      if (events.length > 0) able.push([actor, events])
    }
    if (current !== undefined) withEvents(current)
    for (const actor of this.#actors) if (actor !== current) withEvents(actor)
    if (able.length === 0) {
      this.#passTime()
      return
    }
    const [actor, events] = able[able.length === 1 ? 0 : this.#scheduler.process(able.length)]!
    this.#current = actor
    events[events.length === 1 ? 0 : this.#scheduler.event(events.length)]!()
  }

  /** What may happen to a process now. Requests travel also when it stands still, or is dead. */
  #eventsOf(actor: Actor): Event[] {
    const { process } = actor
    process.goOn()
    const isAwake = !process.isKilled && !process.isStill
    const events: Event[] = []
    if (isAwake && process.immediates.length > 0) {
      return [
        () => {
          world.current = process
          process.immediates.shift()!()
        },
      ]
    }
    for (const request of this.service.requests) {
      if (request.process !== process || request.heldUntil > world.now) continue
      if (request.state === 'sent') events.push(() => this.#travel(request))
      else if (isAwake) events.push(() => this.#answer(request))
      else if (process.isKilled) events.push(() => this.service.comeBack(request))
    }
    if (!isAwake) return events
    const timer = process.nextTimer
    if (timer !== undefined && timer.at <= process.now) events.push(() => fire(process, timer))
    if (!actor.isBusy && !actor.isDone) events.push(() => this.#begin(actor))
    return events
  }

  #actorOf({ process }: Request): Actor {
    return this.#actors.find((actor) => actor.process === process)!
  }

  #kill(actor: Actor): void {
    actor.process.isKilled = true
    actor.isOwner = false
    this.#endSweep(actor)
  }

  /** Aborts calls of the request's process whose turn has come. */
  #countDown(request: Request): void {
    const { process, aborts } = this.#actorOf(request)
    for (const abort of aborts) {
      if (abort.left-- !== 0 || process.isKilled || process.isStill) continue
      world.current = process
      this.#note(`${process.name} aborts`)
      abort.controller.abort()
    }
  }

  #abortAfter(actor: Actor, requests: number): AbortSignal {
    const controller = new AbortController()
    actor.aborts.push({ controller, left: requests })
    return controller.signal
  }

  #travel(request: Request): void {
    this.#countDown(request)
    const fate = this.#scheduler.fate()
    const { process, verb, input } = request
    if (this.isVerbose || fate !== 'through') {
      const what = input.Key ?? input.Prefix ?? input.Delete?.Objects.map(({ Key }) => Key).join() ?? ''
      this.#note(`${process.name} ${verb} ${what}${fate === 'through' ? '' : `: ${fate}`}`)
    }
    if (fate === 'held') {
      request.heldUntil = world.now + this.#scaled(this.#scheduler.pauseMs())
      return
    }
    if (fate === 'refused') {
      this.service.refuse(request, 'SlowDown', 503)
      return
    }
    if (fate === 'failed') {
      this.service.arrive(request)
      this.service.refuse(request, 'InternalError', 500)
      return
    }
    if (fate !== 'lost before') {
      this.service.arrive(request)
      if (fate === 'twice') this.service.arrive(request)
    }
    if (fate === 'lost before' || fate === 'lost after') this.service.breakOff(request)
  }

  #answer(request: Request): void {
    this.#countDown(request)
    const interruption = this.#scheduler.interruption()
    if (interruption === 'none') {
      this.service.comeBack(request)
      return
    }
    this.#note(`${request.process.name} ${interruption}`)
    if (interruption === 'dies') {
      this.#kill(this.#actorOf(request))
      return
    }
    request.process.standStill(this.#scaled(this.#scheduler.pauseMs()), interruption === 'sleeps')
  }

  /** Nothing can happen now: the time goes on to when something can. */
  #passTime(): void {
    let next = Number.POSITIVE_INFINITY
    for (const { heldUntil } of this.service.requests)
      if (heldUntil > world.now && heldUntil < next) next = heldUntil
    for (const { process } of this.#actors)
      if (!process.isKilled && process.nextAt < next) next = process.nextAt
    if (next === Number.POSITIVE_INFINITY) throw new Violation('nothing can happen any more')
    world.now = Math.max(world.now + 1, Math.ceil(next))
  }

  #scaled(milliseconds: number): number {
    return (milliseconds * this.leaseMs) / leaseMs
  }

  #begin(actor: Actor): void {
    const step = actor.script.steps[actor.next++]!
    const { process } = actor
    world.current = process
    if (step.kind === 'kill') {
      this.#note(`${process.name} is killed`)
      this.#kill(actor)
      return
    }
    actor.isBusy = true
    this.#perform(actor, step).then(
      () => {
        actor.isBusy = false
      },
      (error: Error) => {
        if (!process.isBuried)
          this.#note(`${process.name} ${step.kind} fails: ${error.message.slice(0, 150)}`)
        actor.isBusy = false
        // Who could not open has nothing to do.
        if (step.kind === 'open' || step.kind === 'openScratch') actor.next = actor.script.steps.length
      },
    )
  }

  async #perform(actor: Actor, step: Step): Promise<void> {
    const { process, backup, backupClass } = actor
    switch (step.kind) {
      case 'wait':
        await new Promise((resolve) => setTimeout(resolve, this.#scaled(step.milliseconds)))
        return
      case 'stop':
      case 'sleep':
        this.#note(`${process.name} ${step.kind}s ${step.milliseconds}`)
        process.standStill(this.#scaled(step.milliseconds), step.kind === 'sleep')
        return
      case 'idle':
        return
      case 'together':
        await Promise.all(step.steps.map((one) => this.#perform(actor, one)))
        return
      case 'open':
      case 'openScratch': {
        actor.isPersistent = step.kind === 'open'
        const signal =
          step.abortAfter === undefined ? {} : { signal: this.#abortAfter(actor, step.abortAfter) }
        actor.backup = await backupClass.open({ ...this.#options(actor, actor.isPersistent), ...signal })
        actor.scope = actor.isPersistent ? 'store' : `scratch of ${process.name}`
        actor.epoch = actor.backup.stats().epoch
        actor.isOwner = true
        actor.found = handlesOf(actor.backup.liveHandles())
        this.#note(`${process.name} has opened`)
        return
      }
      case 'jump':
        this.#note(`the clock of the service jumps by ${step.milliseconds}`)
        this.service.aheadMs += this.#scaled(step.milliseconds)
        return
      case 'setClock':
        this.#note(`${process.name} sets its clock by ${step.milliseconds}`)
        process.wallAheadMs += this.#scaled(step.milliseconds)
        return
      case 'undeletable':
        this.service.objects.isUndeletable = (key) => /[13579bdf]$/.test(key)
        return
      case 'deletable':
        this.service.objects.isUndeletable = () => false
        return
      case 'sweepAborted':
        await this.#sweep(actor, true, step.abortAfter)
        return
      case 'ownSweep':
        await this.#whileSweeping(actor, !actor.isPersistent, async () =>
          backup?.sweepOrphans({ persistent: !actor.isPersistent }),
        )
        return
      case 'sweep':
      case 'sweepStores':
        await this.#sweep(actor, step.kind === 'sweepStores')
        return
    }
    if (backup === undefined) return
    if (step.kind === 'storeAborted')
      await this.#store(actor, backup, step.pages, this.#abortAfter(actor, step.abortAfter))
    else if (step.kind === 'store') await this.#store(actor, backup, step.pages)
    else if (step.kind === 'drop') await this.#drop(backup, this.#own(actor).slice(0, 1))
    else if (step.kind === 'dropAll') await this.#drop(backup, this.#own(actor))
    else if (step.kind === 'retainFirst') await this.#retainFirst(actor, backup)
    else if (step.kind === 'read') await this.#read(actor, backup)
    else if (step.kind === 'close') {
      actor.isOwner = false
      await backup.close()
      this.#note(`${process.name} has closed`)
    }
  }

  #options({ process, script: { name } }: Actor, persistent: boolean) {
    return {
      client: this.service.clientFor(process),
      bucket: 'bucket',
      prefix: 'p/',
      name,
      persistent,
      ownerWaitMs: 3 * this.leaseMs,
      leaseMs: this.leaseMs,
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

  async #whileSweeping(actor: Actor, persistent: boolean, work: () => Promise<unknown>): Promise<void> {
    if (persistent) this.#sweepers.add(actor)
    try {
      await work()
    } finally {
      this.#endSweep(actor)
    }
  }

  /** Whoever claims the store from now on owns what nobody has begun to sweep. */
  #endSweep(actor: Actor): void {
    const epoch = this.#epochInHead ?? ''
    if (this.#sweepers.delete(actor) && epoch > this.#sweptEpoch) this.#sweptEpoch = epoch
  }

  #mayBeSwept({ epoch }: Page): boolean {
    return this.#sweepers.size > 0 || epoch <= this.#sweptEpoch
  }

  async #sweep(actor: Actor, persistent: boolean, abortAfter?: number): Promise<void> {
    const { persistent: _, ownerWaitMs, ...options } = this.#options(actor, false)
    const signal = abortAfter === undefined ? {} : { signal: this.#abortAfter(actor, abortAfter) }
    await this.#whileSweeping(actor, persistent, () =>
      actor.backupClass.sweepOrphans({ ...options, persistent, ...signal }),
    )
    this.#note(`${actor.process.name} has swept`)
  }

  async #store(actor: Actor, backup: Backup, pages: number, signal?: AbortSignal): Promise<void> {
    const { first, memory } = this.#oracle.newPages(pages)
    const newer = this.#newerOwner(actor)
    const { handles, error } = await backup.backupPages([memory], signal && { signal })
    const stored = this.#oracle.acknowledged(actor, first, handles)
    const { name } = actor.process
    this.#note(`${name} stored ${stored} of ${pages} ${error?.message.slice(0, 120) ?? ''}`)
    const isLost = (error as { code?: string } | undefined)?.code === 'EBADF'
    if (isLost && actor.isPersistent && this.#epochInHead === actor.epoch)
      this.#oracle.fail(`${name} is told that it lost the store, which nobody else has claimed`)
    // It began to store when somebody else had opened the store already.
    if (stored > 0 && newer !== undefined) this.#oracle.fail(`${name} and ${newer} own the store`)
  }

  /** Who has the store, and claimed it after this actor. */
  #newerOwner(actor: Actor): string | undefined {
    if (!actor.isPersistent || !actor.isOwner) return undefined
    const isNewer = (other: Actor) => other.isPersistent && other.isOwner && other.epoch > actor.epoch
    return this.#actors.find(isNewer)?.process.name
  }

  /** The newest head, which is what counts. */
  get #head(): { epoch: number; manifest: string | null; parent: string | null } | undefined {
    let newest = ''
    for (const key of this.service.objects.keys) if (key.startsWith('p/heads/') && key > newest) newest = key
    return newest === '' ? undefined : JSON.parse(String(this.service.objects.get(newest)!.body))
  }

  get #epochInHead(): string | undefined {
    const head = this.#head
    return head && `store-${String(head.epoch).padStart(8, '0')}`
  }

  #own(actor: Actor): Page[] {
    const live = handlesOf(actor.backup!.liveHandles())
    return this.#oracle
      .pagesOf(actor.scope)
      .filter(({ state, handle }) => state === 'live' && live.has(handle))
  }

  async #drop(backup: Backup, pages: readonly Page[]): Promise<void> {
    // Told to the oracle first: who is killed while dropping may have dropped.
    for (const page of pages) page.state = 'dropped'
    await backup.drop(pages.map(({ handle }) => ({ first: handle, count: 1 })))
  }

  /** Drops all but one page, and what is being stored at the moment. */
  async #retainFirst(actor: Actor, backup: Backup): Promise<void> {
    const [first, ...others] = this.#own(actor)
    for (const page of others) page.state = 'dropped'
    // Those of a process, too, that has yet to hear that they were stored.
    for (const handle of handlesOf(backup.liveHandles()))
      if (actor.found.has(handle)) this.#oracle.droppedFound(actor.scope, handle)
    await backup.retainOnly(first === undefined ? [] : [{ first: first.handle, count: 1 }])
  }

  /** Reads all pages of its store: each is what it was, or there is an error that says why not. */
  async #read(actor: Actor, backup: Backup): Promise<void> {
    const { name } = actor.process
    const isLive = ({ handle, state }: Page, live: ReadonlySet<number>) =>
      state === 'live' || live.has(handle)
    // What somebody dropped and the store holds for live has to be there, too.
    const before = handlesOf(backup.liveHandles())
    const known = this.#oracle.pagesOf(actor.scope).filter((page) => isLive(page, before))
    const failures = await this.#oracle.read(name, backup, known)
    const after = handlesOf(backup.liveHandles())
    for (const [page, failure] of failures) {
      if (!isLive(page, after) || !['ESTALE', 'EBADMSG', 'ENOENT'].includes(failure)) continue
      if (actor.isPersistent && this.#mayBeSwept(page)) continue
      // Whoever has lost the store may find that. Whoever can still store something has not lost it.
      const isOlder = this.#newerOwner(actor) !== undefined
      const { handles } = await backup.backupPages([Buffer.alloc(pageBytes)])
      if (handles.length > 0 && !isOlder && this.#newerOwner(actor) === undefined)
        this.#oracle.fail(`${name} owns the store, and reads page ${page.id} with ${failure}`)
    }
  }

  /** Everything that was on its way arrives, everybody is gone, and one last owner looks what is there. */
  async #finish(): Promise<void> {
    for (const actor of this.#actors) this.#kill(actor)
    for (const request of [...this.service.requests]) {
      if (request.state === 'sent') this.service.arrive(request)
      this.service.forget(request)
    }
    for (const sweeper of this.#sweepers) this.#endSweep(sweeper)
    this.#damageManifests()
    world.now += longMs
    this.service.objects.isUndeletable = () => false
    const last = new Actor({ name: 'last', steps: [] }, this.#lastClass)
    const usesStore = this.#actors.some(({ script: { steps } }) => steps.some(({ kind }) => kind === 'open'))
    this.#actors.push(last)
    this.service.isDirect = true
    await this.#calmly(last, async () => {
      if (usesStore) await this.#lookAtStore(last)
      for (let round = 0; round < 2 && this.#leftForEver !== undefined; round++) {
        await this.#sweep(last, false)
        await new Promise((resolve) => setTimeout(resolve, longMs))
      }
    })
    if (this.#leftForEver !== undefined) this.#oracle.fail(`left for ever: ${this.#leftForEver}`)
  }

  /** Sometimes the newest manifest cannot be read any more, or none can. That costs no page. */
  #damageManifests(): void {
    const head = this.#head
    const chance = this.#scheduler.random()
    if (head === undefined || chance > 0.4) return
    for (const name of chance < 0.3 ? [head.manifest] : [head.manifest, head.parent]) {
      if (name === null) continue
      this.#note(`${name} is damaged`)
      this.service.objects.set(`p/${name}`, Buffer.from('damaged'))
    }
  }

  /** The last owner reads everything, and drops it. */
  async #lookAtStore(last: Actor): Promise<void> {
    last.scope = 'store'
    const backup = await last.backupClass.open(this.#options(last, true))
    last.backup = backup
    const live = handlesOf(backup.liveHandles())
    const pages = this.#oracle.pagesOf('store')
    const failures = await this.#oracle.read(
      'last',
      backup,
      pages.filter(({ handle }) => live.has(handle)),
    )
    for (const page of pages) {
      const isLive = live.has(page.handle)
      if (page.state === 'dropped' && !isLive) continue
      const failure = isLive ? failures.get(page) : 'ESTALE'
      if (failure === undefined || (this.#mayBeSwept(page) && failure === 'ESTALE')) continue
      this.#oracle.fail(`page ${page.id} was acknowledged and is lost: ${failure}`)
    }
    await backup.retainOnly([])
    await backup.close()
  }

  /** Runs work of one process without any fault. */
  async #calmly(actor: Actor, work: () => Promise<void>): Promise<void> {
    let isOver = false
    let failure: Error | undefined
    world.current = actor.process
    work()
      .catch((error: Error) => {
        failure = error
      })
      .finally(() => {
        isOver = true
      })
    await this.#drive(() => isOver)
    if (failure !== undefined) this.#oracle.fail(`the last owner fails: ${failure.message}`)
  }

  /** What is there but what says that the store is empty; undefined: nothing. */
  get #leftForEver(): string | undefined {
    const others: string[] = []
    const heads: string[] = []
    const manifests: string[] = []
    const isTimeless = !this.service.hasDate || !this.service.objects.tellsTime
    for (const key of this.service.objects.keys) {
      // Whose age nobody knows stays.
      if (isTimeless && /scratch-|\/leases\//.test(key)) continue
      if (/\/heads\/|\/leases\/store-\d+$/.test(key)) heads.push(key)
      else if (/\/store-\d+\/m-\d+$/.test(key)) manifests.push(key)
      else others.push(key)
    }
    for (const [keys, atMost] of [
      [heads, 1],
      [manifests, 2],
      [others, 0],
    ] as const)
      if (keys.length > atMost) return keys.join(', ')
    return undefined
  }

  /**
   * Lets everything end that a process still does, without any effect: modules have a state that the next history must
   * not find as this one left it.
   */
  async #bury({ process, backup }: Actor): Promise<void> {
    process.isBuried = true
    world.current = process
    backup?.close().catch(() => {})
    for (let round = 0; ; round++) {
      world.current = process
      this.service.bury(process)
      await settled()
      world.current = process
      const timer = process.nextTimer
      if (process.immediates.length > 0) process.immediates.shift()!()
      else if (timer !== undefined) {
        world.now = Math.max(world.now, process.nextAt)
        process.goOn()
        if (timer.at <= process.now) fire(process, timer)
      } else return
      if (round > 1000) {
        this.#oracle.fail(`${process.name} goes on after it was closed`)
        return
      }
    }
  }
}
