/**
 * Stands in for `@aws-sdk/client-s3` in the simulator: commands without a serialiser, and stacks that hold nothing but
 * the middleware that the package adds. What the package does with a command and its answer is the same; what the SDK
 * would do in between costs more than all the rest of a history.
 */

type Next = (args: object) => Promise<unknown>
type Middleware = (next: Next, context: object) => Next

class PlainStack {
  readonly #middleware: Middleware[] = []

  add(middleware: Middleware): void {
    this.#middleware.push(middleware)
  }

  addRelativeTo(middleware: Middleware): void {
    this.#middleware.push(middleware)
  }

  identify(): string[] {
    return []
  }

  resolve(handler: Next, context: object): Next {
    let next = handler
    for (const middleware of this.#middleware) next = middleware(next, context)
    return next
  }
}

class PlainCommand {
  readonly input: object
  readonly middlewareStack = new PlainStack()

  constructor(input: object) {
    this.input = input
  }
}

export class PutObjectCommand extends PlainCommand {}
export class GetObjectCommand extends PlainCommand {}
export class HeadObjectCommand extends PlainCommand {}
export class ListObjectsV2Command extends PlainCommand {}
export class DeleteObjectCommand extends PlainCommand {}
export class DeleteObjectsCommand extends PlainCommand {}

/** Only compared with the simulated client, which is never like it. */
export class S3Client {
  readonly config = {}
  readonly middlewareStack = new PlainStack()

  send(): Promise<never> {
    return Promise.reject(new Error('nobody sends with this client'))
  }
}
