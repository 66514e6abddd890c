/** The adapter commands as a shell sees them: flags, texts, JSON, exit codes. */
import { expect } from 'chai';
import { readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Rng } from '../../core/rng.js';
import { PREFIX, random, writeAdapter } from '../support/adapters.js';
import { pith } from '../support/cli.js';
import { tempDir, TINY } from '../support/files.js';

const [BASE, TUNED, LORA] = ['base', 'tuned', 'lora'].map((n) => join(TINY, n)) as [string, string, string];

describe('cli adapter', () => {
  it('extract: mergekit’s flags in kebab and snake case, a report, JSON, --dry-run', () => {
    using dir = tempDir();
    const p = (name: string): string => join(dir.path, name);
    const args = [
      'adapter',
      'extract',
      '--model',
      TUNED,
      '--base-model',
      BASE,
      '--out-path',
      p('a'),
      '--max-rank',
      '4',
      '-e',
      'lm_head|embed',
      '--skip-undecomposable',
    ];
    const dry = pith([...args, '--dry-run']);
    expect(dry.stdout).to.match(/would write at most \d+ kB: 28 modules at rank 4, 0 saved whole/);
    expect(readdirSync(dir.path)).to.deep.equal([]);
    const r = pith(args);
    expect(r.code, r.stderr).to.equal(0);
    expect(r.stdout).to.match(/28 modules as factors, 0 saved whole/);
    const snake = ['adapter', 'extract', '--model', TUNED, '--base_model', BASE, '--out_path', p('b'), '--max_rank', '4', '--exclude_regex', 'lm_head|embed', '--skip_undecomposable', '--json', '--quiet']; // prettier-ignore
    const j = pith(snake);
    expect(j.code, j.stderr).to.equal(0);
    const report = JSON.parse(j.stdout) as { schemaVersion: number; rank: number; modules: { rank: number; residual: number }[] };
    expect(report).to.include({ schemaVersion: 1, rank: 4 });
    expect(report.modules.length).to.equal(28);
    for (const m of report.modules) expect(m.residual).to.be.within(0.1, 1);
    expect(pith(args).code).to.equal(73);
  });

  it('fuse, resize and lint: texts and exit codes', () => {
    using dir = tempDir();
    const p = (name: string): string => join(dir.path, name);
    const merged = pith(['adapter', 'fuse', BASE, LORA, '--out', p('m')]);
    expect(merged.stdout, merged.stderr).to.match(/28 tensors merged, 0 replaced, 10 as they are\nlargest rounding error/);
    const delta = pith(['adapter', 'fuse', BASE, LORA, '--out', p('d.safetensors'), '--save', 'delta', '--json', '--quiet']);
    expect(JSON.parse(delta.stdout)).to.have.nested.property('fused.copied', 10);
    expect(pith(['adapter', 'resize', LORA, '--rank', '4', '--out', p('r'), '--modules']).stdout).to.match(/rank 4; 28 of 28 modules cut/);
    expect(pith(['adapter', 'resize', LORA, '--out', p('x')]).code).to.equal(64);
    expect(pith(['adapter', 'lint', LORA, '--target', 'vllm']).code).to.equal(0);
    const refused = pith(['adapter', 'lint', LORA, '--target', 'vllm', '--max-rank', '4']);
    expect(refused.code).to.equal(1);
    expect(refused.stdout).to.contain('rank 8 is above 4');
    expect(pith(['adapter', 'lint', LORA, '--target', 'vllm', '--max-rank', '4', '--out', p('v')]).code).to.equal(0);
    expect(readdirSync(dir.path).sort()).to.deep.equal(['d.safetensors', 'm', 'r', 'v']);
  });

  it('bad input of every command: named, exit 65, nothing written', () => {
    using dir = tempDir();
    const p = (name: string): string => join(dir.path, name);
    const rng = new Rng(1);
    const a = random(rng, `${PREFIX}model.layers.0.self_attn.q_proj.lora_A.weight`, 4, 256);
    const b = random(rng, `${PREFIX}model.layers.0.self_attn.q_proj.lora_B.weight`, 256, 4);
    const bad: [string, string, string][] = [
      ['missing', writeAdapter(p('missing'), [a]), 'q_proj.lora_B.weight'],
      ['foreign', writeAdapter(p('foreign'), [a, b, random(rng, `${PREFIX}x.oft_R.weight`, 2, 2)]), 'x.oft_R.weight'],
      ['rank 0', writeAdapter(p('zero'), [a, b], { r: 0 }), 'rank of at least 1'],
    ];
    const fit = writeAdapter(p('fit'), [a, { ...b, name: b.name.replace('q_proj', 'z_proj') }, { ...a, name: a.name.replace('q_proj', 'z_proj') }, b]);
    writeFileSync(p('broken.safetensors'), 'no');
    const commands = (adapter: string): string[][] => [
      ['adapter', 'fuse', BASE, adapter, '--out', p('out')],
      ['adapter', 'fuse', BASE, adapter, '--out', p('out'), '--save', 'delta'],
      ['adapter', 'resize', adapter, '--rank', '2', '--out', p('out')],
      ['adapter', 'lint', adapter, '--target', 'vllm'],
    ];
    for (const [what, adapter, says] of bad) {
      for (const args of commands(adapter)) {
        const r = pith(args);
        expect(r.code, `${what}: ${args.join(' ')}: ${r.stdout}`).to.equal(65);
        expect(r.stderr).to.contain(says);
      }
    }
    for (const args of [...commands(fit).slice(0, 2), ['adapter', 'lint', fit, '--target', 'peft', '--base', BASE]]) {
      const r = pith(args);
      expect(r.code, r.stdout).to.equal(65);
      expect(r.stderr).to.contain('z_proj');
    }
    const extract = ['adapter', 'extract', '--model', TUNED, '--base-model', p('broken.safetensors'), '--out-path', p('out')];
    expect(pith(extract).code).to.equal(65);
    expect(pith(['adapter', 'extract', '--model', TUNED, '--base-model', BASE, '--out-path', p('out'), '-i', '(']).code).to.equal(64);
    expect(pith(['adapter', 'extract', '--model', TUNED, '--base-model', BASE, '--out-path', p('out'), '--max-rank', '0']).code).to.equal(64);
    expect(pith(['adapter', 'fuse', BASE, p('nowhere'), '--out', p('out')]).code).to.equal(66);
    expect(readdirSync(dir.path).sort()).to.deep.equal(['broken.safetensors', 'fit', 'foreign', 'missing', 'zero']);
  });
});
