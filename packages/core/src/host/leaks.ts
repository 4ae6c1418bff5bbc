import { startTimer } from './timers.ts'
import { warn } from './warning.ts'

/** What is told of things that were collected as garbage and still held something of the system. */
export interface LeakWatchOptions {
  /** Code of the warning. */
  readonly code: string
  /** What leaked, one and many: `['backup', 'backups']`. */
  readonly what: readonly [one: string, many: string]
  /** What was not done with it, for example `'never closed'`. */
  readonly omission: string
}

/** Leaks come in bursts, as collections do: those of so long make one warning. */
const burstMs = 100
const namedLabels = 5

interface Leak {
  readonly label: string
  readonly release: (() => void) | undefined
}

/**
 * Watches what must be closed. What is collected instead is given up, and the process is warned: once for each burst, with a
 * count and the first labels.
 */
export class LeakWatch {
  readonly #options: LeakWatchOptions
  readonly #registry = new FinalizationRegistry<Leak>((leak) => this.#found(leak))
  #count = 0
  #labels: string[] = []

  constructor(options: LeakWatchOptions) {
    this.#options = options
  }

  /**
   * Watches `subject` until `unwatch` is called with the token that this returns. `release` gives back what it held; neither
   * it nor anything that it refers to may refer to the subject, or the subject is never collected.
   */
  watch(subject: object, label: string, release?: () => void): object {
    const token = {}
    this.#registry.register(subject, { label, release }, token)
    return token
  }

  unwatch(token: object): void {
    this.#registry.unregister(token)
  }

  #found({ label, release }: Leak): void {
    this.#count++
    if (this.#labels.length < namedLabels) this.#labels.push(label)
    if (this.#count === 1) startTimer(() => this.#warn(), burstMs).unref?.()
    release?.()
  }

  #warn(): void {
    const { code, what, omission } = this.#options
    const [one, many] = what
    const labels = this.#labels.join(', ')
    const more = this.#count > this.#labels.length ? ', …' : ''
    const message =
      this.#count === 1
        ? `a ${one} was ${omission}: ${labels}`
        : `${this.#count} ${many} were ${omission}: ${labels}${more}`
    this.#count = 0
    this.#labels = []
    warn(code, message)
  }
}

/** Backups that were collected without `close()`. Each backend watches its own. */
export const unclosedBackups = new LeakWatch({
  code: 'SPILLWAY_LEAKED_BACKUP',
  what: ['backup', 'backups'],
  omission: 'never closed',
})
