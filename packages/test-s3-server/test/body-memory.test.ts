import { expect, it } from 'vitest'
import { BodyMemory } from '../src/server/body-memory.ts'

it('hands memory out again only after its last user released it', () => {
  const memory = new BodyMemory(0)
  const first = memory.lease(100_000)
  first.retain()
  first.release()
  expect(memory.lease(100_000).bytes.buffer).not.toBe(first.bytes.buffer)
  first.release()
  const second = memory.lease(90_000)
  expect(second.bytes.buffer).toBe(first.bytes.buffer)
  expect(second.bytes).toHaveLength(90_000)
  second.release()
  expect(() => second.release()).toThrow('twice')
})

it('does not waste large memory on small bodies', () => {
  const memory = new BodyMemory(0)
  const large = memory.lease(1_000_000)
  large.release()
  expect(memory.lease(100_000).bytes.buffer).not.toBe(large.bytes.buffer)
  expect(memory.lease(900_000).bytes.buffer).toBe(large.bytes.buffer)
})
