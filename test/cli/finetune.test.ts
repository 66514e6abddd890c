/** `pith finetune` as a process: configs of other trainers, kills at any moment, what it prints. */
import { expect } from 'chai';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { killRuns } from '../kill/kill-nine.js';
import { pith } from '../support/cli.js';
import { tempDir, TINY } from '../support/files.js';

const BASE = join(TINY, 'base');

describe('cli: finetune', () => {
  const dir = tempDir();
  const at = (name: string): string => join(dir.path, name);
  after(() => dir[Symbol.dispose]());

  before(() => {
    const rows = Array.from({ length: 16 }, (_, i) => JSON.stringify({ prompt: `After ${i} comes`, completion: ` ${i + 1}.` }));
    writeFileSync(at('data.jsonl'), rows.join('\n'));
  });

  const args = (out: string, ...more: string[]): string[] => ['finetune', BASE, '--data', at('data.jsonl'), '--steps', '4', '--seqlen', '32', '--device', 'cpu', '--out', at(out), ...more]; // prettier-ignore

  it('prints one JSON document, events of every step on stderr, and writes a page', () => {
    const r = pith(args('a', '--json', '--report', at('a.html'), '--eval', '--prompt', 'After 3'));
    expect(r.code, r.stderr).to.equal(0);
    const report = JSON.parse(r.stdout) as Record<string, unknown>;
    expect(report).to.include({ schemaVersion: 1, steps: 4, method: 'lora', device: 'cpu' });
    expect(report).to.include.keys('loss', 'valLoss', 'baseLoss', 'tokensPerSecond', 'sample', 'peakRssBytes');
    const events = r.stderr.trim().split('\n').map((l) => JSON.parse(l) as { type: string }); // prettier-ignore
    expect(events.filter((e) => e.type === 'train.step')).to.have.length(4);
    expect(readFileSync(at('a.html'), 'utf8'))
      .to.contain('<svg')
      .and.to.contain('validation');
  });

  it("takes axolotl's and mlx-lm's keys; flags win; the nearest key is named", () => {
    const axolotl = `base_model: ${BASE}\nadapter: lora\nlora_r: 4\nlora_alpha: 12\nlora_target_modules: [q_proj, v_proj]\nmicro_batch_size: 2\nsample_packing: true\n`;
    writeFileSync(at('axolotl.yml'), axolotl + 'optimizer: adamw_torch\nlr_scheduler: linear\nlearning_rate: 0.001\nmax_steps: 9\ndatasets:\n  - path: ' + at('data.jsonl') + '\n'); // prettier-ignore
    const r = pith([
      'finetune',
      BASE,
      '--config',
      at('axolotl.yml'),
      '--steps',
      '2',
      '--seqlen',
      '64',
      '--device',
      'cpu',
      '--out',
      at('b'),
      '--json',
      '--quiet',
    ]);
    expect(r.code, r.stdout).to.equal(0);
    expect(JSON.parse(r.stdout)).to.include({ steps: 2, modules: 8 });
    const config = JSON.parse(readFileSync(at('b/adapter_config.json'), 'utf8')) as Record<string, unknown>;
    expect(config).to.deep.include({ r: 4, lora_alpha: 12, target_modules: ['q_proj', 'v_proj'], peft_type: 'LORA' });
    writeFileSync(
      at('mlx.yml'),
      `fine_tune_type: dora\nlora_parameters: {rank: 2, scale: 3.0, dropout: 0.0}\niters: 1\nmax_seq_length: 32\ndata: ${at('data.jsonl')}\n`,
    );
    const m = pith(['finetune', BASE, '--config', at('mlx.yml'), '--device', 'cpu', '--out', at('c'), '--quiet']);
    expect(m.code, m.stderr).to.equal(0);
    expect(JSON.parse(readFileSync(at('c/adapter_config.json'), 'utf8'))).to.include({ r: 2, lora_alpha: 6, use_dora: true });
    writeFileSync(at('typo.yml'), 'lora_rr: 4\n');
    const typo = pith(args('d', '--config', at('typo.yml')));
    expect(typo.code).to.equal(64);
    expect(typo.stderr).to.contain('unknown key "lora_rr"; did you mean "lora_r"?');
  });

  it('usage errors end with 64', () => {
    for (const more of [['--save', 'adaptor'], ['--learning-rate', 'x'], ['--target', 'q_prj'], ['--method', 'lroa']]) expect(pith(args('e', ...more)).code, more.join(' ')).to.equal(64); // prettier-ignore
  });

  it('killed at any moment, it goes on to the same bytes and leaves nothing behind', async () => {
    const report = await killRuns({ args: args('k', '--save-every', '1', '--set', 'dropout=0.1'), out: at('k'), moments: 5, seed: 11 });
    expect(report.faults).to.deep.equal([]);
    expect(report.killed).to.be.greaterThan(0);
  });
});
