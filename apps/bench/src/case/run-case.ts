import { mkdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import type { Backup } from '@spillway/core'
import { type Dashboard, openDashboard } from '@spillway/observe'
import type { Pool } from '@spillway/pool'
import { chooseBackend, loadModules } from '../backends.ts'
import { type InputPlan, loadPlan } from '../input/plan.ts'
import { peerNamed } from '../peers/registry.ts'
import { gibibyte, mebibyte } from '../sizes.ts'
import { CaseBudget } from './case-budget.ts'
import { DataLedger } from './ledger.ts'
import { loadData, rehearse, stagingBytes, verifyData } from './load-and-verify.ts'
import { LoopDelayMeter } from './loop-delay.ts'
import { measurePageRestores, type PageRestoreFigures } from './page-restores.ts'
import { PoolStore } from './pool-store.ts'
import {
  type CaseFindings,
  type CaseMessage,
  type CaseOrder,
  type CasePhase,
  type CaseRounds,
  toldFailure,
} from './protocol.ts'
import { runRounds } from './run-rounds.ts'
import { spoiledBackup } from './spoiled-backup.ts'
import type { BufferStore } from './store.ts'
import { measureWholeBuffers, type WholeBufferFigures } from './whole-buffers.ts'
import { unitBytesOf, type Workload, type WorkloadShape, workloadNamed } from './workloads.ts'

/** Chunks larger than this would make a small limit hold too few of them, whatever the page size. */
const largestChunkBytes = 2 * mebibyte
/** The set of whole buffers and of single pages that is measured by itself. */
const largestSetBytes = 128 * mebibyte
const singlePageBytes = 32 * mebibyte

/** How often a case looks whether its backup did anything. */
const pulseMs = 250

/** How the case talks to its parent. */
export interface CaseVoice {
  tell(message: CaseMessage): void
  /** Resolves when the parent has taken a measurement for which this process must hold still. */
  held(): Promise<void>
  /** Ends the turn of this case, if it has one; resolves when it has the next. */
  turn(quiet: boolean): Promise<void>
}

/** The whole buffers on a pool that keeps its memory, and on one as it comes, unless the first already went wrong. */
interface WholeBufferPair {
  readonly warm: WholeBufferFigures
  readonly givingBack: WholeBufferFigures | undefined
}

/**
 * One case from start to end, in a process of its own:
 *
 *   start → [whole buffers → single pages] → load → warm-up → rounds → verify → end
 *
 * What is in brackets is only there for backends; the peers begin with loading.
 */
export async function runCase(order: CaseOrder, voice: CaseVoice): Promise<CaseFindings> {
  const plan = loadPlan(order.planPath)
  const workload = workloadNamed(order.workload)
  if (workload === undefined) throw new Error(`workload ${order.workload} is not known`)
  const run = new CaseRun(order, plan, workload, voice)
  return order.subject.startsWith('peer:') ? run.onPeer(order.subject.slice(5)) : run.onBackend()
}

class CaseRun {
  readonly #order: CaseOrder
  readonly #plan: InputPlan
  readonly #workload: Workload
  readonly #voice: CaseVoice
  readonly #staging = new Uint8Array(stagingBytes).fill(1)
  readonly #ledger: DataLedger
  readonly #loopDelay = new LoopDelayMeter()
  readonly #budget: CaseBudget
  /** How long loading and verifying will take, as the rehearsal tells. */
  #wholeMs = 0
  #lastProgressMs = 0

  constructor(order: CaseOrder, plan: InputPlan, workload: Workload, voice: CaseVoice) {
    this.#order = order
    this.#plan = plan
    this.#workload = workload
    this.#voice = voice
    this.#ledger = new DataLedger(plan)
    this.#budget = new CaseBudget(order.budgetMs)
  }

  async onBackend(): Promise<CaseFindings> {
    const { limitBytes, pageSizeBytes } = this.#order
    await this.#turn()
    this.#phase('start')
    const choice = chooseBackend(this.#order.subject)
    // Peers do without them, and they must be loaded before the baseline.
    await loadModules(choice.description)
    await this.#sayBaseline()
    const opened = await choice.description.open({
      capacityBytes: this.#plan.dataBytes + limitBytes + 64 * mebibyte,
      pageSizeBytes,
      directory: this.#order.directory,
      io: this.#order.io,
      checksums: this.#order.checksums,
      warmBytes: this.#setBytes,
      s3: this.#order.s3,
      ...choice.settings,
    })
    await using backup = choice.spoiler === undefined ? opened : spoiledBackup(opened, choice.spoiler)
    using _pulse = this.#watch(backup)
    await using _live = this.#order.live === true ? await this.#openDashboard() : undefined
    try {
      return await this.#onOpened(backup)
    } catch (failure) {
      // Told now: what is closed after a failure may never end.
      this.#voice.tell({ type: 'failure', ...toldFailure(failure) })
      throw failure
    }
  }

  async #openDashboard(): Promise<Dashboard> {
    const dashboard = await openDashboard()
    this.#voice.tell({ type: 'live', url: dashboard.url })
    return dashboard
  }

  /** Tells now and then that the backup still does something. */
  #watch(backup: Backup): Disposable {
    let seen = ''
    const timer = setInterval(() => {
      const counters = JSON.stringify(backup.stats())
      if (counters !== seen) this.#voice.tell({ type: 'alive' })
      seen = counters
    }, pulseMs)
    timer.unref()
    return { [Symbol.dispose]: () => clearInterval(timer) }
  }

  async #onOpened(backup: Backup): Promise<CaseFindings> {
    const { limitBytes, pageSizeBytes } = this.#order
    const { Pool } = await import('@spillway/pool')
    const poolOptions = {
      limitBytes,
      pageSizeBytes,
      backup,
      maxOrder: orderOf(largestChunkBytes, pageSizeBytes),
    }
    const isOfPages = this.#workload.chunkBytes === 'page'
    // Workloads of single pages measure them themselves, and nothing else.
    const warm = isOfPages
      ? undefined
      : await this.#warmWholeBuffers(new Pool({ ...poolOptions, idleBytes: this.#setBytes }))
    await using pool = new Pool(poolOptions)
    const wholeBuffers = warm && {
      warm,
      givingBack: isSound(warm) ? await this.#wholeBuffers(pool, 1) : undefined,
    }
    this.#tellFigures(wholeBufferRounds(wholeBuffers))
    const pages = isSound(wholeBuffers?.givingBack) ? await this.#pageRestores(pool) : undefined
    this.#tellFigures(pageRounds(pages))
    const { bufferBytes, bufferCount } = this.#shape
    const hasChunks = this.#workload.chunkBytes !== undefined
    await using store = await PoolStore.open(pool, {
      bufferCount,
      bufferBytes,
      maxOrder: hasChunks ? orderOf(unitBytesOf(this.#workload, this.#shape), pageSizeBytes) : undefined,
      random: isOfPages,
    })
    const findings = await this.#workloadOn(store, wholeBuffers, pages)
    return { ...findings, medium: backup.capabilities.medium, backendStats: backup.stats() }
  }

  async onPeer(name: string): Promise<CaseFindings> {
    await this.#turn()
    await this.#sayBaseline()
    const peer = peerNamed(name)
    if (peer === undefined) throw new Error(`peer ${name} is not known`)
    const directory = join(this.#order.directory, `peer-${name}-${process.pid}`)
    mkdirSync(directory)
    using _directory = { [Symbol.dispose]: () => rmSync(directory, { recursive: true, force: true }) }
    const { bufferBytes, bufferCount } = this.#shape
    await using store = await peer.open({
      directory,
      limitBytes: this.#order.limitBytes,
      bufferBytes,
      bufferCount,
      unitBytes: Math.max(unitBytesOf(this.#workload, this.#shape), peer.leastUnitBytes ?? 0),
      packageDirectory: this.#order.packageDirectory,
    })
    // Awaited here, or the peer would be closed before it ran.
    return await this.#workloadOn(store, undefined, undefined)
  }

  get #shape(): WorkloadShape {
    const { bufferBytes, dataBytes, seed } = this.#plan
    return {
      bufferCount: dataBytes / bufferBytes,
      bufferBytes,
      pageSizeBytes: this.#order.pageSizeBytes,
      seed,
    }
  }

  /** The set that is measured by itself: whole buffers that fit into half of the limit. */
  get #setBytes(): number {
    const { bufferBytes, dataBytes } = this.#plan
    const wantedBytes = Math.min(this.#order.limitBytes / 2, largestSetBytes, dataBytes)
    return Math.max(1, Math.floor(wantedBytes / bufferBytes)) * bufferBytes
  }

  /** On a pool that keeps its memory: what is measured is moving pages, not getting memory from the system. */
  async #warmWholeBuffers(pool: Pool): Promise<WholeBufferFigures> {
    this.#phase('whole buffers')
    await using warmPool = pool
    return await this.#wholeBuffers(warmPool, 2)
  }

  /** Each of the two times may take half of what the phase is allotted. */
  async #wholeBuffers(pool: Pool, timesLeft: number): Promise<WholeBufferFigures> {
    const figures = await measureWholeBuffers({
      pool,
      plan: { ...this.#plan, dataBytes: this.#setBytes },
      rounds: this.#order.rounds,
      allowedMs: this.#budget.allot('whole buffers', this.#wholeMs) / timesLeft,
      staging: this.#staging,
      progress: (done, total) => this.#progress(done, total),
      measured: (running) => this.#measureLoopDelay(running),
    })
    this.#budget.note('whole buffers', figures.share)
    return figures
  }

  async #pageRestores(pool: Pool): Promise<PageRestoreFigures> {
    this.#phase('single pages')
    const { pageSizeBytes, limitBytes } = this.#order
    const figures = await measurePageRestores({
      pool,
      pageSizeBytes,
      pageCount: Math.max(64, Math.floor(Math.min(singlePageBytes, limitBytes / 8) / pageSizeBytes)),
      rounds: this.#order.rounds,
      allowedMs: this.#budget.allot('single pages', this.#wholeMs),
      seed: this.#plan.seed,
      measured: (running) => this.#measureLoopDelay(running),
    })
    this.#budget.note('single pages', figures.share)
    return figures
  }

  async #workloadOn(
    store: BufferStore,
    wholeBuffers: WholeBufferPair | undefined,
    pages: PageRestoreFigures | undefined,
  ): Promise<CaseFindings> {
    await this.#turn()
    this.#phase('load')
    const loadStartMs = performance.now()
    const hashes = await loadData(store, this.#ledger, this.#staging, (done, total) =>
      this.#progress(done, total),
    )

    this.#phase('warm-up')
    const figures = await runRounds({
      store,
      ledger: this.#ledger,
      workload: this.#workload,
      shape: this.#shape,
      rounds: this.#order.rounds,
      concurrency: this.#workload.depth ?? this.#order.concurrency,
      // Reading back and hashing takes longer than loading: the hashes of what was rewritten are computed anew.
      allowedMs: this.#budget.allot('rounds', 1.5 * (performance.now() - loadStartMs)),
      onRounds: () => this.#phase('rounds'),
      progress: (done, total) => this.#progress(done, total),
      measured: (running) => this.#measureLoopDelay(running),
      turn: () => this.#turn(true),
    })
    this.#budget.note('rounds', figures.share)

    await this.#turn()
    this.#phase('verify')
    const verification = await verifyData(store, this.#ledger, hashes, this.#staging, (done, total) =>
      this.#progress(done, total),
    )
    this.#phase('end')
    await this.#voice.held()
    const setVerification = wholeBuffers?.givingBack?.verification ?? wholeBuffers?.warm.verification
    return {
      rounds: {
        ...wholeBufferRounds(wholeBuffers),
        ...pageRounds(pages),
        touchedBytesPerSecond: figures.touchedBytesPerSecond,
      },
      latencies: {
        touch: figures.touchLatencies.summary(),
        pageRestoreDepth4: pages?.latenciesDepth4.summary(),
        pageRestoreDepth32: pages?.latenciesDepth32.summary(),
        touchCurve: figures.touchLatencies.curve(),
      },
      eventLoopDelayP99Ms: this.#loopDelay.histogram.quantileMs(0.99),
      eventLoopDelayMaxMs: this.#loopDelay.histogram.quantileMs(1),
      cpuSeconds: figures.cpuSeconds,
      cpuSecondsPerTouchedGiB:
        figures.touchedBytes === 0 ? 0 : figures.cpuSeconds / (figures.touchedBytes / gibibyte),
      verifiedBytes: verification.verifiedBytes,
      wrongBytes:
        verification.wrongBytes +
        (setVerification?.wrongBytes ?? 0) +
        (pages?.wrongPages ?? 0) * this.#order.pageSizeBytes,
      lostPages: verification.lostPages + (setVerification?.lostPages ?? 0),
      mismatchedBlocks: figures.mismatchedBlocks,
      failedTouches: figures.failedTouches,
      wrongFiles: [...(setVerification?.wrongFiles ?? []), ...verification.wrongFiles],
      errors: [...figures.errors, ...(setVerification?.errors ?? []), ...verification.errors].slice(0, 10),
      memoryReturn: wholeBuffers?.givingBack?.memoryReturn,
      medium: '',
      backendStats: undefined,
      storeStats: store.stats(),
      shortened: this.#budget.shortened,
    }
  }

  /** Everything that the bench itself needs is there by now, and nothing of the pool or the backup. */
  async #sayBaseline(): Promise<void> {
    this.#wholeMs = 3 * (await rehearse(this.#plan, this.#staging))
    // Only the young generation: a full collection would shrink a heap that every program has.
    globalThis.gc?.({ type: 'minor' })
    this.#voice.tell({ type: 'baseline', residentBytes: process.memoryUsage.rss() })
    await this.#voice.held()
  }

  /** Waits for the turn of this case, where it takes turns; resolves to the milliseconds that this took, which are not its own. */
  async #turn(quiet = false): Promise<number> {
    if (this.#order.takesTurns !== true) return 0
    const startMs = performance.now()
    await this.#voice.turn(quiet)
    const waitedMs = performance.now() - startMs
    this.#budget.extend(waitedMs)
    return waitedMs
  }

  #tellFigures(rounds: Partial<CaseRounds>): void {
    this.#voice.tell({ type: 'figures', rounds })
  }

  #phase(phase: CasePhase): void {
    this.#voice.tell({ type: 'phase', phase })
  }

  #progress(doneBytes: number, totalBytes: number): void {
    const now = performance.now()
    if (now - this.#lastProgressMs < 100) return
    this.#lastProgressMs = now
    this.#voice.tell({ type: 'progress', doneBytes: Math.max(0, doneBytes), totalBytes })
  }

  #measureLoopDelay(running: boolean): void {
    if (running) this.#loopDelay.start()
    else this.#loopDelay.stop()
  }
}

