import type { Pool } from '@spillway/pool'
import { chooseBackend } from '../backends.ts'
import { type InputPlan, loadPlan } from '../input/plan.ts'
import { openPeer } from '../peers/registry.ts'
import { gibibyte, mebibyte } from '../sizes.ts'
import { LatencyHistogram } from '../statistics.ts'
import { DataLedger } from './ledger.ts'
import { loadData, rehearse, stagingBytes, verifyData } from './load-and-verify.ts'
import { LoopDelayMeter } from './loop-delay.ts'
import { measurePageRestores, type PageRestoreFigures } from './page-restores.ts'
import { PoolStore } from './pool-store.ts'
import type { CaseFindings, CaseMessage, CaseOrder, CasePhase } from './protocol.ts'
import { runRound } from './run-workload.ts'
import { spoiledBackup } from './spoiled-backup.ts'
import type { BufferStore } from './store.ts'
import { measureWholeBuffers, type WholeBufferFigures } from './whole-buffers.ts'
import { type Workload, workloadNamed } from './workloads.ts'

/** Chunks larger than this would make a small limit hold too few of them, whatever the page size. */
const largestChunkBytes = 2 * mebibyte
/** The set of whole buffers and of single pages that is measured by itself. */
const largestSetBytes = 128 * mebibyte
const singlePageBytes = 32 * mebibyte

/** How the case talks to its parent. */
export interface CaseVoice {
  tell(message: CaseMessage): void
  /** Resolves when the parent has taken a measurement for which this process must hold still. */
  held(): Promise<void>
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
  #lastProgressMs = 0

  constructor(order: CaseOrder, plan: InputPlan, workload: Workload, voice: CaseVoice) {
    this.#order = order
    this.#plan = plan
    this.#workload = workload
    this.#voice = voice
    this.#ledger = new DataLedger(plan)
  }

  async onBackend(): Promise<CaseFindings> {
    const { limitBytes, pageSizeBytes } = this.#order
    const choice = chooseBackend(this.#order.subject)
    // Peers do without it, and it must be loaded before the baseline.
    const { Pool } = await import('@spillway/pool')
    await this.#sayBaseline()
    const opened = await choice.description.open({
      capacityBytes: this.#plan.dataBytes + limitBytes + 64 * mebibyte,
      pageSizeBytes,
      directory: this.#order.directory,
      io: this.#order.io,
      checksums: this.#order.checksums,
      warmBytes: this.#setBytes,
      ...choice.settings,
    })
    await using backup = choice.spoiler === undefined ? opened : spoiledBackup(opened, choice.spoiler)
    const poolOptions = {
      limitBytes,
      pageSizeBytes,
      backup,
      maxOrder: orderOf(largestChunkBytes, pageSizeBytes),
    }
    const warm = await this.#warmWholeBuffers(new Pool({ ...poolOptions, idleBytes: this.#setBytes }))
    await using pool = new Pool(poolOptions)
    const wholeBuffers = { warm, givingBack: isSound(warm) ? await this.#wholeBuffers(pool) : undefined }
    const pages = isSound(wholeBuffers.givingBack) ? await this.#pageRestores(pool) : undefined
    const { bufferBytes, dataBytes } = this.#plan
    const chunkBytes = this.#workload.chunkBytes
    await using store = await PoolStore.open(pool, {
      bufferCount: dataBytes / bufferBytes,
      bufferBytes,
      maxOrder: chunkBytes === undefined ? undefined : orderOf(chunkBytes, pageSizeBytes),
    })
    const findings = await this.#workloadOn(store, wholeBuffers, pages)
    return { ...findings, medium: backup.capabilities.medium, backendStats: backup.stats() }
  }

  async onPeer(name: string): Promise<CaseFindings> {
    await this.#sayBaseline()
    await using peer = await openPeer(name, {
      directory: this.#order.directory,
      limitBytes: this.#order.limitBytes,
      bufferBytes: this.#plan.bufferBytes,
      bufferCount: this.#plan.dataBytes / this.#plan.bufferBytes,
    })
    // Awaited here, or the peer would be closed before it ran.
    return await this.#workloadOn(peer, undefined, undefined)
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
    return await this.#wholeBuffers(warmPool)
  }

  #wholeBuffers(pool: Pool): Promise<WholeBufferFigures> {
    return measureWholeBuffers({
      pool,
      plan: { ...this.#plan, dataBytes: this.#setBytes },
      rounds: this.#order.rounds,
      staging: this.#staging,
      progress: (done, total) => this.#progress(done, total),
      measured: (running) => this.#measureLoopDelay(running),
    })
  }

  #pageRestores(pool: Pool): Promise<PageRestoreFigures> {
    this.#phase('single pages')
    const { pageSizeBytes, limitBytes } = this.#order
    return measurePageRestores({
      pool,
      pageSizeBytes,
      pageCount: Math.max(64, Math.floor(Math.min(singlePageBytes, limitBytes / 8) / pageSizeBytes)),
      rounds: this.#order.rounds,
      seed: this.#plan.seed,
      measured: (running) => this.#measureLoopDelay(running),
    })
  }

  async #workloadOn(
    store: BufferStore,
    wholeBuffers: WholeBufferPair | undefined,
    pages: PageRestoreFigures | undefined,
  ): Promise<CaseFindings> {
    const shape = {
      bufferCount: this.#plan.dataBytes / this.#plan.bufferBytes,
      bufferBytes: this.#plan.bufferBytes,
      seed: this.#plan.seed,
    }
    this.#phase('load')
    const hashes = await loadData(store, this.#ledger, this.#staging, (done, total) =>
      this.#progress(done, total),
    )

    const touchLatencies = new LatencyHistogram()
    const touchedBytesPerSecond: number[] = []
    const errors: string[] = []
    let touchedBytes = 0
    let mismatchedBlocks = 0
    let failedTouches = 0
    let cpuSeconds = 0
    this.#phase('warm-up')
    for (let round = 0; round <= this.#order.rounds; round++) {
      const counts = round > 0
      if (round === 1) this.#phase('rounds')
      const cpuBefore = process.cpuUsage()
      this.#measureLoopDelay(counts)
      const result = await runRound(
        store,
        this.#ledger,
        this.#workload.touches(shape, round),
        this.#order.concurrency,
        counts ? touchLatencies : undefined,
        (done) =>
          this.#progress(
            (round - 1) * this.#plan.dataBytes + done,
            this.#order.rounds * this.#plan.dataBytes,
          ),
      )
      this.#measureLoopDelay(false)
      mismatchedBlocks += result.mismatchedBlocks
      failedTouches += result.failedTouches
      errors.push(...result.errors)
      // The gate: from here on every figure would be of a store that returns wrong bytes.
      if (mismatchedBlocks > 0 || failedTouches > 0) break
      if (!counts) continue
      const cpu = process.cpuUsage(cpuBefore)
      cpuSeconds += (cpu.user + cpu.system) / 1e6
      touchedBytes += result.touchedBytes
      touchedBytesPerSecond.push(result.touchedBytes / result.seconds)
    }

