#!/usr/bin/env node
import { Command, CommanderError } from 'commander'
import { backendNames } from './backends.ts'
import { workloads } from './case/workloads.ts'
import { compareCommand } from './compare-command.ts'
import { type ConformArguments, conformCommand } from './conform-command.ts'
import { dataSets } from './input/data-sets.ts'
import { type LargeArguments, largeCommand } from './large-command.ts'
import { ownVersion } from './machine.ts'
import { peers } from './peers/registry.ts'
import { simulatorNames } from './policy/simulators.ts'
import { traceKinds } from './policy/traces.ts'
import { type PolicyArguments, policyCommand } from './policy-command.ts'
import { reportCommand } from './report-command.ts'
import { runCommand } from './run-command.ts'
import { parseRunOptions, peersDefaults, quickDefaults, type RunArguments } from './run-options.ts'
import { type ScaleArguments, scaleCommand } from './scale-command.ts'
import { selfTestCommand } from './self-test-command.ts'
import { type SoakArguments, soakCommand } from './soak-command.ts'
import { failureLine, UsageError } from './usage-error.ts'
import { verifyCommand } from './verify-command.ts'

/*
 * Exit status: 0 all right, 1 a byte was wrong or a case failed or something became slower or grew, 2 bad usage or a store that nobody could
 * look at, 130 interrupted.
 */

const stop = new AbortController()
let interrupted = false
for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.on(signal, () => {
    interrupted = true
    stop.abort(new Error('interrupted'))
  })
}

function buildProgram(): Command {
  const program = new Command('spillway-bench')
    .description(
      'Runs pools on every backend with real files, proves that no byte was lost, and compares them with the physical limits.',
    )
    .version(ownVersion())
    .exitOverride()
    .configureOutput({ outputError: (text, write) => write(text) })
  for (const add of [
    addRun,
    addCompare,
    addReport,
    addConform,
    addScale,
    addSoak,
    addLarge,
    addPolicy,
    addVerify,
    addSelfTest,
  ])
    add(program)
  return program
}

function addRun(program: Command): void {
  addS3Options(program.command('run'))
    .description('measure backends with real files under a memory limit')
    .option(
      '--backend <names>',
      `may be given several times, or comma-separated: ${backendNames().join(', ')}, made of them: tiered(shmem:256MiB,file), compressed(file), encrypted(file), nested; or the path of a module; with a label: mine=./my-backup.mjs`,
      joinRepeated(),
      'shmem,file',
    )
    .option(
      '--input <paths...>',
      'files and directories to load (default: node_modules and the node executable)',
    )
    .option('--data <set>', `in place of files, made data: ${dataSets.join(', ')}`)
    .option('--limit <size>', 'memory limit of the pool', '256MiB')
    .option('--overcommit <factor>', 'how many times the limit the data is', '4')
    .option(
      '--workload <names>',
      `comma-separated: ${workloads.map(({ name }) => name).join(', ')}`,
      'sweep,random,zipf',
    )
    .option('--page-size <size>', 'size of a page: a power of two from 4KiB to 2MiB', '4KiB')
    .option('--buffer-size <size>', 'size of a buffer (default: 8MiB, less with a small limit)')
    .option('--rounds <count>', 'measured rounds; one more warms up', '5')
    .option('--concurrency <count>', 'touches in flight', '4')
    .option(
      '--directory <path>',
      'where the file backend and the raw file measurements work (default: a temporary directory on a disk)',
    )
    .option('--io <engine>', 'file backend: auto, uring or threads', 'auto')
    .option('--checksums <on|off>', 'file backend: a checksum for every page', 'on')
    .option('--seed <number>', 'of salts and draws: the same seed gives the same run', '1')
    .option('--budget <seconds>', 'measure less in each round to be done in this time, or off', '90')
    .option('--patience <seconds>', 'a case that makes no progress for so long has failed', '120')
    .option(
      '--peers [names]',
      `also measure what one would take instead, in turns with the backends and under the same memory limits: ${peers.map(({ name }) => name).join(', ')}; packages are installed into a temporary directory (then --workload is ${peersDefaults.workload} and --data ${peersDefaults.data}, unless given)`,
    )
    .option('--live', 'show each pool while it runs on a page of this machine, whose address is printed')
    .option('--no-ceilings', 'do not measure what the machine can do at most')
    .option(
      '--quick',
      `small: limit ${quickDefaults.limit}, overcommit ${quickDefaults.overcommit}, ${quickDefaults.rounds} rounds, unless given`,
    )
    .option('--json <file>', 'result as JSON', 'bench-results/run.json')
    .option('--no-json', 'no JSON')
    .option('--report <file>', 'result as a self-contained HTML page', 'bench-results/run.html')
    .option('--no-report', 'no HTML page')
    .action(async (given: RunArguments, command: Command) => {
      process.exitCode = await runCommand(
        parseRunOptions(withPeers(withQuick(given, command), command)),
        stop.signal,
      )
    })
}

