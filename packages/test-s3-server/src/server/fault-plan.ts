import type { Fault, FaultRule, Operation } from './protocol.ts'

/** A small seeded generator (mulberry32): numbers in [0, 1). */
export function seededRandom(seed: number): () => number {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}

interface ActiveRule {
  readonly rule: FaultRule
  matched: number
  fired: number
}

function matches(rule: FaultRule, operation: Operation, key: string, accessKeyId: string): boolean {
  if (rule.accessKeyId !== undefined && rule.accessKeyId !== accessKeyId) return false
  if (rule.operation !== undefined) {
    if (
      typeof rule.operation === 'string' ? rule.operation !== operation : !rule.operation.includes(operation)
    )
      return false
  }
  return rule.keyIncludes === undefined || key.includes(rule.keyIncludes)
}

/**
 * The rules of what goes wrong. All delays that apply to a request befall it, and of the other faults the first whose
 * rule was set. Every rule counts the requests that match it, also those that another rule took.
 */
export class FaultPlan {
  readonly #rules = new Map<number, ActiveRule>()
  readonly #random: () => number
  #nextId = 1

  constructor(seed: number) {
    this.#random = seededRandom(seed)
  }

  add(rule: FaultRule): number {
    const id = this.#nextId++
    this.#rules.set(id, { rule, matched: 0, fired: 0 })
    return id
  }

  remove(id: number): void {
    this.#rules.delete(id)
  }

  clear(): void {
    this.#rules.clear()
  }

  /** How often each rule came true. */
  fired(): Record<number, number> {
    return Object.fromEntries([...this.#rules].map(([id, active]) => [id, active.fired]))
  }

  /** The faults that befall this request. */
  draw(operation: Operation, key: string, accessKeyId: string): Fault[] {
    const drawn: Fault[] = []
    let hasFault = false
    for (const active of this.#rules.values()) {
      const { rule } = active
      if (!matches(rule, operation, key, accessKeyId)) continue
      active.matched++
      const from = rule.from ?? 1
      if (active.matched < from || active.matched >= from + (rule.times ?? Number.POSITIVE_INFINITY)) continue
      if (rule.fault.kind !== 'delay' && hasFault) continue
      if (rule.chance !== undefined && this.#random() >= rule.chance) continue
      if (rule.fault.kind !== 'delay') hasFault = true
      active.fired++
      drawn.push(rule.fault)
    }
    return drawn
  }

  /** How long a delay lasts this time. */
  delayMs(fault: Extract<Fault, { kind: 'delay' }>): number {
    return fault.delayMs + (fault.jitterMs ?? 0) * this.#random()
  }
}