    this.#phase('verify')
    const verification = await verifyData(store, this.#ledger, hashes, this.#staging, (done, total) =>
      this.#progress(done, total),
    )
    this.#phase('end')
    await this.#voice.held()
    const setVerification = wholeBuffers?.givingBack?.verification ?? wholeBuffers?.warm.verification
    return {
      rounds: {
        backupBytesPerSecond: wholeBuffers?.warm.backupBytesPerSecond ?? [],
        restoreBytesPerSecond: wholeBuffers?.warm.restoreBytesPerSecond ?? [],
        backupGivingBackBytesPerSecond: wholeBuffers?.givingBack?.backupBytesPerSecond ?? [],
        restoreIntoNewBytesPerSecond: wholeBuffers?.givingBack?.restoreBytesPerSecond ?? [],
        touchedBytesPerSecond,
        pageRestoresPerSecondDepth4: pages?.pagesPerSecondDepth4 ?? [],
        pageRestoresPerSecondDepth32: pages?.pagesPerSecondDepth32 ?? [],
      },
      latencies: {
        touch: touchLatencies.summary(),
        pageRestoreDepth4: pages?.latenciesDepth4.summary(),
        pageRestoreDepth32: pages?.latenciesDepth32.summary(),
        touchCurve: touchLatencies.curve(),
      },
      eventLoopDelayP99Ms: this.#loopDelay.histogram.quantileMs(0.99),
      eventLoopDelayMaxMs: this.#loopDelay.histogram.quantileMs(1),
      cpuSeconds,
      cpuSecondsPerTouchedGiB: touchedBytes === 0 ? 0 : cpuSeconds / (touchedBytes / gibibyte),
      verifiedBytes: verification.verifiedBytes,
      wrongBytes:
        verification.wrongBytes +
        (setVerification?.wrongBytes ?? 0) +
        (pages?.wrongPages ?? 0) * this.#order.pageSizeBytes,
      lostPages: verification.lostPages + (setVerification?.lostPages ?? 0),
      mismatchedBlocks,
      failedTouches,
      wrongFiles: [...(setVerification?.wrongFiles ?? []), ...verification.wrongFiles],
      errors: [...errors, ...(setVerification?.errors ?? []), ...verification.errors].slice(0, 10),
      memoryReturn: wholeBuffers?.givingBack?.memoryReturn,
      medium: '',
      backendStats: undefined,
      storeStats: store.stats(),
    }
  }

  /** Everything that the bench itself needs is there by now, and nothing of the pool or the backup. */
  async #sayBaseline(): Promise<void> {
    await rehearse(this.#plan, this.#staging)
    // Only the young generation: a full collection would shrink a heap that every program has.
    globalThis.gc?.({ type: 'minor' })
    this.#voice.tell({ type: 'baseline', residentBytes: process.memoryUsage.rss() })
    await this.#voice.held()
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
