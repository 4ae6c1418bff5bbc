/**
 * An S3 server for tests, and the faults that it can make.
 *
 * @module @spillway/test-s3-server
 */

export * from './ceph.ts'
export * from './embedded-server.ts'
export * as faults from './faults.ts'
export type * from './server/protocol.ts'
export { rgwQuirks } from './server/protocol.ts'
export * from './target.ts'
