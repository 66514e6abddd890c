import { Args, Flags } from '@oclif/core';
import { createReadStream, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pipeline as pipe } from 'node:stream/promises';
import { PithCommand } from '../../cli/base-command.js';
import { runFlags, writeFlags } from '../../cli/flags.js';
import { formatBytes, formatMs } from '../../cli/sizes.js';
import { PithError } from '../../core/errors.js';
import { tarFolder } from '../../formats/tar.js';
import { storeGet, type StoreGetReport } from '../../pipelines/store-get.js';

export default class StoreGet extends PithCommand {
  static override summary = 'Bring a model back from a store, every file byte for byte';
  static override description =
    'Every tensor and file is hashed before the result is seen. With --out - the folder goes to stdout as a tar stream, or one of its files with --file.';
  static override examples = [
    '<%= config.bin %> store get llamas math-v2 --out ./math-v2',
    '<%= config.bin %> store get llamas math-v2 --out - | ssh host "tar -x -C math-v2"',
    '<%= config.bin %> store get llamas math-v2 --file config.json --out -',
  ];
  static override args = {
    dir: Args.string({ required: true, description: 'the store' }),
    model: Args.string({ required: true, description: 'name of the model' }),
  };
  static override flags = {
    out: Flags.string({ required: true, char: 'o', description: 'folder to make, or - for stdout', helpValue: 'DIR' }),
    file: Flags.string({ description: 'this file alone, with --out -', helpValue: 'NAME' }),
    ...writeFlags,
    ...runFlags,
  };

  async run(): Promise<void> {
    const { args, flags } = await this.parse(StoreGet);
    const started = performance.now();
    if (flags.file !== undefined && flags.out !== '-') throw new PithError('USAGE', { message: '--file goes with --out -' });
    const folder = flags.out === '-' ? mkdtempSync(join(tmpdir(), 'pith-')) : undefined;
    const out = folder === undefined ? flags.out : join(folder, 'model');
    const run = this.runOptions(flags);
    const write = { force: flags.force, dryRun: flags['dry-run'], resume: flags.resume };
    try {
      const report = await this.follow(storeGet({ store: args.dir, model: args.model, out, ...run, ...write }));
      if (folder !== undefined && !write.dryRun) {
        await stream(out, report, flags.file);
        return;
      }
      const verb = write.dryRun ? 'would restore' : 'restored';
      const text = `${verb} ${out}: ${report.files.length} files, ${formatBytes(report.bytes)}, ${report.tensors} tensors in ${formatMs(performance.now() - started)}`;
      this.result(report, () => (write.dryRun ? text : `${text}\nevery file is the original, byte for byte`));
    } finally {
      if (folder !== undefined) rmSync(folder, { recursive: true, force: true });
    }
  }
}

async function stream(out: string, report: StoreGetReport, file: string | undefined): Promise<void> {
  const names = report.files.map((f) => f.name);
  if (file !== undefined && !names.includes(file)) throw new PithError('NOT_FOUND', { file: `${report.model}/${file}` });
  await pipe(file === undefined ? tarFolder(out, names) : createReadStream(join(out, file)), process.stdout);
}
