/** A file server on 127.0.0.1 for tests of remote reads: counts what it sends, and misbehaves when told to. */
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

export interface Served {
  bytes: Uint8Array;
  etag?: string;
}

/** What becomes of one request; undefined: it is answered as it should be. */
export type Fault = { readonly status: number; readonly headers?: Record<string, string> } | { readonly cutAfter: number } | { readonly silentAfter: number };

export interface FileServer extends AsyncDisposable {
  readonly url: string;
  /** By path, without the leading `/`. */
  readonly files: Map<string, Served>;
  /** Answers byte ranges; else always the whole file. */
  ranges: boolean;
  /** Asked for each request, in order from 0. */
  fault: (n: number, range: string | undefined) => Fault | undefined;
  /** `Range` of each request. */
  readonly requests: (string | undefined)[];
  /** Bytes of bodies that were handed to the sockets. */
  sent: number;
  /** Answers without Content-Length, or with other headers. */
  headers: Record<string, string | undefined>;
}

export async function fileServer(files: Readonly<Record<string, Uint8Array>>): Promise<FileServer> {
  const server = createServer((request, response) => answer(state, request, response));
  await new Promise<void>((go) => server.listen(0, '127.0.0.1', go));
  const state: FileServer = {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    files: new Map(Object.entries(files).map(([name, bytes]) => [name, { bytes, etag: '"1"' }])),
    ranges: true,
    fault: () => undefined,
    requests: [],
    sent: 0,
    headers: {},
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections();
      await new Promise((go) => server.close(go));
    },
  };
  return state;
}

/** Bytes of one write: a cut falls between two. */
const STEP_BYTES = 4096;

function answer(state: FileServer, request: IncomingMessage, response: ServerResponse): void {
  const { range } = request.headers;
  const fault = state.fault(state.requests.length, range);
  state.requests.push(range);
  const file = state.files.get(new URL(request.url ?? '/', state.url).pathname.slice(1));
  if (fault !== undefined && 'status' in fault) return void response.writeHead(fault.status, fault.headers).end('no');
  if (file === undefined) return void response.writeHead(404).end('nothing here');
  const total = file.bytes.length;
  const asked = state.ranges ? /^bytes=(\d+)-(\d+)$/.exec(range ?? '') : null;
  const [begin, end] = asked === null ? [0, total] : [Number(asked[1]), Math.min(total, Number(asked[2]) + 1)];
  if (begin >= total && asked !== null) return void response.writeHead(416, { 'content-range': `bytes */${total}` }).end();
  const headers: Record<string, string | undefined> = {
    'content-length': String(end - begin),
    ...(file.etag === undefined ? {} : { etag: file.etag }),
    ...(asked === null ? {} : { 'content-range': `bytes ${begin}-${end - 1}/${total}` }),
    ...state.headers,
  };
  response.writeHead(asked === null ? 200 : 206, Object.fromEntries(Object.entries(headers).filter(([, v]) => v !== undefined)) as Record<string, string>);
  void send(state, response, file.bytes.subarray(begin, end), fault);
}

async function send(state: FileServer, response: ServerResponse, body: Uint8Array, fault: Fault | undefined): Promise<void> {
  const stop = fault === undefined ? Infinity : 'cutAfter' in fault ? fault.cutAfter : 'silentAfter' in fault ? fault.silentAfter : Infinity;
  for (let at = 0; at < body.length; at += STEP_BYTES) {
    if (response.destroyed) return;
    if (at >= stop) {
      if (fault !== undefined && 'cutAfter' in fault) response.destroy();
      return;
    }
    const step = body.subarray(at, Math.min(at + STEP_BYTES, stop));
    state.sent += step.length;
    await new Promise((go) => response.write(step, go));
  }
  response.end();
}
