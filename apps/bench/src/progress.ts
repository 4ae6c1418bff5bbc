import { formatRate } from './sizes.ts'
import { padText, terminalColumns, textWidth } from './terminal.ts'

const barColumns = 28
const phaseColumns = 13
/** The line is drawn again at most this often. */
const drawEveryMs = 100
const eraseLine = '\r\u001b[K'

/**
 * What is shown while the bench works: one line with phase, bar and rate on a terminal, and one line per finished case anywhere.
 * Lines of cases go to standard output; the moving one goes to standard error, so that a redirected output stays clean.
 */
export class ProgressView {
  readonly #shown: boolean
  #running = false
  #title = ''
  #phase = ''
  #phaseStartMs = 0
  #share = 0
  #rate = ''
  #drawnMs = 0

  constructor(terminal = Boolean(process.stderr.isTTY) && process.env['TERM'] !== 'dumb') {
    this.#shown = terminal
  }

  /** Begins to show a case or another piece of work. */
  begin(title: string, phase: string): void {
    this.#title = title
    this.#running = this.#shown
    this.phase(phase)
  }

  /** Says something beside the moving line, on standard error. */
  note(line: string): void {
    this.#erase()
    console.error(line)
    this.#draw()
  }

  phase(phase: string): void {
    this.#phase = phase
    this.#phaseStartMs = performance.now()
    this.#share = 0
    this.#rate = ''
    this.#draw()
  }

  /** Bytes of the phase; counts below a thousand are steps, which have no rate. */
  progress(done: number, total: number): void {
    if (!this.#running || total <= 0) return
    const now = performance.now()
    if (now - this.#drawnMs < drawEveryMs) return
    const seconds = (now - this.#phaseStartMs) / 1000
    this.#share = Math.min(1, Math.max(0, done / total))
    this.#rate = total < 1000 ? '' : formatRate(done / Math.max(seconds, 0.001))
    this.#draw()
  }

  /** Takes the moving line away; `line` stays. */
  end(line?: string): void {
    this.#erase()
    this.#running = false
    if (line !== undefined) console.log(line)
  }

  #draw(): void {
    if (!this.#running) return
    this.#drawnMs = performance.now()
    process.stderr.write(eraseLine + progressLine(this.#title, this.#phase, this.#share, this.#rate))
  }

  #erase(): void {
    if (this.#running) process.stderr.write(eraseLine)
  }
}

/** What fits into one line of the terminal: a line that wraps could not be taken away. The bar gives way first, then the title. */
function progressLine(title: string, phase: string, share: number, rate: string): string {
  const columns = terminalColumns(process.stderr) - 1
  const percentage = `${Math.floor(share * 100)}`.padStart(3)
  const figures = `${padText(phase, phaseColumns)} ${percentage} %  ${rate}`
  const filled = Math.round(share * barColumns)
  const bar = '━'.repeat(filled) + '─'.repeat(barColumns - filled)
  const whole = `${title}  ${padText(phase, phaseColumns)} ${bar} ${percentage} %  ${rate}`
  if (textWidth(whole) <= columns) return whole
  const titleColumns = columns - textWidth(figures) - 2
  const shortTitle =
    textWidth(title) <= titleColumns
      ? title
      : `${[...title].slice(0, Math.max(0, titleColumns - 1)).join('')}…`
  return [...`${shortTitle}  ${figures}`].slice(0, columns).join('')
}
