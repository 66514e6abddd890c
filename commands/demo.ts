import { PithCommand } from '../cli/base-command.js';
import { runFlags } from '../cli/flags.js';
import { formatBytes, formatMs, formatShare } from '../cli/sizes.js';
import { table } from '../cli/table.js';
import { demo, type DemoReport } from '../pipelines/demo.js';

export default class Demo extends PithCommand {
  static override summary = 'Run the main job on the pair of models that ships with pith';
  static override description =
    'Stores the fine-tuned half of examples/tiny (a real 2.9 M-parameter llama) as a delta, restores it and proves the result. Leaves nothing behind.';
  static override examples = ['<%= config.bin %> demo', '<%= config.bin %> demo --json'];
  static override flags = runFlags;

  async run(): Promise<void> {
    const { flags } = await this.parse(Demo);
    const run = this.runOptions(flags);
    const report = await this.follow(demo(run));
    this.result(report, () => describe(report));
  }
}

function describe(r: DemoReport): string {
  const rows = r.rows.map((c) => [
    c.what,
    c.method,
    formatBytes(c.bytes),
    formatShare(c.bytes / c.rawBytes),
    formatMs(c.encodeMs),
    formatMs(c.restoreMs),
    c.proof,
  ]);
  return [
    'examples/tiny holds a base llama (2.9 M parameters, bf16) and a fine-tune of all its weights.',
    'Each row: the fine-tune was encoded to one safetensors file and restored from it. Exact rows: every restored file has the SHA-256 of',
    'the original. Low-rank rows: every restored tensor has the SHA-256 that the delta states, and the error is |restored - tuned| / |tuned - base|.',
    '',
    table(['what', 'method', 'bytes', 'ratio', 'encode', 'restore', 'proof'], rows),
    '',
    'Try next, on checkpoints of your own:',
    '  pith diff BASE TUNED                                      what the fine-tune changed, tensor by tensor',
    '  pith delta encode --base BASE --tuned TUNED --out D.safetensors',
    '  pith delta encode --base BASE --tuned TUNED --method ere --target-ratio 20 --out D.safetensors      lossy, to a size',
    '  pith delta verify --base BASE --delta D.safetensors      proof, without writing',
    '  pith delta restore --base BASE --delta D.safetensors --out DIR',
  ].join('\n');
}
