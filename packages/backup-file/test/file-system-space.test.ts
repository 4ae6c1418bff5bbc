import { expect, it } from 'vitest'
import { FileSystemSpace } from '../src/file-system-space.ts'
import { mebibyte } from './loop-devices.ts'

const ext4 = 0xef53
const btrfs = 0x9123683e
const statusOf = (freeMebibytes: number, type: number) => ({
  type,
  bsize: mebibyte,
  blocks: 1000,
  bavail: freeMebibytes,
})

/** A file system whose answers come when the test says so. */
function slowFileSystem(type: number) {
  const answers: PromiseWithResolvers<ReturnType<typeof statusOf>>[] = []
  const ask = () => {
    const answer = Promise.withResolvers<ReturnType<typeof statusOf>>()
    answers.push(answer)
    return answer.promise
  }
  return {
    ask,
    answer: (freeMebibytes: number) => answers.shift()!.resolve(statusOf(freeMebibytes, type)),
    answers,
  }
}
const freeMebibytes = (space: FileSystemSpace) => space.freeBytes / mebibyte

it('keeps what is taken while the file system answers subtracted, for the answer may be of before', async () => {
  const { ask, answer } = slowFileSystem(ext4)
  const space = new FileSystemSpace(statusOf(100, ext4), undefined)
  space.grant(30 * mebibyte)
  const refreshed = space.refresh(ask)
  space.settle(30 * mebibyte, 30 * mebibyte)
  answer(100)
  await refreshed
  expect(freeMebibytes(space)).toBe(70)
})

it('forgets nothing that was taken until the answer is here, whoever looks meanwhile', async () => {
  const { ask, answer, answers } = slowFileSystem(ext4)
  const space = new FileSystemSpace(statusOf(100, ext4), undefined)
  space.grant(80 * mebibyte)
  space.settle(80 * mebibyte, 80 * mebibyte)
  const first = space.refresh(ask)
  expect(freeMebibytes(space)).toBe(20)
  let isAnswered = false
  const second = space.refresh(ask).then(() => expect(isAnswered).toBe(true))
  await new Promise((resolve) => setImmediate(resolve))
  expect(answers).toHaveLength(1)
  isAnswered = true
  answer(20)
  await Promise.all([first, second])
  expect(freeMebibytes(space)).toBe(20)
})

it('asks through its own file when the one that another backup asked through was closed', async () => {
  const space = new FileSystemSpace(statusOf(100, ext4), undefined)
  const closed = Promise.withResolvers<never>()
  const first = space.refresh(() => closed.promise)
  const second = space.refresh(async () => statusOf(50, ext4))
  closed.reject(new Error('closed'))
  await expect(first).rejects.toThrow('closed')
  await second
  expect(freeMebibytes(space)).toBe(50)
})

it('counts a reservation that a late file system shows before it is settled once, and what is given back of it', async () => {
  const { ask, answer } = slowFileSystem(btrfs)
  const space = new FileSystemSpace(statusOf(300, btrfs), undefined)
  const look = async (free: number) => {
    space.forget()
    const refreshed = space.refresh(ask)
    answer(free)
    await refreshed
  }
  await look(300)
  space.grant(140 * mebibyte)
  await look(220)
  await look(160)
  space.settle(140 * mebibyte, 140 * mebibyte)
  await look(160)
  expect(freeMebibytes(space)).toBe(160)
  space.gaveBack(80 * mebibyte)
  await look(160)
  expect(freeMebibytes(space)).toBe(160)
  // Shown with the next transaction, together with what was written meanwhile.
  space.grant(50 * mebibyte)
  space.settle(50 * mebibyte, 50 * mebibyte)
  await look(240)
  expect(freeMebibytes(space)).toBe(190)
  await look(190)
  expect(freeMebibytes(space)).toBe(190)
})

it('subtracts what a late file system does not show yet, once, and what it shows no more', async () => {
  const { ask, answer } = slowFileSystem(btrfs)
  const space = new FileSystemSpace(statusOf(100, btrfs), undefined)
  const look = async (free: number) => {
    space.forget()
    const refreshed = space.refresh(ask)
    answer(free)
    await refreshed
  }
  space.grant(40 * mebibyte)
  space.settle(40 * mebibyte, 40 * mebibyte)
  await look(100)
  expect(freeMebibytes(space)).toBe(60)
  await look(75)
  expect(freeMebibytes(space)).toBe(60)
  await look(60)
  expect(freeMebibytes(space)).toBe(60)
  // What somebody else takes is seen when it is shown.
  await look(50)
  expect(freeMebibytes(space)).toBe(50)
})
