import { type ClientRequest, Agent as HttpAgent } from 'node:http'
import { Agent as HttpsAgent } from 'node:https'
import type { Duplex } from 'node:stream'
import { targetPrefix } from './request-head.ts'
import type { Route } from './route.ts'

/**
 * Agents that send the requests of the SDK's own handler the way that `Route` finds: with the same TLS options, and
 * through the same proxy.
 */

const agentOptions = { keepAlive: true, keepAliveMsecs: 15_000, maxSockets: 64 }
/** The handler has its own time to connect; this one ends what it has forgotten. */
const connectTimeoutMs = 60_000

interface RequestTarget {
  readonly host?: string | null | undefined
  readonly port?: number | string | null | undefined
}
type SocketCallback = (error: Error | null, socket: Duplex) => void
// What Node documents for agents, and what its types leave out.
interface AgentInside {
  addRequest(request: ClientRequest, target: RequestTarget): void
}

/** For `http:`: through a proxy the request names the whole address. */
class RoutedHttpAgent extends HttpAgent {
  readonly #route: Route

  constructor(route: Route) {
    super(agentOptions)
    this.#route = route
  }

  addRequest(request: ClientRequest, target: RequestTarget): void {
    const host = target.host ?? 'localhost'
    const port = Number(target.port ?? 80)
    const proxy = this.#route.proxyFor({ host, port, secure: false })
    if (proxy !== undefined && request.path.startsWith('/')) {
      request.path = targetPrefix({ secure: false, host, port }) + request.path
      if (proxy.authorization !== undefined) request.setHeader('proxy-authorization', proxy.authorization)
    }
    ;(HttpAgent.prototype as unknown as AgentInside).addRequest.call(this, request, target)
  }

  override createConnection(target: RequestTarget, done?: SocketCallback): undefined {
    open(this.#route, false, target, done!)
  }
}

/** For `https:`: through a proxy by way of a tunnel. */
class RoutedHttpsAgent extends HttpsAgent {
  readonly #route: Route

  constructor(route: Route) {
    super(agentOptions)
    this.#route = route
  }

  override createConnection(target: RequestTarget, done?: SocketCallback): undefined {
    open(this.#route, true, target, done!)
  }
}

function open(route: Route, secure: boolean, target: RequestTarget, done: SocketCallback): void {
  const port = Number(target.port ?? (secure ? 443 : 80))
  route.open({ secure, host: target.host ?? 'localhost', port }, undefined, connectTimeoutMs).then(
    ({ socket }) => done(null, socket),
    (error: Error) => done(error, undefined as never),
  )
}

/** The agents of a route, for the options of the SDK's handler. */
export function routedAgents(route: Route): { httpAgent: HttpAgent; httpsAgent: HttpsAgent } {
  return { httpAgent: new RoutedHttpAgent(route), httpsAgent: new RoutedHttpsAgent(route) }
}
