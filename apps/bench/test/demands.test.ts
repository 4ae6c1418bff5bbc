import { expect, it } from 'vitest'
import { Demands } from '../src/conform/demands.ts'

it('tries one demand after the other, and says in words which do not hold', async () => {
  const demands = new Demands()
  demands.describe('backup contract', () => {
    demands.describe('dropping', () => {
      demands.it('holds', async () => {})
      demands.it('throws', async () => {
        throw new Error('the page is gone\n\nsecond line')
      })
      demands.it('never settles', () => new Promise(() => {}))
      demands.it('leaves a rejection to nobody', async () => {
        void Promise.reject(new Error('stray'))
        await new Promise((resolve) => setTimeout(resolve, 1))
      })
    })
  })
  const outcomes = []
  for await (const outcome of demands.tryAll(20, new AbortController().signal)) outcomes.push(outcome)
  const concern = 'backup contract › dropping'
  expect(outcomes).toEqual([
    { concern, demand: 'holds' },
    { concern, demand: 'throws', failure: 'the page is gone\nsecond line' },
    { concern, demand: 'never settles', failure: 'it did not settle in 0.02 s' },
    {
      concern,
      demand: 'leaves a rejection to nobody',
      failure: 'nobody handled a rejection: stray',
    },
  ])
})

it('ends between two demands when it is aborted', async () => {
  const demands = new Demands()
  const stop = new AbortController()
  const reason = new Error('interrupted')
  demands.it('aborts', async () => stop.abort(reason))
  demands.it('is not tried', () => expect.fail('it was tried'))
  await expect(async () => {
    for await (const _ of demands.tryAll(1000, stop.signal));
  }).rejects.toBe(reason)
})
