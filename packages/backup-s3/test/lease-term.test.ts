/** For how long an owner relies on its lease, by each of the clocks that it has. */
import { replaceHost } from '@spillway/core'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { LeaseTerm, momentNow } from '../src/ownership/lease-term.ts'
import { ServiceClock } from '../src/service/service-clock.ts'

const leaseMs = 10_000
/** A tenth of the lease is its margin. */
const reliedOnMs = 9000
const start = Date.UTC(2026, 10, 29)
const hourMs = 3_600_000

let steadyMs: number
let wallClockMs: number
let service: ServiceClock
let term: LeaseTerm
beforeEach(() => {
  steadyMs = 0
  wallClockMs = start
  replaceHost({ nowMs: () => steadyMs, wallClockMs: () => wallClockMs })
  service = new ServiceClock()
  term = new LeaseTerm(leaseMs, service, { countsSleep: true })
})
afterEach(() => {
  replaceHost()
})

function pass(milliseconds: number): void {
  steadyMs += milliseconds
  wallClockMs += milliseconds
}

/** The machine sleeps, or somebody sets its clock: which of them, the process cannot tell. */
function sleep(milliseconds: number): void {
  wallClockMs += milliseconds
}

const answer = (milliseconds: number) => service.observe(new Date(milliseconds).toUTCString())

describe('an owner relies on its lease', () => {
  it('until its margin begins', () => {
    expect(term.isValid).toBe(false)
    term.begin(momentNow(), undefined)
    pass(reliedOnMs - 1)
    expect(term.isValid).toBe(true)
    pass(1)
    expect(term.isValid).toBe(false)
  })

  it('not after its machine slept, also where the service tells no time', () => {
    term.begin(momentNow(), undefined)
    sleep(reliedOnMs)
    expect(term.isValid).toBe(false)
  })

  it('not after its machine slept while the clock of the service was set back', () => {
    answer(start)
    term.begin(momentNow(), start)
    sleep(reliedOnMs)
    answer(start - hourMs)
    expect(term.isValid).toBe(false)
  })

  it('not once an answer tells that it is over, also when the clock of the machine was set back', () => {
    term.begin(momentNow(), start)
    wallClockMs -= hourMs
    expect(term.isValid).toBe(true)
    answer(start + reliedOnMs)
    expect(term.isValid).toBe(false)
  })

  it('no longer than it lasts by the clock that nobody sets, when the other was set back', () => {
    term.begin(momentNow(), undefined)
    wallClockMs -= hourMs
    pass(reliedOnMs)
    expect(term.isValid).toBe(false)
  })

  it('for all of it again, when one answer before told a time that has yet to come', () => {
    term.begin(momentNow(), start)
    answer(start + hourMs)
    expect(term.isValid).toBe(false)
    pass(1)
    term.begin(momentNow(), start)
    answer(start + 1000)
    expect(term.isValid).toBe(true)
    answer(start + reliedOnMs)
    expect(term.isValid).toBe(false)
  })

  it('whatever the clock of the machine says, where others go by that of the service alone', () => {
    term = new LeaseTerm(leaseMs, service, { countsSleep: false })
    term.begin(momentNow(), start)
    wallClockMs += hourMs
    expect(term.isValid).toBe(true)
    answer(start + reliedOnMs)
    expect(term.isValid).toBe(false)
  })

  it('by the latest of any number of times that go back', () => {
    for (let second = 200; second > 0; second--) answer(start + reliedOnMs + 1000 * second)
    term.begin(momentNow(), start)
    expect(term.isValid).toBe(false)
    pass(1)
    term.begin(momentNow(), start)
    for (let second = 200; second > 0; second--) answer(start + 1000 * second - reliedOnMs)
    expect(term.isValid).toBe(false)
  })

  it('again after a renewal, when the clock of the machine was set forward', () => {
    term.begin(momentNow(), undefined)
    wallClockMs += hourMs
    expect(term.isValid).toBe(false)
    term.begin(momentNow(), undefined)
    expect(term.isValid).toBe(true)
  })
})
