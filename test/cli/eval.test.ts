/** `pith eval` as a user runs it: documents, tables, pages, exit codes. */
import { expect } from 'chai';
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { pith } from '../support/cli.js';
import { MEAN, writeEncoder } from '../support/encoder.js';
import { ROOT, tempDir, TINY } from '../support/files.js';

const golden = JSON.parse(readFileSync(join(ROOT, 'test/golden/eval.json'), 'utf8')) as Record<string, Record<string, Record<string, number>>>;
const ROWS = join(ROOT, 'test/fixtures/eval/rows.jsonl');
const CHOICES = join(ROOT, 'test/fixtures/eval/choices.jsonl');
const DATA = ['--dataset', ROWS, '--template', 'Question: {question}\\nAnswer: {answer}\\n', '--seqlen', '64'];
const [BASE, TUNED] = [join(TINY, 'base'), join(TINY, 'tuned')];

describe('cli eval', function () {
  this.timeout(60_000);

  it('one document with the figures that scripts depend on, events beside it', () => {
    const r = pith(['eval', TUNED, ...DATA, '--reference', BASE, '--json']);
    expect(r.code, r.stderr).to.equal(0);
    const doc = JSON.parse(r.stdout) as Record<string, never>;
    expect(doc).to.include.all.keys('schemaVersion', 'pith', 'device', 'ms', 'peakRssBytes', 'ppl', 'stderr', 'tokens', 'protocol', 'kld');
    expect(doc['kld']).to.include.all.keys('mean', 'median', 'p99', 'p999', 'max', 'min', 'topTokenAgreement', 'rmsDeltaP', 'pplRatio', 'pplRatioStderr', 'stderr'); // prettier-ignore
    expect(doc['ppl']).to.be.closeTo(golden['gptq']!['tuned']!['ppl']!, 1e-3);
    expect(doc).to.include({ protocol: 'gptq', tokens: 1764, device: 'cpu', seqlen: 64 });
    const events = r.stderr.trim().split('\n').map((line) => JSON.parse(line) as { type: string }); // prettier-ignore
    expect(events.map((e) => e.type)).to.include.members(['job.start', 'progress', 'job.done']);
  });

  it('every figure stands beside its protocol', () => {
    const r = pith(['eval', TUNED, ...DATA, '--protocol', 'lm-eval', '--base', BASE, '--tuned', TUNED, '--choices', CHOICES]);
    expect(r.code, r.stderr).to.equal(0);
    expect(r.stdout).to.match(/perplexity +\S+ ± \S+ +lm-eval: 10 documents in \d+ rolling windows of 64 tokens, [\d,]+ tokens scored/);
    expect(r.stdout).to.match(/bits per byte +2\.04978 +lm-eval/);
    expect(r.stdout).to.match(/recovered share +100\.00 %/);
    expect(r.stdout).to.match(/acc_norm +13 ± 13 %/);
  });

  it('rows by flag or by name are the same', () => {
    const json = (args: string[]): unknown => (JSON.parse(pith(['eval', TUNED, ...args, '--seqlen', '64', '--json', '--quiet']).stdout) as { ppl: number }).ppl;
    const byFlag = json(['--dataset', ROWS, '--rows', '2:6']);
    expect(byFlag)
      .to.be.a('number')
      .and.to.equal(json(['--dataset', `${ROWS}[2:6]`]));
    expect(byFlag).to.not.equal(json(['--dataset', ROWS, '--rows', '2:']));
  });

  it('a page of its own, and a sample on the terminal', () => {
    using dir = tempDir();
    const page = join(dir.path, 'eval.html');
    const r = pith(['eval', TUNED, ...DATA, '--reference', BASE, '--sample', 'Question: Tom', '--sample-tokens', '6', '--report', page]);
    expect(r.code, r.stderr).to.equal(0);
    expect(r.stdout).to.contain('Question: Tom|');
    const html = readFileSync(page, 'utf8');
    for (const title of ['Loss by place in the window', 'Divergence from the reference', 'Worst tokens', 'A sample']) expect(html).to.contain(title);
    expect(pith(['eval', TUNED, ...DATA, '--report', page]).code).to.equal(73);
  });

  it('a text encoder: cosines to the reference, as text, document and page', () => {
    using dir = tempDir();
    const encoder = writeEncoder(join(dir.path, 'encoder'));
    const other = writeEncoder(join(dir.path, 'other'), { pooling: { ...MEAN, pooling_mode: 'cls' } });
    const [data, page] = [join(dir.path, 'texts.txt'), join(dir.path, 'eval.html')];
    writeFileSync(data, 'a cat\nthe quick brown fox jumps over the lazy dog\n');
    const args = ['eval', encoder, '--reference', other, '--dataset', data];
    const r = pith([...args, '--report', page]);
    expect(r.code, r.stderr).to.equal(0);
    expect(r.stdout).to.match(/cosine to \S+other +of/);
    expect(r.stdout).to.match(/mean +0\.\d{6} +2 texts, 30 tokens, 1 cut to 24/);
    expect(r.stdout).to.match(/median +0\.\d{6} +vectors of 32 channels: mean, to length 1/);
    expect(r.stdout).to.match(/minimum +0\.\d{6} +line [12]/);
    const html = readFileSync(page, 'utf8');
    for (const part of ['Farthest vectors', 'cosine, mean', 'the quick brown fox']) expect(html).to.contain(part);
    const doc = JSON.parse(pith([...args, '--json', '--quiet']).stdout) as { embeddings: { cosine: object; lowest: object[] } };
    expect(doc).to.include.all.keys('schemaVersion', 'checkpoint', 'reference', 'dataset', 'device', 'ms', 'peakRssBytes', 'embeddings');
    expect(doc.embeddings.cosine).to.have.all.keys('mean', 'min', 'p01', 'median');
    expect(doc.embeddings.lowest).to.have.length(2);
    expect(pith([...args, '--sample', 'a']).code).to.equal(64);
  });

  it('exit codes: 64 usage, 65 data, 66 missing; nothing is left behind', () => {
    using dir = tempDir();
    const page = join(dir.path, 'r.html');
    const cases: [code: number, args: string[], says: RegExp][] = [
      [64, ['eval', TUNED], /--dataset/],
      [64, ['eval', TUNED, '--dataset', ROWS, '--protocol', 'mine'], /protocol/],
      [64, ['eval', TUNED, '--dataset', ROWS, '--seqlen', '1'], /seqlen/],
      [64, ['eval', TUNED, '--dataset', ROWS, '--template', '{oops'], /template/],
      [64, ['eval', TUNED, '--dataset', `${ROWS}[1:2]`, '--rows', '1:2'], /range already/],
      [64, ['eval', TUNED, '--sample', 'a', '--rows', '1:2'], /--rows/],
      [64, ['eval', TUNED, '--dataset', ROWS, '--wikitext'], /lm-eval/],
      [64, ['eval', TUNED, '--sample', 'a', '--temperature', '-1'], /temperature/],
      [64, ['eval', TUNED, ...DATA, '--max-memory', '100kB'], /--max-memory/],
      [65, ['eval', TUNED, '--dataset', ROWS, '--seqlen', '5000'], /too little data/],
      [65, ['eval', TUNED, '--dataset', ROWS, '--template', '{text}'], /line 1.*"text" is missing/],
      [66, ['eval', TUNED, '--dataset', join(dir.path, 'no.txt')], /no\.txt/],
      [66, ['eval', join(dir.path, 'no-model'), ...DATA], /no-model/],
    ];
    for (const [code, args, says] of cases) {
      const r = pith([...args, '--report', page]);
      expect(r.code, `${args.join(' ')}: ${r.stderr}`).to.equal(code);
      expect(r.stderr).to.match(says);
      expect(r.stdout).to.equal('');
    }
    expect(existsSync(page)).to.equal(false);
    expect(readdirSync(dir.path)).to.deep.equal([]);
  });
});
