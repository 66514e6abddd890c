/** Byte ranges over HTTP against a server that misbehaves: what comes is right or an error says why. */
import { expect } from 'chai';
import fc from 'fast-check';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { coalesced, totalBytes, without, type Interval } from '../../../formats/remote/intervals.js';
import { FIRST_BYTES, Mirror } from '../../../formats/remote/mirror.js';
import { isRemote, RemoteFile, shownUrl, type Fetch, type RemoteOptions } from '../../../formats/remote/ranges.js';
import { expectCode } from '../../support/expect-error.js';
import { tempDir } from '../../support/files.js';
import { fileServer, type Fault, type FileServer } from '../../support/http.js';

const BYTES = Uint8Array.from({ length: 200_000 }, (_, i) => (i * 31 + (i >> 8)) & 255);
/** Four retries without a wait worth the name. */
const FAST: RemoteOptions = { delaysMs: [1, 1, 1, 1] };

interface Read {
  readonly file: RemoteFile;
  readonly got: Uint8Array;
}

/** The first 1,000 bytes at the opening, then [begin, end). */
async function readRange(url: string, begin: number, end: number, options: RemoteOptions = FAST): Promise<Read> {
  const got = new Uint8Array(BYTES.length);
  const file = await RemoteFile.open(url, 1000, (at, bytes) => got.set(bytes, at), options);
  await file.read(begin, end, (at, bytes) => got.set(bytes, at));
  file.close();
  return { file, got };
}

const expectRange = ({ got }: Read, begin: number, end: number): void => {
  for (const [from, to] of [[0, 1000], [begin, end]] as const) expect(Buffer.compare(got.subarray(from, to), BYTES.subarray(from, to))).to.equal(0); // prettier-ignore
};

async function served(run: (server: FileServer, url: string) => Promise<void>): Promise<void> {
  await using server = await fileServer({ f: BYTES });
  await run(server, `${server.url}/f`);
}

/** The nth request meets the fault, all others are answered. */
const only =
  (n: number, fault: Fault) =>
  (i: number): Fault | undefined =>
    i === n ? fault : undefined;

describe('formats/remote intervals', () => {
  const ranges = fc.array(fc.tuple(fc.nat(60), fc.nat(20)).map(([b, n]): Interval => [b, b + n]));
  const set = (list: readonly Interval[]): Set<number> => new Set(list.flatMap(([b, e]) => Array.from({ length: e - b }, (_, i) => b + i)));

  it('are sets: union and difference agree with the sets of their bytes; sorted, disjoint, apart', () => {
    fc.assert(
      fc.property(ranges, ranges, (a, b) => {
        const [union, left] = [coalesced([...a, ...b]), without(a, b)];
        expect(set(union)).to.deep.equal(new Set([...set(a), ...set(b)]));
        expect(set(left)).to.deep.equal(new Set([...set(a)].filter((x) => !set(b).has(x))));
        for (const list of [union, left]) {
          expect(totalBytes(list)).to.equal(set(list).size);
          for (let i = 1; i < list.length; i++) expect(list[i]![0]).to.be.greaterThan(list[i - 1]![1]);
        }
      }),
    );
  });

  it('a gap that is allowed is bridged, a wider one is not', () => {
    expect(coalesced([[0, 4], [8, 9], [14, 20]], 4)).to.deep.equal([[0, 9], [14, 20]]); // prettier-ignore
  });
});

