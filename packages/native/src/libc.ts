import { createRequire } from 'node:module'
import { isTransient, missing, type NativeError, outOfDescriptors, systemError } from './errors.ts'
import { environmentValue } from './runtime.ts'

/**
 * The C library, bound once and only when the first call needs it, so that importing this package never fails.
 * Addresses are plain numbers: user space of every 64-bit Linux ends below 2^53. Every call returns what C returns;
 * `lastError` turns a −1 into an error and must be called before anything else.
 */
export interface Libc {
  mmap(
    address: number,
    lengthBytes: number,
    protection: number,
    flags: number,
    fd: number,
    offsetBytes: number,
  ): number
  munmap(address: number, lengthBytes: number): number
  madvise(address: number, lengthBytes: number, advice: number): number
  memfd_create(name: string, flags: number): number
  fcntl(fd: number, command: number, argument: number): number
  /** fcntl with a struct flock, which the kernel may write. */
  fcntlLock(fd: number, command: number, lock: Uint8Array): number
  ioctl(fd: number, request: number, argument: Uint8Array): number
  ioctlInThread(
    fd: number,
    request: number,
    argument: Uint8Array,
    done: (failure: unknown, result: number) => void,
  ): void
  /** statx of what the descriptor has open, not of a path. */
  statx(fd: number, mask: number, status: Uint8Array): number
  cachestat(fd: number, range: Uint8Array, counters: Uint8Array): number
  fallocate(fd: number, mode: number, offsetBytes: number, lengthBytes: number): number
  /** The same in another thread; then calls `done` here with the result, and with the errno of that thread. */
  fallocateInThread(
    fd: number,
    mode: number,
    offsetBytes: number,
    lengthBytes: number,
    done: (failure: unknown, result: number) => void,
  ): void
  ftruncate(fd: number, lengthBytes: number): number
  getpagesize(): number
  close(fd: number): number
  ioUringSetup(entries: number, params: Uint8Array): number
  ioUringEnter(fd: number, submit: number, complete: number, flags: number): number
  /** Waits in another thread for a result, at most as long as the struct at `argument` says; then calls `done` here. */
  ioUringWait(fd: number, argument: number, done: () => void): void
  /** The same memory as an ArrayBuffer. Costs some 100 µs. */
  view(address: number, lengthBytes: number): ArrayBuffer
  /** Calls `ready` on the event loop whenever `fd` can be read; undefined where koffi lacks it. */
  poll: ((fd: number, ready: () => void) => PollHandle) | undefined
  lastError(syscall: string, detail?: string): NativeError
  errno(): number
  /** Binds another function of the running program, as `int getpagesize()`. Throws where it exports none of that name. */
  bind<Call>(definition: string): Call
}

/** A descriptor watched by the event loop. */
export interface PollHandle {
  ref(): void
  unref(): void
  close(): void
}

/** Flag of io_uring_enter: wait for results. */
export const ioUringGetEvents = 1
const extendedArgument = 8
/** Flag of statx: the descriptor itself, not a path below it. */
const emptyPath = 0x1000

interface SystemCall {
  (...values: unknown[]): number
  async(...values: unknown[]): void
}
type CFunction = (...parameters: never[]) => never
interface Koffi {
  load(path: string | null): {
    func(definition: string): CFunction
    func(name: string, result: string, parameters: string[]): CFunction
  }
  view(address: bigint, lengthBytes: number): ArrayBuffer
  errno(): number
  node?: { poll?: (fd: number, callback: () => void) => PollHandle }
}

const architectures: readonly string[] = ['x64', 'arm64']
let libc: Libc | undefined
let reasonMissing: string | undefined

declare const __filename: string

/** Where this code lies: bundlers that make CommonJS leave no `import.meta.url`, but there `__filename` is. */
function ownAddress(): string {
  return import.meta.url ?? __filename
}

/**
 * Why the C library cannot be called here, or undefined when it can. What may pass, such as a lack of descriptors, is thrown
 * as `EMFILE` and not remembered.
 */
