import { type ChildProcess, spawn } from 'node:child_process'
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'

const places = ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome']

/** Where Chromium is, if it is here. */
export function findChromium(): string | undefined {
  return [process.env['CHROMIUM'], ...places].find((path) => path !== undefined && existsSync(path))
}

/** A page in a headless Chromium, over its own debugging protocol. */
export class ChromiumPage implements AsyncDisposable {
  readonly #browser: ChildProcess
  readonly #socket: WebSocket
  readonly #folder: string
  readonly #answers = new Map<number, (answer: { result?: unknown; error?: { message: string } }) => void>()
  #id = 0
  /** What the page said on its console, what it threw, and what it asked for from elsewhere. */
  readonly problems: string[] = []
  readonly requests: string[] = []

  private constructor(browser: ChildProcess, socket: WebSocket, folder: string) {
    this.#browser = browser
    this.#socket = socket
    this.#folder = folder
    socket.addEventListener('message', ({ data }) => this.#hear(JSON.parse(String(data))))
  }

  static async open(path: string): Promise<ChromiumPage> {
    const folder = mkdtempSync(join(tmpdir(), 'spillway-chromium-'))
    const flags = ['--headless=new', '--no-sandbox', '--disable-gpu', '--remote-debugging-port=0']
    const browser = spawn(path, [...flags, `--user-data-dir=${folder}`, 'about:blank'], {
      stdio: 'ignore',
      env: { ...process.env, HOME: folder },
    })
    const port = await portOf(folder)
    const targets = (await (await fetch(`http://127.0.0.1:${port}/json/list`)).json()) as {
      type: string
      webSocketDebuggerUrl: string
    }[]
    const socket = new WebSocket(targets.find(({ type }) => type === 'page')!.webSocketDebuggerUrl)
    await new Promise((resolve, reject) => {
      socket.addEventListener('open', resolve, { once: true })
      socket.addEventListener('error', reject, { once: true })
    })
    const page = new ChromiumPage(browser, socket, folder)
    for (const domain of ['Page', 'Runtime', 'Network', 'Log', 'Accessibility'])
      await page.send(`${domain}.enable`)
    return page
  }

  /** One command of the protocol. */
  send(method: string, params: object = {}): Promise<Record<string, unknown>> {
    const id = ++this.#id
    return new Promise((resolve, reject) => {
      this.#answers.set(id, ({ result, error }) =>
        error === undefined
          ? resolve(result as Record<string, unknown>)
          : reject(new Error(`${method}: ${error.message}`)),
      )
      this.#socket.send(JSON.stringify({ id, method, params }))
    })
  }

  async show(url: string, look: { readonly width: number; readonly dark?: boolean }): Promise<void> {
    await this.look(look)
    await this.send('Page.navigate', { url })
  }

  /** How wide it is, and which colours are wanted. */
  async look({ width, dark = false }: { readonly width: number; readonly dark?: boolean }): Promise<void> {
    await this.send('Emulation.setDeviceMetricsOverride', {
      width,
      height: 900,
      deviceScaleFactor: 1,
      mobile: false,
    })
    const features = [{ name: 'prefers-color-scheme', value: dark ? 'dark' : 'light' }]
    await this.send('Emulation.setEmulatedMedia', { features })
  }

  /** The value of an expression in the page. */
  async value<Value>(expression: string): Promise<Value> {
    const { result, exceptionDetails } = (await this.send('Runtime.evaluate', {
      expression,
      returnByValue: true,
      awaitPromise: true,
    })) as { result: { value: Value }; exceptionDetails?: { text: string } }
    if (exceptionDetails !== undefined) throw new Error(`${expression}: ${exceptionDetails.text}`)
    return result.value
  }

  /** Waits until an expression holds in the page. */
  async until(expression: string): Promise<void> {
    while (!(await this.value<boolean>(`Boolean(${expression})`))) await delay(50)
  }

  async press(key: string): Promise<void> {
    for (const type of ['keyDown', 'keyUp'])
      await this.send('Input.dispatchKeyEvent', {
        type,
        key,
        code: key,
        windowsVirtualKeyCode: keyCodes[key],
      })
  }

  /** The whole page as PNG. */
  async screenshot(): Promise<Buffer> {
    const { data } = await this.send('Page.captureScreenshot', { format: 'png', captureBeyondViewport: true })
    return Buffer.from(String(data), 'base64')
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const ended = new Promise((resolve) => this.#browser.once('exit', resolve))
    // Not by a command: the browser may be gone before it answers.
    this.#browser.kill('SIGKILL')
    this.#socket.close()
    await ended
    rmSync(this.#folder, { recursive: true, force: true, maxRetries: 5, retryDelay: 100 })
  }

  #hear(message: { id?: number; method?: string; params?: Record<string, never> }): void {
    if (message.id !== undefined) {
      this.#answers.get(message.id)?.(message as never)
      this.#answers.delete(message.id)
    } else if (message.method === 'Runtime.exceptionThrown' || message.method === 'Log.entryAdded')
      this.problems.push(JSON.stringify(message.params))
    else if (message.method === 'Network.requestWillBeSent')
      this.requests.push((message.params as unknown as { request: { url: string } }).request.url)
  }
}

const keyCodes: Readonly<Record<string, number>> = { Tab: 9, Enter: 13, ArrowRight: 39, ArrowDown: 40 }

async function portOf(folder: string): Promise<number> {
  const file = join(folder, 'DevToolsActivePort')
  for (;;) {
    const port = existsSync(file) ? Number.parseInt(readFileSync(file, 'utf8'), 10) : Number.NaN
    if (!Number.isNaN(port)) return port
    await delay(50)
  }
}
