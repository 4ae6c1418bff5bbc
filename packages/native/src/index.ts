export { available, type NativeAvailability } from './available.ts'
export type { NativeError } from './errors.ts'
export { allocate, createMemfd, punchHole } from './files.ts'
export { Mapping, mappedAddress, systemPageBytes } from './mapping.ts'
