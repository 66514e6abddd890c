import { Flags } from '@oclif/core';
import { createWriteStream, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pipeline as pipe } from 'node:stream/promises';
import { PithCommand } from '../../cli/base-command.js';
import { runFlags, writeFlags } from '../../cli/flags.js';
import { formatBytes, formatMs } from '../../cli/sizes.js';
import { deltaRestore } from '../../pipelines/delta-restore.js';

export default class DeltaRestore extends PithCommand {
  static override summary = 'Bring a fine-tuned checkpoint back from its base and delta';
  static override description =
    'Every tensor is hashed before the result is seen under its name; a wrong base or a damaged delta ends with exit code 65 and no output.';
  static override examples = [
    '<%= config.bin %> delta restore --base llama --delta math.delta.safetensors --out llama-math',
    '<%= config.bin %> delta restore --base llama --delta https://example.org/math.delta.safetensors --quality lossy --out llama-math',
    '<%= config.bin %> delta restore --delta llama.small.safetensors --out llama',
    '<%= config.bin %> delta restore --base llama --delta bitdelta-diff.safetensors --out llama-math',
    'cat math.delta.safetensors | <%= config.bin %> delta restore --base llama --delta - --out llama-math',
  ];
  static override flags = {
    base: Flags.string({ description: 'base checkpoint (default: the one the delta names, beside it)', helpValue: 'CKPT' }),
    delta: Flags.string({ required: true, description: 'delta file, URL of one, or - for stdin', helpValue: 'FILE' }),
    quality: Flags.option({
      options: ['lossy', 'exact'] as const,
      description: 'of a progressive delta: what its lossy layer gives, read alone, or the original (default: the best that the file holds)',
    })(),
    out: Flags.string({ required: true, char: 'o', description: 'folder to make; a .safetensors path when the delta holds one file only', helpValue: 'DIR' }),
    ...writeFlags,
    ...runFlags,
  };

  async run(): Promise<void> {
    const { flags } = await this.parse(DeltaRestore);
    const folder = flags.delta === '-' ? mkdtempSync(join(tmpdir(), 'pith-')) : undefined;
    const delta = folder === undefined ? flags.delta : join(folder, 'delta.safetensors');
    const started = performance.now();
    try {
      if (folder !== undefined) await pipe(process.stdin, createWriteStream(delta));
      const report = await this.follow(
        deltaRestore({
          base: flags.base,
          delta,
          ...(flags.quality === undefined ? {} : { quality: flags.quality }),
          out: flags.out,
          force: flags.force,
          dryRun: flags['dry-run'],
          resume: flags.resume,
          ...this.runOptions(flags),
        }),
      );
      const verb = flags['dry-run'] ? 'would restore' : 'restored';
      this.result(report, () => {
        const head = `${verb} ${report.out}: ${report.files.length} files, ${formatBytes(report.bytes)}, ${report.tensors} tensors in ${formatMs(performance.now() - started)}`;
        if (flags['dry-run']) return head;
        if (report.contentHash === undefined) return `${head}\nnothing is proven: the diff names no base and holds no hashes`;
        const proof = report.exact ? 'every file is the original, byte for byte' : 'lossy: every tensor is what the delta promises';
        return `${head}\n${proof}\ncontent  ${report.contentHash}`;
      });
    } finally {
      if (folder !== undefined) rmSync(folder, { recursive: true, force: true });
    }
  }
}
