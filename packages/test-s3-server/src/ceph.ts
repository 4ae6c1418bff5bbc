/**
 * A throwaway Ceph cluster on this machine, by way of `scripts/ceph/cluster.sh` of the repository, which is not part of the
 * published package: started here, or found in the environment.
 */
import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'

const run = promisify(execFile)
const clusterScript = fileURLToPath(new URL('../../../scripts/ceph/cluster.sh', import.meta.url))

/** What can be done to the cluster while requests are under way. Each resolves once it has been done. */
export interface CephControl {
  /** SIGKILL for the S3 gateway: its connections break and new ones are refused. */
  killGateway(): Promise<void>
  /** SIGKILL for the storage daemon: the gateway takes requests and does not answer them. */
  killOsd(): Promise<void>
  /** SIGSTOP for the gateway: connections are taken and nothing is answered, until `thaw`. */
  freezeGateway(): Promise<void>
  freezeOsd(): Promise<void>
  thaw(): Promise<void>
  /** Starts what was killed again, with its data, and waits until the gateway answers. */
  restart(): Promise<void>
}

/**
 * The control of the cluster that the environment names (`CEPH_CONTROL`, the path of a script that takes `kill-gateway`,
 * `kill-osd`, `freeze-gateway`, `freeze-osd`, `thaw` and `restart`); undefined where it names none.
 */
export function cephControl(): CephControl | undefined {
  const script = process.env['CEPH_CONTROL']
  return script ? controlOf(script, process.env) : undefined
}

function controlOf(script: string, env: NodeJS.ProcessEnv): CephControl {
  const command = (name: string) => async () => {
    await run(script, [name], { env })
  }
  return {
    killGateway: command('kill-gateway'),
    killOsd: command('kill-osd'),
    freezeGateway: command('freeze-gateway'),
    freezeOsd: command('freeze-osd'),
    thaw: command('thaw'),
    restart: command('restart'),
  }
}

export interface CephCluster extends AsyncDisposable {
  /** The variables that make `s3Target()` take this cluster: `S3_ENDPOINT`, keys, region, `CEPH_CONTROL`, … */
  readonly environment: Readonly<Record<string, string>>
  readonly control: CephControl
  /** Stops the daemons and removes all they stored. A second call does nothing. */
  close(): Promise<void>
}

/**
 * Starts a cluster in a directory of its own; it is stopped when this process ends, however it does. Ceph has to be
 * installed (`scripts/ceph/install.sh` does that).
 * @param options.store `bluestore`, the default, is what a real cluster runs; `memstore` starts in 1 s instead of 8
 */
export async function startCeph(
  options: { store?: 'bluestore' | 'memstore'; storeBytes?: number } = {},
): Promise<CephCluster> {
  if (!existsSync(clusterScript)) {
    throw new Error('Ceph is started by a script of the Spillway repository, and this is no checkout of it')
  }
  const directory = await mkdtemp(join(tmpdir().length <= 40 ? tmpdir() : '/tmp', 'spillway-ceph-'))
  const env: NodeJS.ProcessEnv = {
    ...process.env,
    CEPH_DIR: directory,
    CEPH_OWNER_PID: String(process.pid),
    CEPH_KEEP: '',
    ...(options.store ? { CEPH_STORE: options.store } : {}),
    ...(options.storeBytes ? { CEPH_STORE_BYTES: String(options.storeBytes) } : {}),
  }
  const stop = async () => {
    await run(clusterScript, ['stop'], { env })
    await rm(directory, { recursive: true, force: true })
  }
  let output: string
  try {
    output = (await run(clusterScript, ['start'], { env })).stdout
  } catch (error) {
    await stop()
    throw error
  }
  const environment: Record<string, string> = {}
  for (const [, name, value] of output.matchAll(/^export ([A-Z0-9_]+)='?(.*?)'?$/gm))
    environment[name!] = value!
  let closing: Promise<void> | undefined
  const close = () => {
    closing ??= stop()
    return closing
  }
  return { environment, control: controlOf(clusterScript, env), close, [Symbol.asyncDispose]: close }
}
