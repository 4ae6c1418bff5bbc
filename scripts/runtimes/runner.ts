/**
 * A test runner of a page, for runtimes that have none that `@spillway/core/conformance` could be given as it is: registers
 * like `describe` and `it`, runs one test after the other, and says what failed.
 */
interface Registered {
  readonly name: string
  readonly body: () => unknown
}

const longestMs = 120_000
const registered: Registered[] = []
const path: string[] = []

export function describe(name: string, body: () => void): void {
  path.push(name)
  body()
  path.pop()
}

export function it(name: string, body: () => unknown): void {
  registered.push({ name: [...path, name].join(' › '), body })
}

/** Runs all that was registered; returns how many passed and failed. A test that never ends fails, and ends the run. */
export async function runAll(): Promise<{ passed: number; failed: number }> {
  let passed = 0
  let failed = 0
  for (const { name, body } of registered) {
    let timer: ReturnType<typeof setTimeout> | undefined
    const late = new Promise((_, reject) => {
      timer = setTimeout(() => reject(new Error(`did not end in ${longestMs} ms`)), longestMs)
    })
    try {
      await Promise.race([body(), late])
      passed++
    } catch (failure) {
      failed++
      console.log(`FAIL ${name}\n${failure instanceof Error ? failure.stack : String(failure)}`)
    } finally {
      clearTimeout(timer)
    }
  }
  return { passed, failed }
}
