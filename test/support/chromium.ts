/** A headless Chromium for tests of pages. PITH_REQUIRE_TOOLS names `chromium` where it must work. */
import { existsSync } from 'node:fs';
import { pathToFileURL } from 'node:url';
import type { Browser, Page } from 'puppeteer-core';

const path = process.env['PUPPETEER_EXECUTABLE_PATH'] ?? '/usr/bin/chromium';
const required = (process.env['PITH_REQUIRE_TOOLS'] ?? '').split(',').includes('chromium');

/** The browser, or why this machine has none. A required one throws instead. */
async function launch(): Promise<Browser | string> {
  if (!existsSync(path) && !required) return `no file ${path}; PUPPETEER_EXECUTABLE_PATH names another`;
  const { launch } = await import('puppeteer-core');
  // root, as CI is, has no sandbox; containers have a small /dev/shm
  return launch({ executablePath: path, args: ['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage'] });
}

/** A suite with a browser; without one it is absent, not passed, and the log says so. */
export function describeInChromium(title: string, suite: (browser: () => Browser) => void): void {
  describe(`${title}, in Chromium`, () => {
    let browser: Browser | undefined;
    before(async function () {
      const got = await launch();
      if (typeof got !== 'string') {
        browser = got;
        return;
      }
      process.stdout.write(`    not run, Chromium is not here: ${got}\n`);
      this.test?.parent?.tests.splice(0);
      this.skip();
    });
    after(() => browser?.close());
    suite(() => browser!);
  });
}

export interface OpenOptions {
  readonly width?: number;
  readonly scheme?: 'light' | 'dark';
  readonly scripts?: boolean;
}

export interface OpenPage extends AsyncDisposable {
  readonly page: Page;
  /** Errors and warnings of the console, uncaught errors, refusals of the page's own policy. */
  readonly complaints: string[];
  /** Every URL that was asked for. */
  readonly requests: string[];
}

/** A local file as a reader sees it. */
export async function openFile(browser: Browser, file: string, options: OpenOptions = {}): Promise<OpenPage> {
  const page = await browser.newPage();
  const complaints: string[] = [];
  const requests: string[] = [];
  page.on('console', (message) => complaints.push(`${message.type()}: ${message.text()}`));
  page.on('pageerror', (error) => complaints.push(String(error)));
  page.on('request', (request) => requests.push(request.url()));
  page.on('requestfailed', (request) => complaints.push(`failed: ${request.url()}`));
  await page.setViewport({ width: options.width ?? 1200, height: 900 });
  await page.setJavaScriptEnabled(options.scripts !== false);
  await page.emulateMediaFeatures([{ name: 'prefers-color-scheme', value: options.scheme ?? 'light' }]);
  await page.goto(pathToFileURL(file).href, { waitUntil: 'load' });
  return { page, complaints, requests, [Symbol.asyncDispose]: () => page.close() };
}
