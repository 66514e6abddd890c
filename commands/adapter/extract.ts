import { adapterWriteFlags, dtypeFlag, extractFlags, storageType } from '../../cli/adapter-flags.js';
import { PithCommand } from '../../cli/base-command.js';
import { formatBytes, formatMs } from '../../cli/sizes.js';
import { adapterExtract, type ExtractReport } from '../../pipelines/adapter-extract.js';

export default class AdapterExtract extends PithCommand {
  static override summary = 'Turn a full fine-tune into a PEFT LoRA adapter on its base';
  static override description =
    'Factors of every changed linear layer; embeddings, heads and norms that changed are saved whole (modules_to_save). ' +
    "The flags are mergekit-extract-lora's; modules that the fine-tune left as they were are not in the adapter.";
  static override examples = [
    '<%= config.bin %> adapter extract --model llama-math --base-model llama --out-path math-lora --max-rank 32',
    '<%= config.bin %> adapter extract --model llama-math --base-model llama --out-path math-lora --energy 0.9 --skip-undecomposable -e "lm_head|embed"',
    '<%= config.bin %> adapter extract --model llama-math --base-model llama --out-path math-lora --target-size 20MB --embed-lora',
  ];
  static override flags = { ...extractFlags, dtype: dtypeFlag("type of the factors (default: the fine-tune's)"), ...adapterWriteFlags };

  async run(): Promise<void> {
    const { flags } = await this.parse(AdapterExtract);
    const started = performance.now();
    const targetBytes = flags['target-size'];
    const svEpsilon = flags['sv-epsilon'];
    const report = await this.follow(
      adapterExtract({
        base: flags['base-model'],
        tuned: flags.model,
        out: flags['out-path'],
        rule: {
          maxRank: flags['max-rank'],
          ...(flags.energy === undefined ? {} : { energy: flags.energy }),
          ...(svEpsilon === undefined ? {} : { svEpsilon }),
        },
        ...(targetBytes === undefined ? {} : { targetBytes }),
        ...storageType(flags.dtype),
        distributeScale: flags['distribute-scale'],
        embedLora: flags['embed-lora'],
        saveModules: flags['save-module'],
        include: flags['include-regex'],
        exclude: flags['exclude-regex'],
        skipUndecomposable: flags['skip-undecomposable'],
        force: flags.force,
        dryRun: flags['dry-run'],
        ...this.runOptions(flags),
      }),
    );
    this.result(report, () => describe(report, performance.now() - started), report.device);
  }
}

function describe(r: ExtractReport, ms: number): string {
  if (r.dryRun) return `would write at most ${formatBytes(r.bytes)}: ${r.modules.length} modules at rank ${r.rank}, ${r.saved.length} saved whole`;
  return [
    `${r.out}: ${formatBytes(r.bytes)} in ${formatMs(ms)}, rank ${r.rank}`,
    `${r.modules.length} modules as factors, ${r.saved.length} saved whole, ${r.unchanged} equal to the base's`,
    ...(r.modules.length === 0 ? [] : [`|B A - difference| / |difference| = ${r.residual.toPrecision(4)} over the factors`]),
    ...r.skipped.map((s) => `left out: ${s.name}: ${s.reason}`),
  ].join('\n');
}