/** What `run` takes for the backend `s3`. */
function addS3Options(command: Command): Command {
  return command
    .option(
      '--s3 <server>',
      'for backend s3: embedded, ceph, or env for the one of the environment',
      'embedded',
    )
    .option('--s3-latency <time>', 'added to every answer of the embedded server', '0ms')
    .option('--s3-errors <share>', 'of requests that the embedded server answers with 503', '0%')
    .option(
      '--s3-matrix',
      'also move S3 segments with 0, 20 and 100 ms added and with 1 % errors (embedded server, a minute more)',
    )
}

function addCompare(program: Command): void {
  program
    .command('compare')
    .description('compare the JSON of two runs; exit status 1 when the second is slower')
    .argument('<first>', 'JSON of the first run')
    .argument('<second>', 'JSON of the second run')
    .option('--threshold <percent>', 'how much slower is a regression', '10')
    .action((first: string, second: string, { threshold }: { threshold: string }) => {
      process.exitCode = compareCommand(first, second, threshold)
    })
}

function addReport(program: Command): void {
  program
    .command('report')
    .description('draw runs that were measured before, side by side, as one HTML page')
    .argument('<files...>', "JSON files that 'run' wrote")
    .option('--report <file>', 'the page', 'bench-results/report.html')
    .action(async (files: string[], { report }: { report: string }) => {
      process.exitCode = await reportCommand(files, report)
    })
}

function addConform(program: Command): void {
  program
    .command('conform')
    .description(
      'try every demand of the conformance suite on a backend, and say in words what does not hold',
    )
    .argument('<backend>', 'the path of a module, or a backend of the bench')
    .option('--page-size <size>', 'size of a page: a power of two from 4KiB to 2MiB', '4KiB')
    .option('--patience <seconds>', 'a demand that is not settled after so long does not hold', '120')
    .option('--seed <number>', 'of the random histories: the same seed gives the same ones', '1')
    .option(
      '--directory <path>',
      'where backends keep their files (default: a temporary directory on a disk)',
    )
    .action(async (backend: string, given: ConformArguments) => {
      process.exitCode = await conformCommand(backend, given, stop.signal)
    })
}

function addScale(program: Command): void {
  program
    .command('scale')
    .description('measure what the pool costs by itself, from 1 GiB to 1 TiB in the null backup')
    .option('--max <size>', 'how much to back up', '1TiB')
    .option('--limit <size>', 'memory limit of the pool', '256MiB')
    .option('--json <file>', 'result as JSON', 'bench-results/scale.json')
    .option('--no-json', 'no JSON')
    .action(async (given: ScaleArguments) => {
      process.exitCode = await scaleCommand(given, stop.signal)
    })
}

function addSoak(program: Command): void {
  program
    .command('soak')
    .description('random operations for minutes or hours, every byte checked, with faults')
    .option('--minutes <number>', 'how long', '1')
    .option('--overcommit <factor>', 'how many times the limit the data is; 2..10 for stages', '2..10')
    .option('--backend <name>', 'one backend', 'shmem')
    .option('--limit <size>', 'memory limit of the pool', '64MiB')
    .option('--faults', 'let calls of the backup fail and dawdle, drawn from the seed')
    .option('--seed <number>', 'of operations and faults (default: random, and printed)')
    .option('--directory <path>', 'where the file backend works')
    .option(
      '--s3 <server>',
      'for backend s3: embedded, ceph, or env for the one of the environment',
      'embedded',
    )
    .option('--kill', 'kill and freeze daemons of the Ceph cluster, drawn from the seed')
    .option('--s3-faults', 'let the embedded server refuse, break off, forget to answer and flip bits')
    .option('--json <file>', 'result as JSON', 'bench-results/soak.json')
    .option('--no-json', 'no JSON')
    .action(async (given: SoakArguments) => {
      process.exitCode = await soakCommand(given, stop.signal)
    })
}

