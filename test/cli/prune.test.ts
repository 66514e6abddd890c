/** `pith prune` as a user runs it: documents, text, a report, aliases, exit codes; killed at once and run again. */
import { expect } from 'chai';
import { spawn } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { pith } from '../support/cli.js';
import { BIN, hashTree, ROOT, tempDir, TINY } from '../support/files.js';
import { tensorsOf, zerosOf } from '../support/prune-runs.js';

const BASE = join(TINY, 'base');
const TEXT = ['--dataset', join(ROOT, 'test/fixtures/eval/rows.jsonl'), '--template', 'Question: {question}\\nAnswer: {answer}\\n'];
const WINDOWS = ['--nsamples', '3', '--seqlen', '32'];
const DATA = [...TEXT, ...WINDOWS];

interface Document {
  readonly tensors: readonly { readonly name: string; readonly sparsity: number; readonly error: number; readonly ms: number }[];
  readonly bytes: number;
}

describe('cli prune', function () {
  this.timeout(180_000);

  it('one document with the figures, events beside it', () => {
    using dir = tempDir();
    const out = join(dir.path, 'o');
    const r = pith(['prune', BASE, '--sparsity', '0.5', ...DATA, '--out', out, '--json']);
    expect(r.code, r.stderr).to.equal(0);
    const doc = JSON.parse(r.stdout) as Document;
    expect(doc).to.include.all.keys('schemaVersion', 'pith', 'device', 'ms', 'peakRssBytes', 'source', 'warnings');
    expect(doc).to.deep.include({ method: 'wanda', mode: 'sequential', structure: 'unstructured', target: 0.5, sparsity: 0.5, layers: 28 });
    expect(doc.tensors.length).to.equal(28);
    for (const t of doc.tensors) {
      expect(t.sparsity, t.name).to.equal(0.5);
      expect(t.error, t.name).to.be.above(0.05).and.below(0.5);
      expect(t.ms).to.be.at.least(0);
    }
    expect(doc.bytes).to.equal(readFileSync(join(out, 'model.safetensors')).length);
    const events = r.stderr.trim().split('\n').map((line) => JSON.parse(line) as { type: string }); // prettier-ignore
    expect(events.map((e) => e.type)).to.include.members(['job.start', 'progress', 'job.done']);
  });

  it('text by module, what kind of error it is, a page; the aliases of the papers', async () => {
    using dir = tempDir();
    const path = (name: string): string => join(dir.path, name);
    const stats = path('s');
    expect(pith(['calibrate', BASE, ...DATA, '--out', stats]).code).to.equal(0);
    const page = path('r.html');
    const r = pith(['prune', BASE, '--prune_method', 'wanda', '--sparsity_ratio', '0.5', '--sparsity_type', '2:4', '--stats', stats, '--out', path('o'), '--report', page]); // prettier-ignore
    expect(r.code, r.stderr).to.equal(0);
    expect(r.stdout).to.match(/28 linear layers, 50\.0 % zeros: wanda, 2:4, statistics: stats/);
    expect(r.stdout).to.match(/mlp\.down_proj +4 +256x512 +50\.0 % +0\.\d{4} +0\.\d{4}/);
    expect(r.stdout).to.include('error of the output, |X (What - W)^T|');
    const html = readFileSync(page, 'utf8');
    expect(html).to.include('Error by layer').and.include('Sparsity by layer').and.include('<svg').and.include('model.layers.3.mlp.up_proj.weight');
    const { tensors } = await tensorsOf(path('o'));
    const { values } = tensors.get('model.layers.0.mlp.up_proj.weight')!;
    for (let i = 0; i < values.length; i += 4) expect(zerosOf(values.subarray(i, i + 4))).to.equal(2);
    const plain = pith(['prune', BASE, '--method', 'magnitude', '--sparsity', '0.5', '--sparsity-type', 'unstructured', '--out', path('p')]);
    expect(plain.stdout).to.include('error of the weight');
    expect(pith(['prune', BASE, '--mask', path('o'), '--out', path('q')]).code).to.equal(0);
    expect((await tensorsOf(path('q'))).tensors.get('model.layers.0.mlp.up_proj.weight')!.values).to.deep.equal(values);
    const dry = pith(['prune', BASE, '--sparsity', '0.5', ...DATA, '--dry-run', '--out', path('n')]);
    expect(dry.stdout).to.match(/^would write 5\.\d+ MB with 50\.0 % zeros in 28 layers, with at most .*of memory and .*of disk beside it/);
    expect(existsSync(path('n'))).to.be.false;
  });

  it('killed at any time and run again: the bytes of an undisturbed run', async () => {
    using dir = tempDir();
    const [right, out] = [join(dir.path, 'right'), join(dir.path, 'o')];
    const args = (to: string): string[] => ['prune', BASE, '--sparsity', '0.5', ...TEXT, '--nsamples', '8', '--seqlen', '64', '--true-sequential', '--out', to];
    expect(pith(args(right)).code).to.equal(0);
    let killed = 0;
    for (const ms of [700, 1100, 1500, 1900]) {
      const child = spawn(process.execPath, [BIN, ...args(out)], { stdio: 'ignore' });
      const ended = new Promise<NodeJS.Signals | null>((resolve) => child.on('exit', (_, signal) => resolve(signal)));
      const timer = setTimeout(() => child.kill('SIGKILL'), ms);
      if ((await ended) === 'SIGKILL' && !existsSync(out)) killed++;
      clearTimeout(timer);
      if (!existsSync(out)) expect(pith(args(out)).code).to.equal(0);
      expect(hashTree(out)).to.deep.equal(hashTree(right));
      rmSync(out, { recursive: true });
    }
    expect(killed).to.be.above(0);
    expect(readdirSync(dir.path)).to.deep.equal(['right']);
  });

  it('what is wrong is named, by its exit code, and leaves nothing', () => {
    using dir = tempDir();
    const out = ['--out', join(dir.path, 'o')];
    const file = join(dir.path, 'file');
    writeFileSync(file, 'x');
    const half = ['--sparsity', '0.5'];
    const cases: [number, RegExp, string[]][] = [
      [64, /--sparsity 1: not from 0 to below 1/, ['--sparsity', '1', ...DATA]],
      [64, /--sparsity -0.1: not from/, ['--sparsity=-0.1', ...DATA]],
      [64, /--sparsity nan: not from/, ['--sparsity', 'nan', ...DATA]],
      [64, /5 of 4 inputs cannot be kept/, ['--pattern', '5:4', ...DATA]],
      [64, /write N:M/, ['--pattern', 'half', ...DATA]],
      [64, /give --sparsity, --pattern or --mask/, [...DATA]],
      [64, /--pattern 2:4 is a sparsity of 0.5, --sparsity says 0.7/, ['--pattern', '2:4', '--sparsity', '0.7', ...DATA]],
      [64, /--pattern 2:4 has groups of its own/, ['--pattern', '2:4', '--group', 'row', ...DATA]],
      [64, /inputSqNorm\): --stats or --dataset is missing/, half],
      [64, /--group global compares all layers/, [...half, '--group', 'global', ...DATA]],
      [64, /--mask says what goes; --sparsity has no say/, [...half, '--mask', BASE]],
      [64, /did you mean "wanda"/, [...half, '--method', 'wands', ...DATA]],
      [64, /--update-set: --update is missing/, [...half, '--update-set', 'a=1', ...DATA]],
      [64, /600 tokens; the model has 512 positions/, [...half, ...TEXT, '--seqlen', '600']],
      [65, /not a statistics file/, [...half, '--stats', join(BASE, 'model.safetensors')]],
      [66, /no such file/, [...half, '--dataset', join(dir.path, 'none')]],
      [73, /exists; pass --force/, [...half, '--method', 'magnitude', '--report', file]],
    ];
    for (const [code, message, args] of cases) {
      const r = pith(['prune', BASE, ...out, ...args]);
      expect(r.code, `${args.join(' ')}: ${r.stderr}`).to.equal(code);
      expect(r.stderr).to.match(message);
      expect(readdirSync(dir.path)).to.deep.equal(['file']);
    }
  });
});