describe('formats/remote ranges', () => {
  it('reads the range that was asked for and no other byte', () =>
    served(async (server, url) => {
      const r = await readRange(url, 5000, 9000);
      expectRange(r, 5000, 9000);
      expect(server.requests).to.deep.equal(['bytes=0-999', 'bytes=5000-8999']);
      expect([server.sent, r.file.received, r.file.bytes]).to.deep.equal([5000, 5000, BYTES.length]);
    }));

  it('a small file comes whole with the first request; an empty one is empty', () =>
    served(async (server) => {
      server.files.set('small', { bytes: BYTES.subarray(0, 300) });
      server.files.set('empty', { bytes: new Uint8Array(0) });
      const small = await RemoteFile.open(`${server.url}/small`, 1000, () => undefined, FAST);
      expect([small.bytes, small.received, small.requests]).to.deep.equal([300, 300, 1]);
      expect((await RemoteFile.open(`${server.url}/empty`, 1000, () => undefined, FAST)).bytes).to.equal(0);
    }));

  for (const status of [408, 429, 500, 502, 503, 504]) {
    it(`HTTP ${status} is tried again, at the opening and later`, () =>
      served(async (server, url) => {
        server.fault = (n) => (n === 0 || n === 2 || n === 3 ? { status } : undefined);
        expectRange(await readRange(url, 5000, 9000), 5000, 9000);
        expect(server.requests.length).to.equal(5);
      }));
  }

  it('a cut connection goes on from the last byte that came', () =>
    served(async (server, url) => {
      server.fault = (n) => (n === 1 || n === 2 ? { cutAfter: 8192 } : undefined);
      expectRange(await readRange(url, 10_000, 60_000), 10_000, 60_000);
      const begins = server.requests.slice(1).map((r) => Number(/=(\d+)-/.exec(r!)![1]));
      expect(begins[0]).to.equal(10_000);
      expect(begins[1]).to.be.within(10_001, 18_192);
      expect(begins[2]).to.be.within(begins[1]!, 26_384);
      expect(server.sent).to.be.at.most(1000 + 50_000 + 2 * 8192);
    }));

  it('failures in a row are counted, not failures of the whole read', () =>
    served(async (server, url) => {
      server.fault = (n) => (n > 0 ? { cutAfter: 4096 } : undefined);
      expectRange(await readRange(url, 10_000, 60_000), 10_000, 60_000);
      expect(server.requests.length).to.be.greaterThan(10);
    }));

  it('NETWORK, exit code 75, when nothing more comes: the server fails on, ends, or does not listen', async () => {
    await served(async (server, url) => {
      server.fault = () => ({ status: 503 });
      const error = await expectCode('NETWORK', () => readRange(url, 5000, 9000));
      expect(error.exitCode).to.equal(75);
      expect(error.message).to.contain(`${url}: HTTP 503`).and.to.contain('5 attempts');
      expect(server.requests.length).to.equal(5);
    });
    let [gone, left] = ['', 1];
    await served(async (server, url) => {
      gone = url;
      server.fault = (n) => (n > 0 ? { cutAfter: 0 } : undefined);
      await expectCode('NETWORK', () => readRange(url, 5000, 9000));
      left = server.requests.length;
    });
    expect(left).to.equal(6);
    const started = performance.now();
    await expectCode('NETWORK', () => readRange(gone, 5000, 9000, {}));
    expect(performance.now() - started, 'nobody listens: not tried again').to.be.lessThan(2000);
  });

  it('a server that falls silent counts as cut', () =>
    served(async (server, url) => {
      server.fault = only(1, { silentAfter: 4096 });
      expectRange(await readRange(url, 5000, 60_000, { ...FAST, idleMs: 100 }), 5000, 60_000);
      expect(server.requests.length).to.equal(3);
    }));

  it('waits as long as Retry-After says', () =>
    served(async (server, url) => {
      server.fault = only(1, { status: 429, headers: { 'retry-after': '1' } });
      const started = performance.now();
      expectRange(await readRange(url, 5000, 9000), 5000, 9000);
      expect(performance.now() - started).to.be.within(950, 10_000);
    }));

  it('a file that is not there: NOT_FOUND; one that is refused: NETWORK at once', () =>
    served(async (server, url) => {
      const error = await expectCode('NOT_FOUND', () => readRange(`${server.url}/other?token=secret`, 0, 1));
      expect(error.exitCode).to.equal(66);
      expect(error.message).to.contain('/other').and.not.to.contain('secret');
      for (const status of [401, 403, 418]) {
        server.requests.length = 0;
        server.fault = () => ({ status });
        expect((await expectCode('NETWORK', () => readRange(url, 0, 1))).message).to.contain(`HTTP ${status}`);
        expect(server.requests.length).to.equal(1);
      }
    }));

  it('FILE_CHANGED when tag, date or size are others than before', () =>
    served(async (server, url) => {
      const changed = async (change: () => void): Promise<void> => {
        server.files.set('f', { bytes: BYTES, etag: '"1"' });
        server.fault = (n) => (n % 2 === 1 ? (change(), undefined) : undefined);
        server.requests.length = 0;
        const error = await expectCode('FILE_CHANGED', () => readRange(url, 150_000, 160_000));
        expect(error.exitCode).to.equal(65);
      };
      await changed(() => server.files.set('f', { bytes: BYTES, etag: '"2"' }));
      await changed(() => server.files.set('f', { bytes: BYTES.subarray(1), etag: '"1"' }));
      // shorter than what is asked for: 416
      await changed(() => server.files.set('f', { bytes: BYTES.subarray(0, 2000), etag: '"1"' }));
      server.headers = { etag: undefined, 'last-modified': 'Mon, 01 Jan 2024 00:00:00 GMT' };
      await changed(() => (server.headers = { etag: undefined, 'last-modified': 'Tue, 02 Jan 2024 00:00:00 GMT' }));
      server.headers = {};
      await changed(() => ((server.ranges = false), server.files.set('f', { bytes: BYTES.subarray(2), etag: '"1"' })));
    }));

  it('answers that do not fit the question: NETWORK', () =>
    served(async (server, url) => {
      for (const headers of [
        { 'content-range': 'bytes 7-1006/200000' },
        { 'content-range': 'bytes 0-5000/200000' },
        { 'content-range': 'bytes 9-3/200000' },
        { 'content-range': 'bytes 0-999/*' },
        { 'content-range': 'lines 0-999/200000' },
        { 'content-range': `bytes 0-999/${'9'.repeat(30)}` },
        { 'content-range': undefined },
        { 'content-encoding': 'br' },
      ]) {
        server.headers = headers;
        await expectCode('NETWORK', () => readRange(url, 5000, 9000));
      }
    }));

  it('a server without ranges is read from its start, once, in order; back and after a cut again', () =>
    served(async (server, url) => {
      server.ranges = false;
      expectRange(await readRange(url, 50_000, 60_000), 50_000, 60_000);
      expect(server.requests).to.deep.equal(['bytes=0-999']);
      server.requests.length = 0;
      server.fault = only(0, { cutAfter: 40_960 });
      const r = await readRange(url, 30_000, 60_000);
      expectRange(r, 30_000, 60_000);
      expect(server.requests).to.deep.equal(['bytes=0-999', undefined]);
      server.fault = () => undefined;
      server.requests.length = 0;
      const got = new Uint8Array(BYTES.length);
      const file = await RemoteFile.open(url, 1000, (at, bytes) => got.set(bytes, at), FAST);
      await file.read(90_000, 95_000, (at, bytes) => got.set(bytes, at));
      got.fill(0);
      await file.read(2000, 3000, (at, bytes) => got.set(bytes, at));
      file.close();
      expect(Buffer.compare(got.subarray(2000, 3000), BYTES.subarray(2000, 3000))).to.equal(0);
      expect(server.requests).to.deep.equal(['bytes=0-999', undefined]);
    }));

  it('neither ranges nor a length: NETWORK', () =>
    served(async (server, url) => {
      server.ranges = false;
      server.headers = { 'content-length': undefined };
      expect((await expectCode('NETWORK', () => readRange(url, 0, 1))).message).to.contain('neither');
    }));

  it('CANCELLED at once, while it waits for a server and between two attempts', () =>
    served(async (server, url) => {
      for (const fault of [{ silentAfter: 4096 }, { status: 503 }]) {
        server.requests.length = 0;
        server.fault = (n) => (n > 0 ? fault : undefined);
        const abort = new AbortController();
        setTimeout(() => abort.abort(), 100);
        const started = performance.now();
        await expectCode('CANCELLED', () => readRange(url, 5000, 60_000, { delaysMs: [60_000], signal: abort.signal }));
        expect(performance.now() - started).to.be.lessThan(5000);
      }
    }));

  it('takes any fetch; one that is led from https to http is left', async () => {
    const answer = (url: string): Response => {
      const response = new Response(BYTES.subarray(0, 1000), { status: 206, headers: { 'content-range': `bytes 0-999/${BYTES.length}` } });
      return Object.defineProperty(response, 'url', { value: url });
    };
    const seen: Record<string, string>[] = [];
    const fetch =
      (final: string): Fetch =>
      async (_, init) => {
        seen.push(init.headers);
        return answer(final);
      };
    const open = (final: string): Promise<RemoteFile> => RemoteFile.open('https://example.org/f', 1000, () => undefined, { fetch: fetch(final) });
    expect((await open('https://cdn.example.org/f')).bytes).to.equal(BYTES.length);
    expect(seen[0]).to.deep.include({ range: 'bytes=0-999', 'accept-encoding': 'identity' });
    expect((await expectCode('NETWORK', () => open('http://example.org/f'))).message).to.contain('from https to http');
  });

  it('URLs: what is one, what is shown of one, no passwords', async () => {
    expect(['http://a/b', 'HTTPS://a/b', 'hf://a/b', '/a/http://b', 'a.safetensors'].map(isRemote)).to.deep.equal([true, true, false, false, false]);
    expect(shownUrl('https://a.org:8443/b%20c/d?sig=secret#x')).to.equal('https://a.org:8443/b%20c/d');
    await expectCode('USAGE', () => RemoteFile.open('http://', 1, () => undefined));
    const error = await expectCode('USAGE', () => RemoteFile.open('http://me:secret@127.0.0.1/f', 1, () => undefined));
    expect(error.message).to.not.contain('secret');
  });
});

