import { expect } from 'chai';
import { spawnSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { globToRegExp, selector } from '../../cli/select.js';
import { parseSize } from '../../cli/sizes.js';
import { pith } from '../support/cli.js';
import { hashTree, ROOT, tempDir, TINY } from '../support/files.js';

const commands = (readdirSync(join(ROOT, 'commands'), { recursive: true }) as string[])
  .filter((f) => f.endsWith('.ts'))
  .map((f) => f.replace(/\.ts$/, '').split('/'));

describe('cli', () => {
  it('--version and --help', () => {
    const { version } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as { version: string };
    expect(pith(['--version']).stdout).to.contain(version);
    const help = pith(['--help']);
    expect(help.code).to.equal(0);
    for (const c of commands) expect(help.stdout).to.contain(c[0]);
  });

  for (const c of commands) {
    it(`${c.join(' ')} --help has examples`, () => {
      const r = pith([...c, '--help']);
      expect(r.code).to.equal(0);
      expect(r.stdout).to.match(/EXAMPLES\n\s+\$ pith/);
    });
  }

  it('usage errors exit 64, on stderr, or as JSON on stdout', () => {
    for (const args of [
      ['no-such-command'],
      ['delta', 'encode'],
      ['inspect'],
      ['inspect', 'x', '--no-such-flag'],
      ['diff', 'a', 'b', '-j', '0'],
      ['diff', 'a', 'b', '--max-memory', 'lots'],
    ]) {
      const r = pith(args);
      expect(r.code, args.join(' ')).to.equal(64);
      expect(r.stdout).to.equal('');
      expect(r.stderr).to.match(/^error: /);
      const j = pith([...args, '--json']);
      expect(j.code, args.join(' ')).to.equal(64);
      expect(JSON.parse(j.stdout)).to.have.nested.property('error.exitCode', 64);
    }
  });

  it('missing input 66, existing output 73, unknown method names the nearest', () => {
    using dir = tempDir();
    expect(pith(['inspect', join(dir.path, 'no')]).code).to.equal(66);
    const pair = ['--base', join(TINY, 'base'), '--tuned', join(TINY, 'tuned')];
    expect(pith(['delta', 'encode', ...pair, '--out', join(TINY, 'golden.json')]).code).to.equal(73);
    const r = pith(['delta', 'encode', ...pair, '--out', join(dir.path, 'd'), '--method', 'losless']);
    expect(r.code).to.equal(64);
    expect(r.stderr).to.contain('did you mean "lossless"?');
    expect(readdirSync(dir.path)).to.deep.equal([]);
  });

  it('the main job: documents on stdout, events on stderr, verify by exit code', () => {
    using dir = tempDir();
    const d = join(dir.path, 'd.safetensors');
    const pair = ['--base', join(TINY, 'base'), '--tuned', join(TINY, 'tuned')];
    const dry = JSON.parse(pith(['delta', 'encode', ...pair, '--out', d, '--dry-run', '--json']).stdout) as Record<string, unknown>;
    expect(dry).to.have.nested.property('plan.bytes').greaterThan(0);
    expect(readdirSync(dir.path)).to.deep.equal([]);
    const e = pith(['delta', 'encode', ...pair, '--out', d, '--json']);
    const doc = JSON.parse(e.stdout) as Record<string, unknown>;
    expect(doc).to.include.all.keys('schemaVersion', 'pith', 'device', 'ms', 'peakRssBytes', 'bytes', 'rawBytes', 'ratio', 'tensors');
    const events = e.stderr
      .trim()
      .split('\n')
      .map((l) => JSON.parse(l) as { type: string });
    expect(events[0]!.type).to.equal('job.start');
    expect(events.at(-1)!.type).to.equal('job.done');
    expect(pith(['delta', 'verify', '--base', join(TINY, 'base'), '--delta', d]).code).to.equal(0);
    const wrong = pith(['delta', 'verify', '--base', join(TINY, 'tuned'), '--delta', d]);
    expect(wrong.code).to.equal(1);
    expect(wrong.stdout).to.contain('model.');
    expect(pith(['delta', 'info', d]).stdout).to.contain('38 tensors');
    const quiet = pith(['delta', 'restore', '--base', join(TINY, 'base'), '--delta', d, '--out', join(dir.path, 'r'), '--quiet']);
    expect(quiet.stderr).to.equal('');
    expect(hashTree(join(dir.path, 'r'))).to.deep.equal(hashTree(join(TINY, 'tuned')));
  });

  it('streams: encode to stdout, restore from stdin', () => {
    using dir = tempDir();
    const d = join(dir.path, 'd.safetensors');
    const sh = `'${process.execPath}' '${join(ROOT, 'bin/run.js')}'`;
    const pair = `--base '${TINY}/base' --tuned '${TINY}/tuned'`;
    const r = spawnSync('sh', [
      '-c',
      `${sh} delta encode ${pair} --out - > '${d}' && ${sh} delta restore --base '${TINY}/base' --delta - --out '${dir.path}/r' < '${d}'`,
    ]);
    expect(r.status, String(r.stderr)).to.equal(0);
    expect(hashTree(join(dir.path, 'r'))).to.deep.equal(hashTree(join(TINY, 'tuned')));
  });

  it('inspect, diff, methods', () => {
    const i = JSON.parse(pith(['inspect', join(TINY, 'base'), '--json']).stdout) as { tensors: unknown[]; parameters: number };
    expect(i.tensors).to.have.length(38);
    expect(pith(['inspect', join(TINY, 'base'), '--tensors']).stdout).to.contain('model.norm.weight');
    expect(pith(['diff', join(TINY, 'base'), join(TINY, 'tuned'), '--include', '*norm*']).stdout).to.contain('of the elements changed');
    const m = JSON.parse(pith(['methods', 'list', '--json']).stdout) as { methods: { name: string }[] };
    expect(m.methods.map((x) => x.name)).to.include('lossless');
    expect(pith(['methods', 'show', 'lossless']).stdout).to.contain('arxiv.org');
  });

  it('the demo proves what it shows', () => {
    const r = pith(['demo', '--json']);
    expect(r.code, r.stdout).to.equal(0);
    const { rows } = JSON.parse(r.stdout) as { rows: { method: string; proof: string; bytes: number; rawBytes: number }[] };
    expect(rows.map((row) => row.method)).to.deep.equal(['lossless', 'lossless', 'ere', 'ere']);
    for (const row of rows)
      expect(row.proof).to.match(
        row.method === 'lossless' ? /^5 of 5 files equal by sha256, 38 tensors verified$/ : /^38 tensors verified; error 0\.\d+ of the change$/,
      );
    expect(rows[3]!.bytes).to.be.at.most(rows[3]!.rawBytes / 8);
  });

  it('tfjs and Vega are loaded neither by help nor by a lossless job; Vega by a report', () => {
    using dir = tempDir();
    for (const args of [
      ['--help'],
      ['inspect', join(TINY, 'base')],
      ['delta', 'encode', '--base', join(TINY, 'base'), '--tuned', join(TINY, 'tuned'), '--out', join(dir.path, 'd')],
    ]) {
      const loaded = pith(args, { env: { NODE_DEBUG: 'esm,module' } });
      expect(loaded.code).to.equal(0);
      expect(loaded.stderr.length).to.be.greaterThan(1000);
      expect(loaded.stderr).to.not.match(/dist\/vendor\/(tf|vega)|tfjs/);
    }
    const report = pith(['inspect', join(TINY, 'base'), '--report', join(dir.path, 'r.html')], { env: { NODE_DEBUG: 'esm,module' } });
    expect(report.stderr).to.match(/dist\/vendor\/vega/);
  });

  it('sizes and globs', () => {
    expect(parseSize('512MB')).to.equal(512e6);
    expect(parseSize('2GiB')).to.equal(2 ** 31);
    expect(parseSize('1.5GB')).to.equal(1.5e9);
    for (const bad of ['', 'x', '-1MB', '1XB', '0']) expect(() => parseSize(bad)).to.throw('not a size');
    expect(globToRegExp('a.*.{q,k}_proj?').test('a.1.k_proj1')).to.equal(true);
    expect(globToRegExp('a.b').test('aXb')).to.equal(false);
    const s = selector(['*.mlp.*'], ['*.0.*']);
    expect([s('l.1.mlp.w'), s('l.0.mlp.w'), s('x')]).to.deep.equal([true, false, false]);
  });
});
