import { describe, expect, it } from 'vitest'
import { LeakWatch } from '../src/index.ts'

const code = 'SPILLWAY_TEST_LEAK'

describe('a watch for leaks', () => {
  it('makes one warning of a burst, with a count and the first labels, and gives up what was held', async () => {
    const watch = new LeakWatch({ code, what: ['thing', 'things'], omission: 'never closed' })
    const messages: string[] = []
    process.on('warning', (warning: Error & { code?: string }) => {
      if (warning.code === code) messages.push(warning.message)
    })
    let released = 0
    const release = () => {
      released++
    }
    const closed = {}
    const token = watch.watch(closed, 'closed', release)
    watch.unwatch(token)
    // Garbage from here on.
    for (let index = 0; index < 1000; index++) watch.watch({}, `thing-${index}`, release)
    while (messages.length === 0 || released < 1000) {
      globalThis.gc!()
      await new Promise((resolve) => setTimeout(resolve, 10))
    }
    expect(released).toBe(1000)
    expect(messages.length).toBeLessThan(4)
    expect(messages[0]).toMatch(/^\d+ things were never closed: (thing-\d+, ){5}…$/)
    expect(closed).toEqual({})
  })
})
