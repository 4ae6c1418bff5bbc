import type { S3Client } from '@aws-sdk/client-s3'
import { type CommandInput, ObjectMap } from './object-map.ts'

interface Command {
  readonly input: CommandInput
  readonly middlewareStack: {
    add(middleware: unknown, options: object): void
    resolve(handler: unknown, context: object): (args: object) => Promise<{ output: unknown }>
  }
}

/** A service in this process, as fast as a map, that counts its requests. */
export class MapService {
  readonly objects = new ObjectMap(() => Date.now() + this.aheadMs)
  /** How far the service's clock is ahead of this machine's, in milliseconds. */
  aheadMs = 0
  /** Requests by the names of their commands, without `Command`. */
  readonly counts = new Map<string, number>()
  /** Keys that no listing shows. */
  unlisted: ReadonlySet<string> = new Set()
  /** Called before a request is done, which waits for it; what it throws is the answer. */
  onRequest: (verb: string, input: CommandInput) => void | Promise<void> = () => {}

  get requests(): number {
    return [...this.counts.values()].reduce((sum, count) => sum + count, 0)
  }

  /** A client of the service. */
  client(): S3Client {
    return { config: {}, send: (command: Command) => this.#send(command) } as unknown as S3Client
  }

  async #send(command: Command): Promise<unknown> {
    const { input, middlewareStack } = command
    const name = command.constructor.name
    const verb = name.replace(/Command$/, '')
    middlewareStack.add((next: unknown) => next, { step: 'finalizeRequest', name: 'httpSigningMiddleware' })
    const answer = async () => {
      this.counts.set(verb, (this.counts.get(verb) ?? 0) + 1)
      await this.onRequest(verb, input)
      const output = this.objects.perform(name, input) as { Contents?: { Key: string }[] }
      if (output.Contents !== undefined)
        output.Contents = output.Contents.filter(({ Key }) => !this.unlisted.has(Key))
      return { output, response: { headers: { date: this.objects.date }, statusCode: 200 } }
    }
    const handler = middlewareStack.resolve(answer, {})
    const { output } = await handler({ input, request: { headers: {} } })
    return output
  }
}