export function whyUnavailable(): string | undefined {
  if (libc !== undefined || reasonMissing !== undefined) return reasonMissing
  if (environmentValue('SPILLWAY_DISABLE_NATIVE') === '1') {
    reasonMissing = 'switched off by SPILLWAY_DISABLE_NATIVE=1'
  } else if (process.platform !== 'linux' || !architectures.includes(process.arch)) {
    reasonMissing = `needs Linux on ${architectures.join(' or ')}; this is ${process.platform} on ${process.arch}`
  } else {
    try {
      libc = bind(createRequire(ownAddress())('koffi') as Koffi)
    } catch (error) {
      if (isTransient(error)) throw outOfDescriptors(error)
      reasonMissing = `koffi or the C library did not load: ${error instanceof Error ? error.message : String(error)}`
      process.emitWarning(`@spillway/native is installed and does not load: ${reasonMissing}`, {
        type: 'SpillwayWarning',
        code: 'SPILLWAY_NATIVE_NOT_LOADED',
      })
    }
  }
  return reasonMissing
}

/** The C library; throws `ENOSYS` for `syscall` where there is none, and `EMFILE` where it cannot be loaded now. */
export function libcFor(syscall: string): Libc {
  const reason = whyUnavailable()
  if (reason !== undefined) throw missing(syscall, reason)
  return libc as Libc
}

function bind(koffi: Koffi): Libc {
  // The symbols of the running program include those of its C library, whichever it is (glibc or musl).
  const library = koffi.load(null)
  const bound = <Call>(definition: string) => library.func(definition) as unknown as Call
  // The same numbers on every architecture that came after 2019; the C libraries have no wrappers for these.
  const [setup, enter, cachestat] = [425, 426, 451]
  const statx = process.arch === 'arm64' ? 291 : 332
  const systemCall = (parameters: string[]) =>
    library.func('syscall', 'long', ['long', ...parameters]) as unknown as SystemCall
  const ioUringSetup = systemCall(['uint32_t', 'uint8_t*'])
  const ioUringEnter = systemCall(['int', 'uint32_t', 'uint32_t', 'uint32_t', 'uintptr_t', 'size_t'])
  const fallocate = library.func('int fallocate(int, int, int64_t, int64_t)') as unknown as SystemCall
  const ioctl = library.func('int ioctl(int, unsigned long, uint8_t*)') as unknown as SystemCall
  const statxCall = systemCall(['int', 'const char*', 'int', 'uint32_t', 'uint8_t*'])
  const cachestatCall = systemCall(['int', 'uint8_t*', 'uint8_t*', 'uint32_t'])
  const poll = koffi.node?.poll
  return {
    mmap: bound('intptr_t mmap(uintptr_t, size_t, int, int, int, int64_t)'),
    munmap: bound('int munmap(uintptr_t, size_t)'),
    madvise: bound('int madvise(uintptr_t, size_t, int)'),
    memfd_create: bound('int memfd_create(const char*, unsigned int)'),
    fcntl: bound('int fcntl(int, int, int)'),
    fcntlLock: bound('int fcntl(int, int, uint8_t*)'),
    ioctl: (fd, request, argument) => ioctl(fd, request, argument),
    ioctlInThread: (fd, request, argument, done) => ioctl.async(fd, request, argument, done),
    statx: (fd, mask, status) => statxCall(statx, fd, '', emptyPath, mask, status),
    cachestat: (fd, range, counters) => cachestatCall(cachestat, fd, range, counters, 0),
    fallocate,
    fallocateInThread: (fd, mode, offsetBytes, lengthBytes, done) =>
      fallocate.async(fd, mode, offsetBytes, lengthBytes, done),
    ftruncate: bound('int ftruncate(int, int64_t)'),
    getpagesize: bound('int getpagesize()'),
    close: bound('int close(int)'),
    ioUringSetup: (entries, params) => ioUringSetup(setup, entries, params),
    ioUringEnter: (fd, submit, complete, flags) => ioUringEnter(enter, fd, submit, complete, flags, 0, 0),
    ioUringWait: (fd, argument, done) =>
      ioUringEnter.async(enter, fd, 0, 1, ioUringGetEvents | extendedArgument, argument, 24, done),
    view: (address, lengthBytes) => koffi.view(BigInt(address), lengthBytes),
    poll: typeof poll === 'function' ? (fd, ready) => poll(fd, ready) : undefined,
    errno: () => koffi.errno(),
    lastError: (syscall, detail) => systemError(koffi.errno(), syscall, detail),
    bind: bound,
  }
}
