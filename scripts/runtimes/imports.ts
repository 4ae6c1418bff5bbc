/**
 * Imports all packages but backup-s3: the AWS SDK that it imports asks for the environment by itself. Where the process has no
 * permissions, importing has to work all the same.
 */
import '@spillway/core'
import '@spillway/native'
import '@spillway/backup-shmem'
import '@spillway/backup-compressed'
import '@spillway/backup-encrypted'
import '@spillway/backup-file'
import '@spillway/backup-tiered'
import '@spillway/pool'

console.log('imported')
