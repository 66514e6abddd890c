import { expect } from 'chai';
import { spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseDuration } from '../../cli/sizes.js';
import { pith } from '../support/cli.js';
import { expectCode } from '../support/expect-error.js';
import { BIN, hashTree, tempDir, TINY } from '../support/files.js';

interface Document {
  readonly schemaVersion: number;
  readonly models?: readonly { readonly name: string; readonly depth: number }[];
  readonly damaged?: readonly { readonly object: string; readonly models: readonly string[] }[];
  readonly error?: { readonly code: string; readonly exitCode: number };
}

describe('cli: stores and chains', function () {
  this.timeout(120_000);

  it('init, add, list, get, verify, gc: text and documents', () => {
    using dir = tempDir();
    const run = (...args: string[]) => pith(args, { cwd: dir.path });
    const document = (...args: string[]): Document => JSON.parse(run(...args, '--json').stdout) as Document;
    expect(run('store', 'init', 's').code).to.equal(0);
    expect(run('store', 'init', 's').code).to.equal(73);
    expect(run('store', 'add', 's', join(TINY, 'base')).stdout).to.contain('38 alone');
    expect(document('store', 'add', 's', join(TINY, 'tuned'), '--dry-run')).to.include({ schemaVersion: 1, dryRun: true });
    expect(document('store', 'add', 's', join(TINY, 'tuned'))).to.include({ model: 'tuned', dryRun: false });
    expect(run('store', 'add', 's', join(TINY, 'tuned')).code).to.equal(73);
    expect(document('store', 'list', 's').models!.map((m) => [m.name, m.depth])).to.deep.equal([
      ['base', 0],
      ['tuned', 1],
    ]);
    expect(run('store', 'get', 's', 'tuned', '--out', 'back').stdout).to.contain('byte for byte');
    expect(hashTree(join(dir.path, 'back'))).to.deep.equal(hashTree(join(TINY, 'tuned')));
    expect(run('store', 'get', 's', 'tuned', '--out', 'back').code).to.equal(73);
    expect(run('store', 'get', 's', 'nobody', '--out', 'x').code).to.equal(66);
    expect(run('store', 'verify', 's').code).to.equal(0);
    expect(run('store', 'gc', 's', '--older-than', 'long').code).to.equal(64);
    expect(document('store', 'gc', 's', '--older-than', '0s')).to.have.nested.property('removed.objects', 0);
  });

  it('get to a stream: a folder as tar, one file as it is', () => {
    using dir = tempDir();
    const source = join(dir.path, 'model');
    cpSync(join(TINY, 'lora'), source, { recursive: true });
    const long = join('sub', 'x'.repeat(60), 'y'.repeat(60));
    mkdirSync(join(source, 'sub', 'x'.repeat(60)), { recursive: true });
    writeFileSync(join(source, long), 'deep');
    writeFileSync(join(source, 'empty'), '');
    const store = join(dir.path, 's');
    pith(['store', 'init', store]);
    expect(pith(['store', 'add', store, source]).code).to.equal(0);
    const sh = `'${process.execPath}' '${BIN}' store get '${store}' model --out - --quiet`;
    mkdirSync(join(dir.path, 'untarred'));
    const r = spawnSync('sh', ['-c', `${sh} | tar -x -C '${join(dir.path, 'untarred')}'`], { encoding: 'utf8', env: { ...process.env, NODE_V8_COVERAGE: '' } });
    expect(r.status, r.stderr).to.equal(0);
    expect(hashTree(join(dir.path, 'untarred'))).to.deep.equal(hashTree(source));
    const one = pith(['store', 'get', store, 'model', '--out', '-', '--file', 'adapter_config.json']);
    expect(one.stdout).to.equal(readFileSync(join(source, 'adapter_config.json'), 'utf8'));
    expect(pith(['store', 'get', store, 'model', '--out', '-', '--file', 'no']).code).to.equal(66);
  });

  it('damage: get and verify end with 65 and name the object', () => {
    using dir = tempDir();
    const store = join(dir.path, 's');
    pith(['store', 'init', store]);
    pith(['store', 'add', store, join(TINY, 'base')]);
    const name = Object.keys(hashTree(join(store, 'objects'))).sort()[5]!;
    const path = join(store, 'objects', name);
    const bytes = readFileSync(path);
    bytes[bytes.length - 1]! ^= 1;
    writeFileSync(path, bytes);
    const hash = /([0-9a-f]{64})/.exec(name)![1]!;
    const verify = pith(['store', 'verify', store, '--json']);
    expect(verify.code).to.equal(65);
    expect((JSON.parse(verify.stdout) as Document).damaged!.map((d) => [d.object, d.models])).to.deep.equal([[hash, ['base']]]);
    const get = pith(['store', 'get', store, 'base', '--out', join(dir.path, 'back')]);
    expect(get.code).to.equal(65);
    expect(get.stderr).to.contain(hash);
    expect(readdirSync(dir.path)).to.not.include('back');
  });

  it('chains by relative paths: encode on a delta, squash, rebase, restore', () => {
    using dir = tempDir();
    const run = (...args: string[]): void => {
      const r = pith(args, { cwd: dir.path });
      expect(r.code, `${args.join(' ')}: ${r.stderr}`).to.equal(0);
    };
    for (const name of ['base', 'tuned']) cpSync(join(TINY, name), join(dir.path, name), { recursive: true });
    cpSync(join(dir.path, 'tuned'), join(dir.path, 'last'), { recursive: true });
    const file = join(dir.path, 'last', 'model.safetensors');
    const bytes = readFileSync(file);
    for (let i = 100_000; i < bytes.length; i += 500) bytes[i - (i % 2)]! ^= 1;
    writeFileSync(file, bytes);
    run('delta', 'encode', '--base', 'base', '--tuned', 'tuned', '--out', 'd1.safetensors');
    run('delta', 'encode', '--base', 'base+d1.safetensors', '--tuned', 'last', '--out', 'd2.safetensors');
    run('delta', 'restore', '--delta', 'd2.safetensors', '--out', 'back');
    run('delta', 'squash', '--base', 'base', '--delta', 'd1.safetensors', '--delta', 'd2.safetensors', '--out', 'all.safetensors');
    run('delta', 'restore', '--base', 'base', '--delta', 'all.safetensors', '--out', 'squashed');
    run('delta', 'rebase', '--base', 'base', '--delta', 'all.safetensors', '--onto', 'tuned', '--out', 'onto.safetensors');
    run('delta', 'restore', '--base', 'tuned', '--delta', 'onto.safetensors', '--out', 'rebased');
    for (const out of ['back', 'squashed', 'rebased']) expect(hashTree(join(dir.path, out)), out).to.deep.equal(hashTree(join(dir.path, 'last')));
    expect(pith(['inspect', 'base+d1.safetensors'], { cwd: dir.path }).stdout).to.contain('38 tensors');
  });

  it('durations', async () => {
    expect(['90s', '30m', '1h', '7d', '0s', '1.5h'].map(parseDuration)).to.deep.equal([90_000, 1_800_000, 3_600_000, 604_800_000, 0, 5_400_000]);
    await expectCode('USAGE', () => parseDuration('1'));
  });
});
