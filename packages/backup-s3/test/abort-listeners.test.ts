import { getEventListeners } from 'node:events'
import { describe, expect, it } from 'vitest'
import { offAbort, onAbort } from '../src/service/abort-listeners.ts'

describe('listeners of one signal', () => {
  it('are one to the signal, however many there are, and each hears of the abort once', () => {
    const controller = new AbortController()
    const { signal } = controller
    const heard: number[] = []
    const listeners = Array.from({ length: 100 }, (_, index) => () => {
      heard.push(index)
    })
    for (const listener of listeners) onAbort(signal, listener)
    expect(getEventListeners(signal, 'abort')).toHaveLength(1)
    for (const listener of listeners.slice(0, 98)) offAbort(signal, listener)
    controller.abort()
    expect(heard).toEqual([98, 99])
    offAbort(signal, listeners[99]!)
  })
})
