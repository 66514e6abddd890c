/**
 * Byte ranges of a file behind http or https (RFC 9110, section 14), read in order with retries. The file must stay the same between
 * two answers: size and ETag (else Last-Modified) are compared. A server that ignores `Range` is read from the file's start instead.
 */
import { PithError } from '../../core/errors.js';
import { pithVersion } from '../../core/version.js';

/** As the global `fetch`; whoever needs credentials wraps it. */
export type Fetch = (url: string, init: { readonly headers: Record<string, string>; readonly signal: AbortSignal }) => Promise<Response>;

export interface RemoteOptions {
  readonly fetch?: Fetch;
  readonly signal?: AbortSignal;
  /** Waits between attempts, ms: so many failures in a row are survived. */
  readonly delaysMs?: readonly number[];
  /** An answer that brings nothing for so long counts as cut. */
  readonly idleMs?: number;
}

/** Takes bytes of the file at their position: those that were asked for, and those in front of them that a server without ranges sends too. */
export type Write = (position: number, bytes: Uint8Array) => void;

const DELAYS_MS = [250, 500, 1000, 2000, 4000, 8000];
const IDLE_MS = 60_000;
const LONGEST_RETRY_AFTER_MS = 60_000;
/** So much in front of a range is read where the server has no ranges. */
const MOST_SKIPPED = 1 << 30;
/** No server of that name, or none that can be trusted. */
const PERMANENT = /^(ENOTFOUND|ERR_INVALID_URL|ERR_TLS|CERT_|DEPTH_ZERO|SELF_SIGNED|UNABLE_TO)/;
/** Nobody listens: permanent, unless somebody did a moment ago. */
const REFUSED = 'ECONNREFUSED';

/** A failure that may pass: the next attempt goes on from the last byte. */
class Transient extends Error {
  constructor(
    message: string,
    readonly retryAfterMs = 0,
  ) {
    super(message);
  }
}

export const isRemote = (path: string): boolean => /^https?:\/\//i.test(path);

/** A URL for people: without the query, which may hold a signature. */
export function shownUrl(url: string): string {
  if (!URL.canParse(url)) return url;
  const { origin, pathname } = new URL(url);
  return origin + pathname;
}

type Reader = ReadableStreamDefaultReader<Uint8Array>;

/** The body of an answer that began at byte 0. */
interface Sequence {
  readonly reader: Reader;
  readonly abort: AbortController;
  position: number;
  pending: Uint8Array;
}

export class RemoteFile {
  readonly shown: string;
  /** Requests that were sent, and bytes of bodies that came. */
  requests = 0;
  received = 0;
  #bytes: number | undefined;
  #tag = '';
  /** The server ignores `Range`. */
  #whole = false;
  #sequence: Sequence | undefined;
  readonly #closing = new AbortController();
  readonly #stop: AbortSignal;

  private constructor(
    readonly url: string,
    private readonly options: RemoteOptions,
  ) {
    this.shown = shownUrl(url);
    this.#stop = options.signal === undefined ? this.#closing.signal : AbortSignal.any([this.#closing.signal, options.signal]);
  }

  /** Asks for the first `first` bytes and so learns the size. NOT_FOUND, NETWORK; CANCELLED when the signal says so. */
  static async open(url: string, first: number, write: Write, options: RemoteOptions = {}): Promise<RemoteFile> {
    if (!URL.canParse(url)) throw new PithError('USAGE', { message: `${url}: not a URL` });
    if (new URL(url).username !== '') throw new PithError('USAGE', { message: `${shownUrl(url)}: names and passwords in a URL are not taken` });
    const file = new RemoteFile(url, options);
    await file.#insist(0, first, write);
    return file;
  }

  /** Of the whole file. */
  get bytes(): number {
    return this.#bytes ?? 0;
  }

  /** Hands on bytes [begin, end), in order. FILE_CHANGED when the file is another one now; NETWORK when nothing more comes. */
  async read(begin: number, end: number, write: Write): Promise<void> {
    if (end > this.bytes) throw new PithError('INTERNAL', { message: `a read to ${end} of ${this.bytes} bytes` });
    await this.#insist(begin, end, write);
  }

  /** Ends what is under way: CANCELLED for who waits for it. */
  close(): void {
    this.#closing.abort();
    this.#endSequence();
  }

