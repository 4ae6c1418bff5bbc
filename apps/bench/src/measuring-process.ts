import { type ChildProcess, fork, type Serializable } from 'node:child_process'
import { type ProgramName, programPath } from './program-path.ts'

/**
 * A process that measures, so that nothing else is measured with it:
 *
 *   forked ── order ──▶ … ◀── messages ──▶ … ── ended
 *
 * It is killed when the signal is aborted.
 */
export class MeasuringProcess<Order extends Serializable, Message> {
  readonly pid: number
  readonly #child: ChildProcess
  readonly #signal: AbortSignal
  readonly #kill: () => void
  readonly #ended: Promise<string>

  /** Starts it, with the flags of this process or others. Throws the signal's reason when that is aborted already. */
  constructor(name: ProgramName, signal: AbortSignal, flags = process.execArgv) {
    signal.throwIfAborted()
    const child = fork(programPath(name), [], {
      execArgv: flags,
      stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
    })
    this.#child = child
    this.#signal = signal
    this.#kill = () => child.kill('SIGKILL')
    this.pid = child.pid ?? 0
    signal.addEventListener('abort', this.#kill, { once: true })
    this.#ended = new Promise((resolve) => {
      child.once('error', (problem) => resolve(problem.message))
      child.once('close', (code, signalName) => resolve(signalName ?? `exit status ${code}`))
    })
  }

  onMessage(listener: (message: Message) => void): void {
    this.#child.on('message', (message) => listener(message as Message))
  }

  /** Says something to it, unless it is gone. */
  send(message: Serializable): void {
    if (this.#child.connected) this.#child.send(message)
  }

  /** Ends it at once. */
  kill(): void {
    this.#kill()
  }

  /** Sends the order and waits until the process has ended; resolves to how it did, and rejects only when aborted. */
  async run(order: Order): Promise<string> {
    this.#child.send(order)
    const ending = await this.#ended
    this.#signal.removeEventListener('abort', this.#kill)
    this.#signal.throwIfAborted()
    return ending
  }
}
