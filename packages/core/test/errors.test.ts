import { constants } from 'node:os'
import { describe, expect, it } from 'vitest'
import {
  abortError,
  errorCodes,
  isErrorCode,
  isFullError,
  isSpillwayError,
  SpillwayError,
  systemError,
} from '../src/index.ts'

describe('errors', () => {
  it('has a closed union of codes, each one known', () => {
    expect(new Set(errorCodes).size).toBe(errorCodes.length)
    for (const code of errorCodes) expect(isErrorCode(code)).toBe(true)
    for (const other of ['EWHATEVER', 'enospc', '', 5, null, undefined])
      expect(isErrorCode(other)).toBe(false)
  })

  it('carries code, cause, place and whether to try again', () => {
    const cause = new Error('disk')
    const error = new SpillwayError('ENOSPC', 'full', {
      cause,
      backup: 'b',
      buffer: 'u',
      page: 3,
      handle: 9,
      offsetBytes: 4,
    })
    expect(error).toBeInstanceOf(Error)
    expect(error).toMatchObject({ name: 'SpillwayError', code: 'ENOSPC', cause, retryable: true })
    expect(error).toMatchObject({ backup: 'b', buffer: 'u', page: 3, handle: 9, offsetBytes: 4 })
    expect(new SpillwayError('EIO', 'broken').retryable).toBe(false)
    expect(new SpillwayError('EIO', 'broken', { retryable: true }).retryable).toBe(true)
    expect('cause' in new SpillwayError('EIO', 'broken')).toBe(false)
  })

  it('is recognised across duplicate installs, and nothing else is', async () => {
    // The query makes a second copy of the module, as a second installation would.
    const copy = '../src/errors.ts?second-install'
    const other: typeof import('../src/errors.ts') = await import(/* @vite-ignore */ copy)
    expect(other.SpillwayError).not.toBe(SpillwayError)
    const foreign = new other.SpillwayError('ESTALE', 'gone')
    expect(foreign).not.toBeInstanceOf(SpillwayError)
    expect(isSpillwayError(foreign)).toBe(true)
    expect(other.isSpillwayError(new SpillwayError('EIO', 'here'))).toBe(true)
    for (const value of [new Error('EIO'), { code: 'EIO' }, null, undefined, 'EIO', 5]) {
      expect(isSpillwayError(value)).toBe(false)
    }
  })

  it('an abort is EINTR with the reason of the signal, and its name is AbortError [T6]', () => {
    const reason = { why: 'enough' }
    expect(abortError(AbortSignal.abort(reason), { page: 2 })).toMatchObject({
      name: 'AbortError',
      code: 'EINTR',
      cause: reason,
      page: 2,
    })
  })

  it('is named AbortError when the caller aborted, not when the system interrupted a call', () => {
    const reason = new DOMException('enough', 'AbortError')
    expect(abortError(AbortSignal.abort(reason)).name).toBe('AbortError')
    expect(abortError(AbortSignal.abort(abortError(AbortSignal.abort()))).name).toBe('AbortError')
    const interrupted = Object.assign(new Error('EINTR, read'), {
      code: 'EINTR',
      errno: -constants.errno.EINTR,
    })
    const error = systemError(interrupted, 'cannot read')
    expect(error).toMatchObject({ name: 'SpillwayError', code: 'EINTR', retryable: true, cause: interrupted })
    // Whoever adds the place where it happened keeps the name.
    expect(new SpillwayError('EINTR', 'reading page 3', { cause: error }).name).toBe('SpillwayError')
  })

  it('keeps the code and the place of every error of the system, whether Node has a name for it or not', () => {
    for (const [name, number] of Object.entries(constants.errno)) {
      for (const code of [name, `Unknown system error ${-number}`, undefined]) {
        const failure = Object.assign(new Error('write'), { errno: -number, code, syscall: 'write' })
        const error = systemError(failure, 'cannot write', { backup: 'b', page: 3 })
        expect(error, name).toMatchObject({ name: 'SpillwayError', cause: failure, backup: 'b', page: 3 })
        const sameNumber = constants.errno[(error as SpillwayError).code as keyof typeof constants.errno]
        expect(sameNumber, name).toBe(number)
        expect(isErrorCode((error as SpillwayError).code), name).toBe(true)
      }
    }
    const nameless = Object.assign(new Error('odd'), { errno: -4000, code: 'Unknown system error -4000' })
    expect(systemError(nameless, 'cannot write', { page: 1 })).toMatchObject({ code: 'EIO', page: 1 })
  })

  it('takes a full medium, a used-up quota and a file that may not grow for full, and nothing else', () => {
    for (const [name, number] of Object.entries(constants.errno)) {
      const isFull = ['ENOSPC', 'EDQUOT', 'EFBIG'].includes(name)
      expect(isFullError({ code: `Unknown system error ${-number}`, errno: -number }), name).toBe(isFull)
      expect(isFullError({ code: name }), name).toBe(isFull)
    }
    expect(isFullError(undefined)).toBe(false)
  })

  it('translates nothing that is not of the system', () => {
    const odd = Object.assign(new TypeError('odd'), { code: 'ERR_INVALID_ARG_TYPE' })
    expect(systemError(odd, 'cannot write')).toBe(odd)
    const ours = new SpillwayError('EIO', 'x')
    expect(systemError(ours, 'cannot write')).toBe(ours)
    expect(systemError('text', 'cannot write').message).toBe('text')
    expect(systemError(null, 'cannot write')).toBeInstanceOf(Error)
  })
})