  #endSequence(): void {
    const sequence = this.#sequence;
    this.#sequence = undefined;
    sequence?.abort.abort();
    sequence?.reader.cancel().catch(() => undefined);
  }

  async #insist(begin: number, end: number, write: Write): Promise<void> {
    const delays = this.options.delaysMs ?? DELAYS_MS;
    let at = begin;
    let failures = 0;
    const got: Write = (position, bytes) => {
      write(position, bytes);
      at = Math.max(at, position + bytes.length);
      failures = 0;
    };
    while (at < Math.min(end, this.#bytes ?? Infinity)) {
      try {
        await this.#attempt(at, end, got);
      } catch (error) {
        if (this.#stop.aborted) throw new PithError('CANCELLED');
        if (!(error instanceof Transient)) throw error;
        const delay = delays[failures++];
        if (delay === undefined) throw this.#failed(`${error.message}; gave up after ${failures} attempts`);
        await pause(Math.max(delay, error.retryAfterMs), this.#stop);
      }
    }
  }

  async #attempt(at: number, end: number, got: Write): Promise<void> {
    if (this.#whole) return this.#sequential(at, end, got);
    const { response, abort } = await this.#request({ range: `bytes=${at}-${end - 1}` });
    if (response.status === 416) {
      this.#learn(response, 0);
      return;
    }
    if (response.status === 200) {
      this.#whole = true;
      this.#begin(response, abort);
      return this.#sequential(at, end, got);
    }
    const answer = /^bytes (\d+)-(\d+)\/(\d+)$/
      .exec(response.headers.get('content-range') ?? '')
      ?.slice(1)
      .map(Number);
    if (answer === undefined) return this.#drop(response, `no usable Content-Range: "${response.headers.get('content-range') ?? ''}"`);
    const [first, last, total] = answer as [number, number, number];
    this.#learn(response, total);
    if (first !== at || last < first || last >= Math.min(end, total))
      return this.#drop(response, `asked for bytes from ${at} to ${end}, got ${first} to ${last + 1}`);
    await this.#body(readerOf(response), abort, [first, last + 1], got);
  }

  async #body(reader: Reader, abort: AbortController, [begin, end]: readonly [number, number], got: Write): Promise<void> {
    try {
      let position = begin;
      for (;;) {
        const chunk = await this.#next(reader, abort);
        if (chunk === undefined) break;
        const bytes = chunk.subarray(0, end - position);
        if (bytes.length > 0) got(position, bytes);
        position += bytes.length;
        if (bytes.length < chunk.length) break;
      }
      if (position < end) cut();
    } finally {
      await reader.cancel().catch(() => undefined);
    }
  }

  /** From the one body that begins at byte 0; it is asked for again when it was cut or has gone past. */
  async #sequential(at: number, end: number, got: Write): Promise<void> {
    if (this.#sequence === undefined || this.#sequence.position > at) {
      this.#endSequence();
      if (at > MOST_SKIPPED) throw this.#failed(`the server gives no byte ranges, and ${at} bytes lie before those that are needed`);
      const { response, abort } = await this.#request({});
      if (response.status !== 200) return this.#drop(response, `HTTP ${response.status}`);
      this.#begin(response, abort);
    }
    const s = this.#sequence!;
    try {
      while (s.position < Math.min(end, this.bytes)) {
        if (s.pending.length === 0) s.pending = (await this.#next(s.reader, s.abort)) ?? cut();
        const take = s.pending.subarray(0, Math.min(end, this.bytes) - s.position);
        const begin = s.position;
        s.pending = s.pending.subarray(take.length);
        s.position += take.length;
        got(begin, take);
      }
    } catch (error) {
      this.#endSequence();
      throw error;
    }
  }

  #begin(response: Response, abort: AbortController): void {
    const length = response.headers.get('content-length');
    if (length === null || !/^\d+$/.test(length)) return this.#drop(response, 'the server gives neither byte ranges nor a length');
    this.#learn(response, Number(length));
    this.#sequence = { reader: readerOf(response), abort, position: 0, pending: new Uint8Array(0) };
  }

  /** Size and tag of the first answer; those of all others must be the same. */
  #learn(response: Response, bytes: number): void {
    const tag = response.headers.get('etag') ?? response.headers.get('last-modified') ?? '';
    if (!Number.isSafeInteger(bytes)) return this.#drop(response, 'a size beyond all files');
    if (this.#bytes === undefined) {
      this.#bytes = bytes;
      this.#tag = tag;
      return;
    }
    if (bytes === this.#bytes && tag === this.#tag) return;
    discard(response);
    throw new PithError('FILE_CHANGED', { file: this.shown, expected: `${this.#bytes} bytes ${this.#tag}`, got: `${bytes} bytes ${tag}` });
  }

  async #request(headers: Record<string, string>): Promise<{ response: Response; abort: AbortController }> {
    this.requests++;
    const abort = new AbortController();
    const signal = AbortSignal.any([abort.signal, this.#stop]);
    const fetch: Fetch = this.options.fetch ?? globalThis.fetch;
    // a body that is coded on the way has other positions
    const all = { 'accept-encoding': 'identity', 'user-agent': `pith/${pithVersion()}`, ...headers };
    let response: Response;
    try {
      response = await this.#watched(abort, fetch(this.url, { headers: all, signal }));
    } catch (error) {
      throw this.#failureOf(error);
    }
    this.#check(response);
    return { response, abort };
  }

  #check(response: Response): void {
    const { status, headers } = response;
    const coding = headers.get('content-encoding') ?? 'identity';
    if (this.url.startsWith('https:') && response.url.startsWith('http:')) this.#drop(response, 'led from https to http');
    if (status === 200 || status === 206) {
      if (coding !== 'identity') this.#drop(response, `the body is coded as ${coding}`);
      return;
    }
    // an empty file has no ranges; of one that had some it says that it is shorter now
    if (status === 416 && (this.#bytes !== undefined || isEmpty(response))) return;
    discard(response);
    if (status === 404 || status === 410) throw new PithError('NOT_FOUND', { file: this.shown });
    if (status === 408 || status === 425 || status === 429 || status >= 500) throw new Transient(`HTTP ${status}`, retryAfter(headers.get('retry-after')));
    throw this.#failed(`HTTP ${status}`);
  }

  /** The next bytes of a body, undefined at its end. */
  async #next(reader: Reader, abort: AbortController): Promise<Uint8Array | undefined> {
    try {
      const { done, value } = await this.#watched(abort, reader.read());
      if (done) return undefined;
      this.received += value.length;
      return value;
    } catch (error) {
      throw this.#failureOf(error);
    }
  }

  /** What `fetch` throws is a TypeError with the reason in its cause. */
  #failureOf(error: unknown): Error {
    if (error instanceof PithError || error instanceof Transient) return error;
    const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error;
    const code = cause instanceof Error && 'code' in cause ? String(cause.code) : '';
    const message = (cause instanceof Error ? cause.message : String(cause)) || code;
    const isPermanent = PERMANENT.test(code) || (code === REFUSED && this.#bytes === undefined);
    return isPermanent ? this.#failed(message) : new Transient(message);
  }

  async #watched<T>(abort: AbortController, wait: Promise<T>): Promise<T> {
    const ms = this.options.idleMs ?? IDLE_MS;
    const timer = setTimeout(() => abort.abort(new Transient(`nothing came for ${ms} ms`)), ms);
    return wait.finally(() => clearTimeout(timer));
  }

  #failed(message: string): PithError {
    return new PithError('NETWORK', { message: `${this.shown}: ${message}` });
  }

  #drop(response: Response, message: string): never {
    discard(response);
    throw this.#failed(message);
  }
}

function readerOf(response: Response): Reader {
  return (response.body ?? new Blob([]).stream()).getReader() as Reader;
}

function discard(response: Response): void {
  response.body?.cancel().catch(() => undefined);
}

function cut(): never {
  throw new Transient('the connection was cut');
}

const isEmpty = (response: Response): boolean => response.headers.get('content-range') === 'bytes */0';

/** Seconds or a date. */
function retryAfter(text: string | null): number {
  if (text === null) return 0;
  const ms = /^\d+$/.test(text) ? Number(text) * 1000 : Date.parse(text) - Date.now();
  return Number.isFinite(ms) ? Math.min(LONGEST_RETRY_AFTER_MS, Math.max(0, ms)) : 0;
}

async function pause(ms: number, signal: AbortSignal): Promise<void> {
  await new Promise<void>((resolve) => {
    const timer = setTimeout(done, ms);
    function done(): void {
      clearTimeout(timer);
      signal.removeEventListener('abort', done);
      resolve();
    }
    signal.addEventListener('abort', done, { once: true });
    if (signal.aborted) done();
  });
}