describe('formats/remote mirror', () => {
  it('fetches what is missing, once, near ranges together; the rest of the file is a hole', () =>
    served(async (server, url) => {
      using dir = tempDir();
      const path = join(dir.path, 'mirror');
      using mirror = await Mirror.open(url, path, FAST);
      await mirror.ensure([[100_000, 101_000], [10, 500], [102_000, 103_000]]); // prettier-ignore
      await mirror.ensure([[100_500, 102_500]]);
      expect(server.requests).to.deep.equal([`bytes=0-${FIRST_BYTES - 1}`, 'bytes=100000-102999']);
      expect(mirror.missingBytes([[0, 200_000]])).to.equal(200_000 - FIRST_BYTES - 3000);
      const copy = readFileSync(path);
      expect(copy.length).to.equal(BYTES.length);
      expect(Buffer.compare(copy.subarray(100_000, 103_000), BYTES.subarray(100_000, 103_000))).to.equal(0);
      expect(copy.subarray(103_000).every((b) => b === 0)).to.equal(true);
    }));

  it('of a server without ranges everything that passes is kept: one request is enough', () =>
    served(async (server, url) => {
      using dir = tempDir();
      server.ranges = false;
      using mirror = await Mirror.open(url, join(dir.path, 'mirror'), FAST);
      await mirror.ensure([[150_000, 160_000]]);
      await mirror.ensure([[40_000, 120_000]]);
      expect(server.requests.length).to.equal(1);
    }));

  it('is gone when it is disposed of, also while bytes come; nothing is left of one that could not be opened', () =>
    served(async (server, url) => {
      using dir = tempDir();
      const path = join(dir.path, 'mirror');
      const mirror = await Mirror.open(url, path, FAST);
      server.fault = () => ({ silentAfter: 4096 });
      const running = mirror.ensure([[100_000, 150_000]]);
      setTimeout(() => mirror[Symbol.dispose](), 50);
      await expectCode('CANCELLED', () => running);
      await expectCode('NOT_FOUND', () => Mirror.open(`${server.url}/none`, path, FAST));
      server.fault = () => undefined;
      (await Mirror.open(url, path, FAST))[Symbol.dispose]();
      expect(() => readFileSync(path)).to.throw('ENOENT');
    }));
});
