/** `pith factorize` by its binary. */
import { expect } from 'chai';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { pith } from '../support/cli.js';
import { tempDir, TINY } from '../support/files.js';
import { modelFolder } from '../support/goldens.js';

const LLAMA = modelFolder('llama');

describe('cli factorize', function () {
  this.timeout(120_000);

  it('one document, events beside it; a table; a page; inspect and eval take the result', () => {
    using dir = tempDir();
    const out = join(dir.path, 'f');
    const page = join(dir.path, 'r.html');
    const r = pith(['factorize', join(TINY, 'base'), '--method', 'svd', '--ratio', '0.7', '--include', '*mlp*', '--out', out, '--report', page, '--json']);
    expect(r.code, r.stderr).to.equal(0);
    const d = JSON.parse(r.stdout) as Record<string, unknown> & { layers: { name: string; rank: number; error: number }[] };
    expect(d['schemaVersion']).to.equal(1);
    expect(d.layers).to.have.length(12);
    for (const l of d.layers) expect(l.error).to.be.within(0.01, 0.7);
    const types = r.stderr.trim().split('\n').map((line) => (JSON.parse(line) as { type: string }).type); // prettier-ignore
    expect(types.filter((t) => t === 'tensor.done')).to.have.length(12);
    const html = readFileSync(page, 'utf8');
    for (const text of ['Error by layer', 'Rank by layer', 'model.layers.3.mlp.down_proj']) expect(html).to.contain(text);
    const inspected = pith(['inspect', out, '--tensors']);
    expect(inspected.stdout)
      .to.match(/factorized: layers 12; method svd/)
      .and.match(/mlp\.up_proj\.weight +BF16 factors +512x256 .*rank 119/);
    const text = join(dir.path, 't.txt');
    writeFileSync(text, 'The sea was calm and the boats came home with fish. '.repeat(80));
    const ppl = JSON.parse(pith(['eval', out, '--dataset', text, '--seqlen', '64', '--max-tokens', '256', '--json', '--quiet']).stdout) as { ppl: number };
    expect(ppl.ppl).to.be.within(1, 1e5);
    const again = pith(['factorize', LLAMA, '--method', 'svd', '--rank', '4', '--out', join(dir.path, 'g')]);
    expect(again.stdout)
      .to.match(/linear layers as factors by svd/)
      .and.match(/self_attn\.q_proj +\d+ +\S+ +4 /);
    const dry = pith(['factorize', LLAMA, '--method', 'svd', '--ratio', '0.5', '--out', join(dir.path, 'h'), '--dry-run']);
    expect(dry.stdout).to.match(/^would write/);
    expect(existsSync(join(dir.path, 'h'))).to.be.false;
  });

  it('what is wrong is named, by its exit code, and leaves nothing', () => {
    using dir = tempDir();
    const out = join(dir.path, 'out');
    const stats = join(TINY, 'base', 'model.safetensors');
    const cases: [number, RegExp, string[]][] = [
      [64, /--ratio 0: give a share above 0/, ['--ratio', '0']],
      [64, /--ratio 1\.2: give a share above 0/, ['--ratio', '1.2']],
      [64, /--ratio x/, ['--ratio', 'x']],
      [64, /give --ratio, --rank or --energy/, []],
      [64, /cannot also be provided/, ['--ratio', '0.5', '--rank', '3']],
      [64, /--allocation energy shares a --ratio/, ['--rank', '3', '--allocation', 'energy']],
      [64, /reads statistics \(inputGram\): --stats or --dataset is missing/, ['--method', 'svd-llm', '--ratio', '0.5']],
      [64, /did you mean "svd-llm"/, ['--method', 'svd-lm', '--ratio', '0.5']],
      [65, /not a statistics file/, ['--ratio', '0.5', '--stats', stats]],
      [66, /no such file/, ['--ratio', '0.5', '--stats', join(dir.path, 'none')]],
      [73, /exists; pass --force/, ['--ratio', '0.5', '--out', dir.path]],
    ];
    for (const [code, message, more] of cases) {
      const method = more.includes('--method') ? [] : ['--method', 'svd'];
      const r = pith(['factorize', LLAMA, ...method, ...(more.includes('--out') ? [] : ['--out', out]), ...more]);
      expect([r.code, message.test(r.stderr)], `${more.join(' ')}: ${r.stderr}`).to.deep.equal([code, true]);
      expect(existsSync(out)).to.be.false;
    }
  });
});
