import { within } from '../time-limit.ts'
import { failureLine } from '../usage-error.ts'

/** One demand of the conformance suite, and what came of it. */
export interface DemandOutcome {
  /** What it is about: the names of the groups it stands in. */
  readonly concern: string
  /** What has to hold, in words. */
  readonly demand: string
  /** What did not hold; absent when all did. */
  readonly failure?: string
}

interface Demand {
  readonly concern: string
  readonly demand: string
  readonly body: () => Promise<void>
}

/** Takes the place of a test runner: collects what a suite registers, then tries one demand after the other. */
export class Demands {
  readonly #groups: string[] = []
  readonly #demands: Demand[] = []

  readonly describe = (name: string, body: () => void): void => {
    this.#groups.push(name)
    body()
    this.#groups.pop()
  }

  readonly it = (demand: string, body: () => Promise<void>): void => {
    this.#demands.push({ concern: this.#groups.join(' › '), demand, body })
  }

  get count(): number {
    return this.#demands.length
  }

  /** Tries all; one that is not settled after `limitMs` has failed. Rejects with the reason of the signal. */
  async *tryAll(limitMs: number, signal: AbortSignal): AsyncGenerator<DemandOutcome> {
    const stray: unknown[] = []
    const noteStray = (failure: unknown) => stray.push(failure)
    process.on('unhandledRejection', noteStray)
    try {
      for (const { concern, demand, body } of this.#demands) {
        signal.throwIfAborted()
        const failure = await failureOf(body, limitMs)
        const strays = stray.splice(0).map((each) => `nobody handled a rejection: ${describeFailure(each)}`)
        const told = failure ?? strays[0]
        yield { concern, demand, ...(told === undefined ? {} : { failure: told }) }
      }
    } finally {
      process.off('unhandledRejection', noteStray)
    }
  }
}

async function failureOf(body: () => Promise<void>, limitMs: number): Promise<string | undefined> {
  try {
    await within(limitMs, body(), 'it did not settle')
    return undefined
  } catch (failure) {
    return describeFailure(failure)
  }
}

/** An assertion says in its own words what differs; of what it shows, the first lines are enough. */
function describeFailure(failure: unknown): string {
  if (!(failure instanceof Error)) return failureLine(failure)
  const lines = failure.message.split('\n').filter((line) => line.trim() !== '')
  return lines.slice(0, 6).join('\n')
}