function wholeBufferRounds(pair: WholeBufferPair | undefined) {
  return {
    backupBytesPerSecond: pair?.warm.backupBytesPerSecond ?? [],
    restoreBytesPerSecond: pair?.warm.restoreBytesPerSecond ?? [],
    backupGivingBackBytesPerSecond: pair?.givingBack?.backupBytesPerSecond ?? [],
    restoreIntoNewBytesPerSecond: pair?.givingBack?.restoreBytesPerSecond ?? [],
  }
}

function pageRounds(pages: PageRestoreFigures | undefined) {
  return {
    pageRestoresPerSecondDepth4: pages?.pagesPerSecondDepth4 ?? [],
    pageRestoresPerSecondDepth32: pages?.pagesPerSecondDepth32 ?? [],
  }
}

/** The order of chunks of at most `chunkBytes`, of pages of `pageSizeBytes`. */
function orderOf(chunkBytes: number, pageSizeBytes: number): number {
  return Math.max(0, Math.floor(Math.log2(chunkBytes / pageSizeBytes)))
}

/** Whether a set came back whole; otherwise nothing more of it is worth measuring. */
function isSound(figures: WholeBufferFigures | undefined): boolean {
  if (figures === undefined) return false
  const { wrongBytes, lostPages, errors } = figures.verification
  return wrongBytes === 0 && lostPages === 0 && errors.length === 0
}
