import { systemCodeOf } from '@spillway/core'

/**
 * What a file backup needs of `node:fs`, in the callback form that `node:fs`, memfs and other stand-ins share. File
 * descriptors are numbers; a failure carries the errno's name as `code`.
 */
export interface FileSystem {
  readonly constants: Readonly<Record<string, unknown>>
  open(path: string, flags: number, mode: number, done: Done): void
  close(fileDescriptor: number, done: Done): void
  read(
    fileDescriptor: number,
    into: Uint8Array,
    offset: number,
    lengthBytes: number,
    position: number,
    done: Done,
  ): void
  write(
    fileDescriptor: number,
    from: Uint8Array,
    offset: number,
    lengthBytes: number,
    position: number,
    done: Done,
  ): void
  fstat(fileDescriptor: number, done: Done): void
  fstatSync(fileDescriptor: number): FileStatus
  lstat(path: string, done: Done): void
  stat(path: string, done: Done): void
  fchmod(fileDescriptor: number, mode: number, done: Done): void
  ftruncate(fileDescriptor: number, lengthBytes: number, done: Done): void
  fdatasync(fileDescriptor: number, done: Done): void
  /** Of a persistent file only. */
  fsync?(fileDescriptor: number, done: Done): void
  unlink(path: string, done: Done): void
  statfs(path: string, done: Done): void
}

// biome-ignore lint/suspicious/noExplicitAny: stand-ins type their callbacks each in their own way.
type Done = (error: any, value?: any, more?: any) => void

export interface FileStatus {
  readonly dev: number
  readonly ino: number
  readonly uid: number
  readonly mode: number
  readonly size: number
  readonly blocks: number
  readonly nlink?: number
  readonly rdev?: number
  isFile(): boolean
  isBlockDevice?(): boolean
  isDirectory(): boolean
  isSymbolicLink(): boolean
}

export interface FileSystemStatus {
  readonly type?: number
  readonly bsize: number
  readonly blocks: number
  readonly bavail: number
}

/** The same calls as promises; the few that are on no hot path. */
export class Files {
  readonly fileSystem: FileSystem
  /** Whether this is the system's own file system: only then are there direct I/O, rings and /proc. */
  readonly isSystem: boolean

  constructor(fileSystem: FileSystem, isSystem: boolean) {
    this.fileSystem = fileSystem
    this.isSystem = isSystem
  }

  /** Value of a constant of `node:fs`, 0 where the platform has none. */
  flag(name: string): number {
    const value = this.fileSystem.constants[name]
    return typeof value === 'number' ? value : 0
  }

  open(path: string, flags: number, mode = 0): Promise<number> {
    return settled((done) => this.fileSystem.open(path, flags, mode, done))
  }

  close(fileDescriptor: number): Promise<void> {
    return settled((done) => this.fileSystem.close(fileDescriptor, done))
  }

  read(fileDescriptor: number, into: Uint8Array, positionBytes: number): Promise<number> {
    return settled((done) =>
      this.fileSystem.read(fileDescriptor, into, 0, into.byteLength, positionBytes, done),
    )
  }

  write(fileDescriptor: number, from: Uint8Array, positionBytes: number): Promise<number> {
    return settled((done) =>
      this.fileSystem.write(fileDescriptor, from, 0, from.byteLength, positionBytes, done),
    )
  }

  fstat(fileDescriptor: number): Promise<FileStatus> {
    return settled((done) => this.fileSystem.fstat(fileDescriptor, done))
  }

  lstat(path: string): Promise<FileStatus> {
    return settled((done) => this.fileSystem.lstat(path, done))
  }

  stat(path: string): Promise<FileStatus> {
    return settled((done) => this.fileSystem.stat(path, done))
  }

  fchmod(fileDescriptor: number, mode: number): Promise<void> {
    return settled((done) => this.fileSystem.fchmod(fileDescriptor, mode, done))
  }

  ftruncate(fileDescriptor: number, lengthBytes: number): Promise<void> {
    return settled((done) => this.fileSystem.ftruncate(fileDescriptor, lengthBytes, done))
  }

  fdatasync(fileDescriptor: number): Promise<void> {
    return settled((done) => this.fileSystem.fdatasync(fileDescriptor, done))
  }

  fsync(fileDescriptor: number): Promise<void> {
    return settled((done) => this.fileSystem.fsync!(fileDescriptor, done))
  }

  unlink(path: string): Promise<void> {
    return settled((done) => this.fileSystem.unlink(path, done))
  }

  statfs(path: string): Promise<FileSystemStatus> {
    return settled((done) => this.fileSystem.statfs(path, done))
  }
}

function settled<Value>(call: (done: Done) => void): Promise<Value> {
  return new Promise((resolve, reject) => {
    call((error, value) => {
      if (error) reject(error)
      else resolve(value as Value)
    })
  })
}

/** The errno's name that a failure carries, whether Node has a name for it or not. */
export const codeOf: (failure: unknown) => string | undefined = systemCodeOf
