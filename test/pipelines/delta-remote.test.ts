/** Deltas behind HTTP: what is transferred, what is refused, and that nothing is left behind. */
import { expect } from 'chai';
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { deltaInfo } from '../../pipelines/delta-info.js';
import type { RestoreOptions, RestoreReport } from '../../pipelines/delta-reports.js';
import { deltaRestore } from '../../pipelines/delta-restore.js';
import { deltaSplit } from '../../pipelines/delta-split.js';
import { deltaVerify } from '../../pipelines/delta-verify.js';
import { pithAsync } from '../support/cli.js';
import { BASE, drain, encodePair, RUN, TUNED, WRITE } from '../support/delta-files.js';
import { errorOf, expectCode } from '../support/expect-error.js';
import { hashTree, ROOT, tempDir } from '../support/files.js';
import { fileServer, type FileServer } from '../support/http.js';

/** The acceptance: what a lossy read may transfer, in parts of the lossy layer. */
const MOST_TRANSFER = 1.05;
const NETWORK = { delaysMs: [1, 1, 1, 1], idleMs: 5000 };

describe('pipelines/delta remote', function () {
  this.timeout(180_000);
  const dir = tempDir();
  after(() => dir[Symbol.dispose]());
  const at = (name: string): string => join(dir.path, name);
  let bytes: Buffer;
  let lossyBytes: number;
  let plainBytes: number;
  let server: FileServer;
  let url: string;

  before(async () => {
    const r = await encodePair({ base: BASE, tuned: TUNED }, at('d'), 'lowrank-ecsq', { step: 3 }, { progressive: true });
    lossyBytes = r.layers!.lossy;
    bytes = readFileSync(at('d'));
    plainBytes = (await encodePair({ base: BASE, tuned: TUNED }, at('plain'), 'lowrank-ecsq', { step: 3 })).bytes;
    await drain(deltaSplit({ delta: at('d'), lossy: at('l'), exact: at('e'), force: false, signal: RUN.signal }));
    await restore(at('l'), 'want');
  });
  beforeEach(async () => {
    server = await fileServer({ 'd.safetensors': bytes });
    url = `${server.url}/d.safetensors`;
  });
  afterEach(() => server[Symbol.asyncDispose]());

  const restore = (delta: string, out: string, more: Partial<RestoreOptions> = {}): Promise<RestoreReport> =>
    drain(deltaRestore({ ...RUN, ...WRITE, base: BASE, delta, out: at(out), network: NETWORK, ...more }));
  const left = (): string[] => [...readdirSync(dir.path), ...readdirSync(tmpdir())].filter((n) => /partial|pith-tmp|pith-remote/.test(n));
  const before0 = left();

  it('a lossy read transfers the lossy layer and no more: at most 1.05 x of it, and of an ordinary lossy delta', async () => {
    const r = await restore(url, 'lossy', { quality: 'lossy' });
    expect(r.exact).to.equal(false);
    expect(hashTree(at('lossy'))).to.deep.equal(hashTree(at('want')));
    expect(server.sent).to.be.at.most(MOST_TRANSFER * lossyBytes);
    expect(server.sent).to.be.at.most(MOST_TRANSFER * plainBytes);
    expect(server.requests.length).to.be.at.most(4);
    for (const range of server.requests) expect(Number(/-(\d+)$/.exec(range!)![1])).to.be.lessThan(lossyBytes);
  });

  it('an exact read transfers the file once and is exact', async () => {
    expect((await restore(url, 'exact')).exact).to.equal(true);
    expect(hashTree(at('exact'))).to.deep.equal(hashTree(TUNED));
    expect(server.sent).to.equal(bytes.length);
    expect(left()).to.deep.equal(before0);
  });

  it('info reads header and lists; verify everything; a query is sent and not shown', async () => {
    const info = await deltaInfo(`${url}?sig=secret`, { network: NETWORK });
    const local = await deltaInfo(at('d'));
    expect(info).to.deep.equal({ ...local, path: url });
    expect(server.sent).to.be.lessThan(0.1 * bytes.length);
    const r = await drain(deltaVerify({ ...RUN, base: BASE, delta: url, tuned: TUNED, network: NETWORK }));
    expect(r).to.deep.include({ ok: true, exact: true, checked: 38 });
    expect(left()).to.deep.equal(before0);
  });

  it('split fetches the layer that is asked for; join makes the file again', async () => {
    const split = (outs: object) => drain(deltaSplit({ delta: url, ...outs, force: false, signal: RUN.signal, network: NETWORK }));
    await split({ lossy: at('l2') });
    expect(server.sent).to.be.at.most(MOST_TRANSFER * lossyBytes);
    expect(hashTree(at('l2'))).to.deep.equal(hashTree(at('l')));
    await split({ exact: at('e2') });
    expect(hashTree(at('e2'))).to.deep.equal(hashTree(at('e')));
    await split({ lossy: at('l3'), exact: at('e3') });
    for (const [a, b] of [['l3', 'l'], ['e3', 'e']] as const) expect(hashTree(at(a))).to.deep.equal(hashTree(at(b))); // prettier-ignore
    expect(left()).to.deep.equal(before0);
  });

  it('a delta of one layer, also of version 1, is read as well', async () => {
    const folder = join(ROOT, 'test', 'fixtures', 'delta-v1', 'shapes');
    server.files.set('v1', { bytes: readFileSync(join(folder, 'delta.safetensors')) });
    server.files.set('plain', { bytes: readFileSync(at('plain')) });
    await restore(`${server.url}/v1`, 'v1', { base: join(folder, 'base') });
    await drain(deltaRestore({ ...RUN, ...WRITE, base: join(folder, 'base'), delta: join(folder, 'delta.safetensors'), out: at('v1-local') }));
    expect(hashTree(at('v1'))).to.deep.equal(hashTree(at('v1-local')));
    await restore(`${server.url}/plain`, 'plain.back');
    expect(hashTree(at('plain.back'))).to.deep.equal(hashTree(at('want')));
    await expectCode('NO_EXACT_LAYER', () => restore(`${server.url}/plain`, 'x', { quality: 'exact' }));
  });

  it('a server without ranges is read once from its start, up to what is needed', async () => {
    server.ranges = false;
    await restore(url, 'whole');
    expect(hashTree(at('whole'))).to.deep.equal(hashTree(TUNED));
    expect(server.requests.length).to.equal(1);
    await restore(url, 'whole-lossy', { quality: 'lossy' });
    expect(hashTree(at('whole-lossy'))).to.deep.equal(hashTree(at('want')));
    expect(server.requests.length).to.equal(2);
  });

  it('cut connections and failing servers are survived', async () => {
    server.fault = (n) => (n % 3 === 0 ? { status: 503 } : n % 3 === 1 ? { cutAfter: 300_000 } : undefined);
    await restore(url, 'rough');
    expect(hashTree(at('rough'))).to.deep.equal(hashTree(TUNED));
    expect(server.sent).to.be.at.most(1.1 * bytes.length);
  });

  it('a cancelled restore goes on: what is restored is not fetched again', async () => {
    const abort = new AbortController();
    await expectCode('CANCELLED', async () => {
      const run = deltaRestore({ ...RUN, ...WRITE, threads: 1, signal: abort.signal, base: BASE, delta: url, out: at('resumed'), network: NETWORK });
      const journal = join(`${at('resumed')}.pith-partial`, 'journal.ndjson');
      const done = (): number => (existsSync(journal) ? readFileSync(journal, 'utf8').split('\n').length - 2 : 0);
      const watch = setInterval(() => done() > 5 && abort.abort(), 2);
      try {
        for (let step = await run.next(); step.done !== true; step = await run.next());
      } finally {
        clearInterval(watch);
      }
    });
    expect(readdirSync(`${at('resumed')}.pith-partial`).sort()).to.deep.equal(['journal.ndjson', 'spool']);
    server.sent = 0;
    await restore(url, 'resumed');
    expect(hashTree(at('resumed'))).to.deep.equal(hashTree(TUNED));
    expect(server.sent).to.be.lessThan(0.95 * bytes.length);
    expect(left()).to.deep.equal(before0);
  });

  describe('refuses, with nothing left', () => {
    afterEach(() => {
      expect(existsSync(at('x'))).to.equal(false);
      expect(left()).to.deep.equal(before0);
    });
    const failing = (more: Partial<RestoreOptions> = {}): Promise<RestoreReport> => restore(url, 'x', { resume: false, ...more });

    it('a file that is not there, is none, is none of ours, ends early', async () => {
      expect((await expectCode('NOT_FOUND', () => restore(`${server.url}/no`, 'x'))).exitCode).to.equal(66);
      for (const [content, code] of [
        [Buffer.from('hello world, this is no safetensors file'), 'HEADER_TOO_LARGE'],
        [Buffer.alloc(0), 'HEADER_TOO_SMALL'],
        [bytes.subarray(0, 5), 'HEADER_TOO_SMALL'],
        [bytes.subarray(0, 500), 'HEADER_LENGTH'],
        [bytes.subarray(0, lossyBytes + 1000), 'FILE_NOT_COVERED'],
        [readFileSync(join(BASE, 'model.safetensors')), 'NOT_A_DELTA'],
        [readFileSync(at('e')), 'NOT_A_DELTA'],
      ] as const) {
        server.files.set('d.safetensors', { bytes: content });
        const error = await expectCode(code, failing);
        expect(error.message).to.contain(url);
      }
    });

    it('a damaged byte, in the list, the lossy layer, the exact one: errors name the URL', async () => {
      for (const position of [lossyBytes - 200, 40_000, lossyBytes + 70_000, bytes.length - 20]) {
        const bad = Buffer.from(bytes);
        bad[position]! ^= 8;
        server.files.set('d.safetensors', { bytes: bad });
        const error = await errorOf(failing);
        expect(error.exitCode, error.message).to.equal(65);
        expect(error.message).to.contain(url);
        removePartial();
      }
    });

    it('another file under the URL in the middle of a read: FILE_CHANGED', async () => {
      server.fault = (n) => (n > 0 ? (server.files.set('d.safetensors', { bytes, etag: '"2"' }), undefined) : undefined);
      expect((await expectCode('FILE_CHANGED', failing)).exitCode).to.equal(65);
      removePartial();
    });

    it('a server that gives up: NETWORK', async () => {
      server.fault = (n) => (n > 1 ? { status: 500 } : undefined);
      expect((await expectCode('NETWORK', failing)).exitCode).to.equal(75);
      removePartial();
    });

    it('a wrong base, and one that is not found beside a URL', async () => {
      await expectCode('WRONG_BASE', () => failing({ base: TUNED }));
      removePartial();
      await expectCode('BASE_NOT_FOUND', () => failing({ base: undefined }));
    });

    it('without a fetch of its own the given one is used', async () => {
      const asked: string[] = [];
      const fetch = async (u: string): Promise<Response> => {
        asked.push(u);
        return new Response('no', { status: 403 });
      };
      await expectCode('NETWORK', () => restore('https://example.org/d', 'x', { fetch }));
      expect(asked).to.deep.equal(['https://example.org/d']);
    });
  });

  it('a disk that is full when the first bytes come: 74, no mirror left, and the next run is right', async () => {
    const args = ['delta', 'restore', '--base', BASE, '--delta', url, '--quality', 'lossy', '--out', at('full'), '-j', '1'];
    const partial = `${at('full')}.pith-partial`;
    for (const n of [1, 2, 3, 4]) {
      const r = await pithAsync(args, { env: { PITH_FAULT: `write:${n}:ENOSPC` } });
      expect(r.code, r.stderr).to.equal(74);
      expect(existsSync(at('full'))).to.equal(false);
      expect(existsSync(partial) ? readdirSync(partial).filter((name) => name.startsWith('remote')) : []).to.deep.equal([]);
    }
    expect((await pithAsync(args)).code).to.equal(0);
    expect(left()).to.deep.equal(before0);
    expect(hashTree(at('full'))).to.deep.equal(hashTree(at('want')));
  });

  it('the commands: restore, verify and info of a URL, errors with exit code 75', async () => {
    mkdirSync(at('cwd'));
    cpSync(BASE, join(at('cwd'), 'base'), { recursive: true });
    const run = (...args: string[]) => pithAsync(args, { cwd: at('cwd') });
    // the base that the delta names lies in the current folder
    const lossy = await run('delta', 'restore', '--delta', url, '--quality', 'lossy', '--out', 'r', '--json');
    expect(lossy.code, lossy.stderr).to.equal(0);
    expect(JSON.parse(lossy.stdout)).to.deep.include({ exact: false });
    expect(lossy.stderr).to.contain('"job":"download"');
    expect(hashTree(join(at('cwd'), 'r'))).to.deep.equal(hashTree(at('want')));
    expect(server.sent).to.be.at.most(MOST_TRANSFER * lossyBytes);
    expect((await run('delta', 'verify', '--delta', url)).stdout).to.contain('ok: 38 tensors match, the restore is exact');
    const info = await run('delta', 'info', url);
    expect(info.stdout).to.match(/^layers {2}lossy .* kB \(.*%\), exact .* MB \(.*%\)$/m);
    server.fault = () => ({ status: 403 });
    const refused = await run('delta', 'info', url, '--json');
    expect(refused.code).to.equal(75);
    expect(JSON.parse(refused.stdout)).to.have.nested.property('error.code', 'NETWORK');
  });

  function removePartial(): void {
    const folder = `${at('x')}.pith-partial`;
    if (!existsSync(folder)) return;
    // of a remote delta only what was restored is kept
    expect(readdirSync(folder).filter((n) => n !== 'journal.ndjson' && n !== 'spool')).to.deep.equal([]);
    rmSync(folder, { recursive: true });
  }
});
