/** `pith calibrate` as a user runs it: documents, text, exit codes. */
import { expect } from 'chai';
import { readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { StatsFile } from '../../formats/stats/file.js';
import { pith } from '../support/cli.js';
import { ROOT, tempDir, TINY } from '../support/files.js';

const BASE = join(TINY, 'base');
const DATA = ['--dataset', join(ROOT, 'test/fixtures/eval/rows.jsonl'), '--template', 'Question: {question}\\nAnswer: {answer}\\n'];
const WINDOWS = ['--nsamples', '3', '--seqlen', '32'];

describe('cli calibrate', function () {
  this.timeout(120_000);

  it('one document with the figures, events beside it; the file says what was fed', () => {
    using dir = tempDir();
    const out = join(dir.path, 's.safetensors');
    const r = pith(['calibrate', BASE, ...DATA, ...WINDOWS, '--fisher', 'row', '--seed', '4', '--out', out, '--json']);
    expect(r.code, r.stderr).to.equal(0);
    const doc = JSON.parse(r.stdout) as Record<string, unknown>;
    expect(doc).to.include.all.keys('schemaVersion', 'pith', 'device', 'ms', 'peakRssBytes', 'loss', 'contentHash');
    expect(doc).to.deep.include({ nsamples: 3, seqlen: 32, tokens: 96, modules: 28, inputs: 16, model: 'base', bytes: statSync(out).size });
    expect(doc['statistics']).to.deep.equal(['inputSqNorm', 'inputAbsMean', 'inputGram', 'tokens', 'fisherRow']);
    const events = r.stderr.trim().split('\n').map((line) => JSON.parse(line) as { type: string }); // prettier-ignore
    expect(events.map((e) => e.type)).to.include.members(['job.start', 'progress', 'job.done']);
    using stats = StatsFile.open(out);
    expect(stats.manifest).to.deep.include({ nsamples: 3, seqlen: 32, seed: 4, tokens: 96 });
    expect(stats.manifest.dataset.name).to.equal('rows.jsonl');
    expect(stats.manifest.dataset.sha256).to.match(/^[0-9a-f]{64}$/);
  });

  it('text: size, layers, windows; the same seed draws the same windows, another one others', () => {
    using dir = tempDir();
    const run = (name: string, ...more: string[]): string => {
      const r = pith(['calibrate', BASE, ...DATA, ...WINDOWS, '--stats', 'sqnorm', '--out', join(dir.path, name), ...more]);
      expect(r.code, r.stderr).to.equal(0);
      return r.stdout;
    };
    const text = run('a');
    expect(text).to.match(/a: [\d.]+ kB in /);
    expect(text).to.include('28 linear layers with 16 different inputs: inputSqNorm, tokens');
    expect(text).to.include('3 windows of 32 tokens, 96 in all');
    run('b');
    run('c', '--seed', '1');
    const bytes = (name: string): Buffer => readFileSync(join(dir.path, name));
    expect(bytes('a').equals(bytes('b'))).to.be.true;
    expect(bytes('a').equals(bytes('c'))).to.be.false;
    expect(run('d', '--dry-run')).to.match(/^would write [\d.]+ kB in about .*of memory and .*of disk beside it/);
    // windows as long as the model allows where nothing is said
    expect(pith(['calibrate', BASE, ...DATA, '--nsamples', '1', '--stats', 'sqnorm', '--out', join(dir.path, 'e')]).stdout).to.include(
      '1 windows of 512 tokens',
    );
    expect(readdirSync(dir.path).sort()).to.deep.equal(['a', 'b', 'c', 'e']);
  });

  it('what is wrong is named, by its exit code, and leaves nothing', () => {
    using dir = tempDir();
    const out = ['--out', join(dir.path, 's')];
    const short = join(dir.path, 'short.txt');
    writeFileSync(short, 'A few words.');
    const cases: [number, RegExp, string[]][] = [
      [64, /"grams" is none of sqnorm, absmean, gram/, [BASE, ...DATA, ...out, '--stats', 'grams']],
      [64, /"col" is none of row, kron/, [BASE, ...DATA, ...out, '--fisher', 'col']],
      [64, /nothing to take/, [BASE, ...DATA, ...out, '--stats', 'none']],
      [64, /600 tokens; the model has 512 positions/, [BASE, ...DATA, ...out, '--seqlen', '600']],
      [64, /no linear layer of its blocks is selected/, [BASE, ...DATA, ...out, '--include', 'lm_head*']],
      [65, /at least 32 tokens/, [BASE, '--dataset', short, ...out, ...WINDOWS]],
      [66, /no such file/, [BASE, '--dataset', join(dir.path, 'none.txt'), ...out]],
      [66, /no tokenizer\.json/, [join(ROOT, 'test/golden/models/llama'), ...DATA, ...out]],
      [66, /no such file/, [join(dir.path, 'none'), ...DATA, ...out]],
      [73, /exists; pass --force/, [BASE, ...DATA, '--out', short]],
    ];
    for (const [code, message, args] of cases) {
      const r = pith(['calibrate', ...args]);
      expect(r.code, args.join(' ')).to.equal(code);
      expect(r.stderr).to.match(message);
      expect(readdirSync(dir.path)).to.deep.equal(['short.txt']);
    }
  });
});