function addLarge(program: Command): void {
  program
    .command('large')
    .description(
      'write, read at random and verify one buffer many times larger than the limit, and watch memory',
    )
    .option('--size <size>', 'how large the buffer is', '10GiB')
    .option('--limit <size>', 'memory limit of the pool', '256MiB')
    .option('--headroom <size>', 'how much more than the limit may become resident', '32MiB')
    .option('--backend <name>', 'file or shmem, or a variant', 'file')
    .option('--seed <number>', 'of the content and the ranges', '1')
    .option('--directory <path>', 'where the file backend works')
    .option('--json <file>', 'result as JSON', 'bench-results/large.json')
    .option('--no-json', 'no JSON')
    .action(async (given: LargeArguments) => {
      process.exitCode = await largeCommand(given, stop.signal)
    })
}

function addPolicy(program: Command): void {
  program
    .command('policy')
    .description('compare hit rates and backup writes of the pool with policies simulated on the same traces')
    .option('--trace <names>', `comma-separated: ${traceKinds.map(({ name }) => name).join(', ')}`, 'all')
    .option('--file <path>', 'follow this trace instead: lines of r or w and a page number')
    .option('--policy <names>', `comma-separated: ${simulatorNames.join(', ')}`, 'all')
    .option('--pages <count>', 'how many pages fit under the limit', '1024')
    .option('--length <factor>', 'accesses of a trace, as a multiple of the pages that fit', '60')
    .option('--chunk-pages <count>', 'let each page of a trace be a chunk of so many pages', '1')
    .option('--no-background', 'store pages only when their memory is needed')
    .option('--seed <number>', 'of the traces: the same seed gives the same ones', '1')
    .option('--json <file>', 'result as JSON', 'bench-results/policy.json')
    .option('--no-json', 'no JSON')
    .action(async (given: PolicyArguments) => {
      process.exitCode = await policyCommand(given, stop.signal)
    })
}

function addVerify(program: Command): void {
  program
    .command('verify')
    .description(
      'read every page of every image of a persistent file that nobody has open, and say what is wrong; changes nothing',
    )
    .argument('<store>', 'the file')
    .action(async (store: string) => {
      process.exitCode = await verifyCommand(store, stop.signal)
    })
}

function addSelfTest(program: Command): void {
  program
    .command('self-test')
    .description('spoil a backend on purpose and check that the bench notices every time')
    .action(async () => {
      process.exitCode = await selfTestCommand(stop.signal)
    })
}

/** Joins the values of an option that is given several times; the first takes the place of the default. */
function joinRepeated(): (value: string) => string {
  const values: string[] = []
  return (value) => {
    values.push(value)
    return values.join(',')
  }
}

/** `--quick` changes defaults only: what was said on the command line stays. */
function withQuick(given: RunArguments, command: Command): RunArguments {
  if (!given.quick) return given
  const names = Object.keys(quickDefaults) as (keyof typeof quickDefaults)[]
  const changed = names.filter((name) => command.getOptionValueSource(name) === 'default')
  return { ...given, ...Object.fromEntries(changed.map((name) => [name, quickDefaults[name]])) }
}

/** So does `--peers`. */
function withPeers(given: RunArguments, command: Command): RunArguments {
  if (given.peers === undefined) return given
  const { workload, data } = peersDefaults
  return {
    ...given,
    ...(command.getOptionValueSource('workload') === 'default' ? { workload } : {}),
    ...(given.input === undefined && given.data === undefined ? { data } : {}),
  }
}

try {
  await buildProgram().parseAsync()
} catch (failure) {
  if (interrupted) process.exitCode = 130
  else if (failure instanceof CommanderError) process.exitCode = failure.exitCode === 0 ? 0 : 2
  else {
    console.error(`spillway-bench: ${failureLine(failure)}`)
    if (process.env['SPILLWAY_BENCH_STACKS']) console.error(failure)
    process.exitCode = failure instanceof UsageError ? 2 : 1
  }
}
