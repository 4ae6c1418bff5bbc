import cliProgress from 'cli-progress'
import { formatRate } from './sizes.ts'

/**
 * What is shown while the bench works: a bar with phase and rate on a terminal, and one line per finished case anywhere.
 * Lines go to standard output; the bar goes to standard error, so that a redirected output stays clean.
 */
export class ProgressView {
  readonly #bar: cliProgress.SingleBar | undefined
  #running = false
  #phaseStartMs = 0
  #title = ''

  constructor(terminal = Boolean(process.stderr.isTTY)) {
    if (!terminal) return
    this.#bar = new cliProgress.SingleBar(
      {
        format: '{title}  {phase} {bar} {percentage} %  {rate}',
        barCompleteChar: '━',
        barIncompleteChar: '─',
        barsize: 28,
        hideCursor: true,
        clearOnComplete: true,
        stopOnComplete: false,
        linewrap: false,
        fps: 10,
        stream: process.stderr,
        gracefulExit: false,
        formatValue: (value, _options, type) =>
          type === 'percentage' ? String(value).padStart(3) : String(value),
      },
      cliProgress.Presets.rect,
    )
  }

  /** Begins to show a case or another piece of work. */
  begin(title: string, phase: string): void {
    this.#title = title
    if (this.#bar === undefined) return
    this.#bar.start(1, 0, { title, phase: phase.padEnd(13), rate: '' })
    this.#running = true
    this.#phaseStartMs = performance.now()
  }

  /** Says something beside the bar, on standard error. */
  note(line: string): void {
    if (this.#running) this.#bar?.stop()
    console.error(line)
    if (this.#running) this.#bar?.start(1, 0, { title: this.#title, phase: '', rate: '' })
  }

  phase(phase: string): void {
    if (!this.#running) return
    this.#phaseStartMs = performance.now()
    this.#bar?.setTotal(1)
    this.#bar?.update(0, { title: this.#title, phase: phase.padEnd(13), rate: '' })
  }

  /** Bytes of the phase; counts below a thousand are steps, which have no rate. */
  progress(done: number, total: number): void {
    if (!this.#running || total <= 0) return
    const seconds = (performance.now() - this.#phaseStartMs) / 1000
    const rate = total < 1000 ? '' : formatRate(done / Math.max(seconds, 0.001))
    this.#bar?.setTotal(total)
    this.#bar?.update(Math.min(done, total), { rate })
  }

  /** Takes the bar away; `line` stays. */
  end(line?: string): void {
    if (this.#running) this.#bar?.stop()
    this.#running = false
    if (line !== undefined) console.log(line)
  }
}
