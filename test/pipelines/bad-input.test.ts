/** Bad input of every command of adapters and stores: typed, exit code 65, file and tensor named, nothing written, nothing lost. */
import { expect } from 'chai';
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { ErrorCode } from '../../core/errors.js';
import { Rng } from '../../core/rng.js';
import type { TensorView } from '../../core/tensor.js';
import { adapterExtract } from '../../pipelines/adapter-extract.js';
import { adapterFuse, adapterFuseDelta } from '../../pipelines/adapter-fuse.js';
import { adapterLint, LINT_TARGETS } from '../../pipelines/adapter-lint.js';
import { adapterResize } from '../../pipelines/adapter-resize.js';
import { storeAdd } from '../../pipelines/store-add.js';
import { storeGet } from '../../pipelines/store-get.js';
import { storeGc, storeInit, storeList, storeVerify } from '../../pipelines/store-list.js';
import { openAny } from '../../workers/open.js';
import { drain, PREFIX, random, RUN, view, WRITE, writeAdapter, writeBase } from '../support/adapters.js';
import { errorOf, expectCode } from '../support/expect-error.js';
import { hashTree, tempDir, writeSafetensors } from '../support/files.js';

const rng = new Rng(1);
const KEY = `${PREFIX}m.q`;
const pair = (rank = 4, out = 8, input = 6): TensorView[] => [random(rng, `${KEY}.lora_A.weight`, rank, input), random(rng, `${KEY}.lora_B.weight`, out, rank)]; // prettier-ignore
const one = (suffix: string, ...shape: number[]): TensorView => random(rng, `${PREFIX}${suffix}`, ...shape);
const integers = (t: TensorView): TensorView => ({ ...t, dtype: 'I8', bytes: new Uint8Array(t.bytes.length / 4) });

interface BadAdapter {
  readonly what: string;
  readonly code: ErrorCode;
  /** All of it is in the message. */
  readonly says: readonly string[];
  readonly tensors: () => TensorView[];
  readonly config?: Readonly<Record<string, unknown>>;
  /** Done to the written folder. */
  readonly hurt?: (folder: string) => void;
}

const WEIGHTS = 'adapter_model.safetensors';
const CONFIG = 'adapter_config.json';
const BROKEN: readonly BadAdapter[] = [
  { what: 'a factor is missing', code: 'TENSOR_MISSING', says: [WEIGHTS, `${KEY}.lora_B.weight`], tensors: () => pair().slice(0, 1) },
  { what: 'a magnitude is missing', code: 'TENSOR_MISSING', says: [WEIGHTS, 'm.q.lora_magnitude_vector'], tensors: () => pair(), config: { use_dora: true } },
  { what: 'a bias is missing', code: 'TENSOR_MISSING', says: [WEIGHTS, 'm.q.lora_B.bias'], tensors: () => pair(), config: { lora_bias: true } },
  { what: 'a foreign tensor', code: 'ADAPTER_KEY', says: [WEIGHTS, 'm.q.hada_w1_a'], tensors: () => [...pair(), one('m.q.hada_w1_a', 4, 4)] },
  { what: 'a tensor without the prefix', code: 'ADAPTER_KEY', says: [WEIGHTS, 'other.lora_A.weight', PREFIX], tensors: () => [random(rng, 'other.lora_A.weight', 4, 6)] },
  { what: 'a full copy that is not listed', code: 'ADAPTER_KEY', says: [WEIGHTS, 'm.norm.weight', 'modules_to_save'], tensors: () => [...pair(), one('m.norm.weight', 6)] },
  { what: 'the same factor twice', code: 'ADAPTER_KEY', says: [WEIGHTS, 'm.q', 'twice'], tensors: () => [...pair(), one('m.q.lora_A.default.weight', 4, 6)] },
  { what: 'factors of integers', code: 'ADAPTER_KEY', says: [WEIGHTS, KEY, 'I8'], tensors: () => pair().map(integers) },
  { what: 'another rank than the config says', code: 'SHAPE_MISMATCH', says: [WEIGHTS, `${KEY}.lora_A.weight`, '[4, in]', '[3, 6]'], tensors: () => pair(3) },
  { what: 'factors of two ranks', code: 'SHAPE_MISMATCH', says: [WEIGHTS, `${KEY}.lora_B.weight`, '[8, 5]'], tensors: () => [pair()[0]!, one('m.q.lora_B.weight', 8, 5)] },
  { what: 'rank 0', code: 'ADAPTER_CONFIG', says: [CONFIG, '"r"', 'at least 1', 'got 0'], tensors: () => pair(), config: { r: 0 } },
  { what: 'rank 0 in factors too', code: 'ADAPTER_CONFIG', says: [CONFIG, '"r"'], tensors: () => pair(0), config: { r: 0 } },
  { what: 'rank 0 in a pattern', code: 'ADAPTER_CONFIG', says: [CONFIG, 'rank_pattern.q'], tensors: () => pair(), config: { rank_pattern: { q: 0 } } },
  { what: 'a pattern that does not end', code: 'ADAPTER_CONFIG', says: [CONFIG, '(a+)+$'], tensors: () => ['A', 'B'].map((f) => one(`${'a'.repeat(60)}!.lora_${f}.weight`, 4, 4)), config: { rank_pattern: { '(a+)+$': 2 } } },
  { what: 'alpha that is no number', code: 'ADAPTER_CONFIG', says: [CONFIG, 'lora_alpha', '"8"'], tensors: () => pair(), config: { lora_alpha: '8' } },
  ...['IA3', 'LOHA', 'LOKR', 'OFT', 'BOFT', 'ADALORA', 'VERA', 'VBLORA', 'FOURIERFT', 'HRA', 'PROMPT_TUNING', 'PREFIX_TUNING', 'P_TUNING', 'LN_TUNING', 'XLORA'].map(
    (type): BadAdapter => ({ what: `type ${type}`, code: 'NOT_AN_ADAPTER', says: [CONFIG, `"${type}" is not LORA`], tensors: () => pair(), config: { peft_type: type } }),
  ),
  { what: 'no type', code: 'NOT_AN_ADAPTER', says: [CONFIG, 'no "peft_type"'], tensors: () => pair(), config: { peft_type: undefined } },
  ...['layer_replication', 'target_parameters', 'trainable_token_indices', 'use_qalora', 'use_bdlora'].map(
    (field): BadAdapter => ({ what: `the feature ${field}`, code: 'ADAPTER_UNSUPPORTED', says: [CONFIG, field], tensors: () => pair(), config: { [field]: ['x'] } }),
  ),
  { what: 'no tensors', code: 'NOT_AN_ADAPTER', says: [WEIGHTS, 'no tensors'], tensors: () => [] },
  { what: 'weights that are cut', code: 'FILE_NOT_COVERED', says: [WEIGHTS], tensors: () => pair(), hurt: (f) => cut(join(f, WEIGHTS)) },
  { what: 'a header that is no JSON', code: 'HEADER_JSON', says: [WEIGHTS], tensors: () => pair(), hurt: (f) => flip(join(f, WEIGHTS), 8) },
  { what: 'a config that is cut', code: 'NOT_AN_ADAPTER', says: [CONFIG], tensors: () => pair(), hurt: (f) => cut(join(f, CONFIG)) },
  { what: 'no config', code: 'NOT_AN_ADAPTER', says: [CONFIG], tensors: () => pair(), hurt: (f) => rmSync(join(f, CONFIG)) },
  { what: 'no weights', code: 'NOT_AN_ADAPTER', says: [WEIGHTS], tensors: () => pair(), hurt: (f) => rmSync(join(f, WEIGHTS)) },
]; // prettier-ignore

/** Whole by themselves, wrong for this base. */
const MISFITS: readonly BadAdapter[] = [
  { what: 'a module that the base lacks', code: 'ADAPTER_BASE', says: ['m.z', 'none'], tensors: () => [one('m.z.lora_A.weight', 4, 6), one('m.z.lora_B.weight', 8, 4)] },
  { what: 'a weight of another shape', code: 'ADAPTER_BASE', says: ['m.q', '[8, 6]', '[9, 6]'], tensors: () => pair(4, 9) },
  { what: 'a full copy of another shape', code: 'ADAPTER_BASE', says: ['m.norm', '[6]', '[5]'], tensors: () => [...pair(), one('m.norm.weight', 5)], config: { modules_to_save: ['norm'] } },
  { what: 'a bias for a layer without one', code: 'ADAPTER_BASE', says: ['m.q', 'bias'], tensors: () => [...pair(), one('m.q.lora_B.bias', 8)], config: { lora_bias: true } },
  { what: 'factors of a weight of integers', code: 'ADAPTER_BASE', says: ['m.codes', 'I8'], tensors: () => [one('m.codes.lora_A.weight', 4, 6), one('m.codes.lora_B.weight', 8, 4)] },
  { what: 'a start that moved the base', code: 'ADAPTER_UNSUPPORTED', says: ['pissa'], tensors: () => pair(), config: { init_lora_weights: 'pissa' } },
]; // prettier-ignore

function cut(file: string): void {
  const bytes = readFileSync(file);
  writeFileSync(file, bytes.subarray(0, bytes.length - 3));
}

function flip(file: string, at: number): void {
  const bytes = readFileSync(file);
  bytes[at]! ^= 0x15;
  writeFileSync(file, bytes);
}

const madeBase = (folder: string): string =>
  writeBase(folder, [random(rng, 'm.q.weight', 8, 6), random(rng, 'm.norm.weight', 6), integers(random(rng, 'm.codes.weight', 8, 6))]);

type Run = (adapter: string, base: string, out: string) => Promise<unknown>;
const encode = { method: 'lossless', params: {}, selects: () => true };
const NEED_BASE: Readonly<Record<string, Run>> = {
  fuse: (adapter, base, out) => drain(adapterFuse({ ...RUN, ...WRITE, base, adapter, out })),
  'fuse to a delta': (adapter, base, out) => drain(adapterFuseDelta({ ...RUN, ...WRITE, base, adapter, out }, encode)),
  'lint against a base': (adapter, base, out) => drain(adapterLint({ ...RUN, ...WRITE, adapter, base, target: 'llama.cpp', out })),
  'BASE+ADAPTER': async (adapter, base) => (await openAny(`${base}+${adapter}`))[Symbol.asyncDispose](),
};
const ALL: Readonly<Record<string, Run>> = {
  ...NEED_BASE,
  resize: (adapter, _, out) => drain(adapterResize({ ...RUN, ...WRITE, adapter, out, rule: { maxRank: 2 } })),
  ...Object.fromEntries(LINT_TARGETS.map((target): [string, Run] => [`lint ${target}`, (adapter, _, out) => drain(adapterLint({ ...RUN, ...WRITE, adapter, target, out }))])), // prettier-ignore
};

async function refused(bad: BadAdapter, commands: Readonly<Record<string, Run>>): Promise<void> {
  using dir = tempDir();
  const [base, out] = [madeBase(join(dir.path, 'base')), join(dir.path, 'out')];
  const adapter = writeAdapter(join(dir.path, 'adapter'), bad.tensors(), bad.config);
  bad.hurt?.(adapter);
  const before = hashTree(dir.path);
  for (const [name, run] of Object.entries(commands)) {
    const isNoAdapter = name === 'BASE+ADAPTER' && !readdirSync(adapter).includes(CONFIG);
    const error = await errorOf(() => run(adapter, base, out));
    // a folder without a config is no adapter at all, so that BASE+ADAPTER is a path that is not there
    expect([error.code, error.exitCode], `${name}: ${error.message}`).to.deep.equal(isNoAdapter ? ['NOT_FOUND', 66] : [bad.code, 65]);
    for (const text of isNoAdapter ? [] : bad.says) expect(error.message, name).to.contain(text);
    expect(hashTree(dir.path), name).to.deep.equal(before);
  }
}

describe('bad input of adapters', () => {
  for (const bad of BROKEN) it(`${bad.what}: every command`, () => refused(bad, ALL));
  for (const bad of MISFITS) it(`${bad.what}: every command that is given a base`, () => refused(bad, NEED_BASE));

  it('factors that are not finite: resize, and lint that has to resize', async () => {
    using dir = tempDir();
    const [a, b] = pair() as [TensorView, TensorView];
    const adapter = writeAdapter(join(dir.path, 'adapter'), [a, view(b.name, b.shape, new Float32Array(32).fill(NaN))]);
    for (const run of [ALL['resize']!, ALL['lint mlx']!]) {
      const error = await expectCode('NOT_FINITE', () => run(adapter, '', join(dir.path, 'out')));
      expect([error.exitCode, error.message.includes(`${KEY}.lora_B.weight`), error.message.includes(adapter)]).to.deep.equal([65, true, true]);
    }
    expect(readdirSync(dir.path)).to.deep.equal(['adapter']);
  });

  it('what extract cannot take: each names file and tensor', async () => {
    using dir = tempDir();
    const p = (name: string): string => join(dir.path, name);
    const q = random(rng, 'm.q.weight', 8, 6);
    const select = { embedLora: false, saveModules: [], include: [], exclude: [], skipUndecomposable: false, distributeScale: true };
    const tuned = writeBase(p('tuned'), [q]);
    const whole = random(rng, 'm.q.weight', 8, 6);
    const bases: [string, ErrorCode, string[], () => string][] = [
      ['lacks a module', 'TENSOR_MISSING', ['lacks a module', 'm.q.weight'], () => writeBase(p('lacks a module'), [random(rng, 'm.k.weight', 8, 6)])],
      ['another shape', 'SHAPE_MISMATCH', ['another shape', 'm.q.weight', '[7, 6]', '[8, 6]'], () => writeBase(p('another shape'), [random(rng, 'm.q.weight', 7, 6)])],
      ['integers', 'DTYPE_UNSUPPORTED', ['m.q.weight'], () => writeBase(p('integers'), [integers(whole)])],
      ['not finite', 'NOT_FINITE', ['not finite', 'm.q.weight'], () => writeBase(p('not finite'), [view('m.q.weight', [8, 6], new Float32Array(48).fill(NaN))])],
      ['the same', 'NOTHING_TO_EXTRACT', ['tuned', 'the same'], () => writeBase(p('the same'), [q])],
      ['cut', 'FILE_NOT_COVERED', ['cut', 'model.safetensors'], () => (cut(join(writeBase(p('cut'), [whole]), 'model.safetensors')), p('cut'))],
      ['a config that is no JSON', 'NOT_A_CHECKPOINT', ['config.json'], () => p('tuned')],
    ]; // prettier-ignore
    for (const [what, code, says, make] of bases) {
      const base = make();
      if (what === 'a config that is no JSON') cut(join(tuned, 'config.json'));
      const before = hashTree(dir.path);
      const run = adapterExtract({ ...RUN, ...WRITE, ...select, base, tuned, out: p('out'), rule: { maxRank: 2 } });
      const error = await expectCode(code, () => drain(run));
      expect(error.exitCode, what).to.equal(65);
      for (const text of says) expect(error.message, what).to.contain(text);
      expect(hashTree(dir.path), what).to.deep.equal(before);
    }
  });
});

const SIGNAL = RUN.signal;
const STORE_COMMANDS: Readonly<Record<string, (store: string, dir: string) => Promise<unknown>>> = {
  add: (store, dir) => drain(storeAdd({ ...RUN, store, checkpoint: join(dir, 'b.safetensors'), name: undefined, force: false, dryRun: false })),
  'add --dry-run': (store, dir) => drain(storeAdd({ ...RUN, store, checkpoint: join(dir, 'b.safetensors'), name: undefined, force: false, dryRun: true })),
  get: (store, dir) => drain(storeGet({ ...RUN, store, model: 'a', out: join(dir, 'out.safetensors'), force: false, dryRun: false, resume: false })),
  list: async (store) => storeList(store),
  verify: (store) => drain(storeVerify(store, RUN)),
  gc: (store) => storeGc(store, { olderThanMs: 0, dryRun: false, signal: SIGNAL }),
};

/** A store with the model `a` in it, and the files a and b. */
async function storeWithModel(dir: string): Promise<string> {
  const w = random(rng, 'w', 12, 6);
  writeSafetensors(join(dir, 'a.safetensors'), [w]);
  writeSafetensors(join(dir, 'b.safetensors'), [{ ...w, bytes: w.bytes.map((v, i) => (i % 4 === 0 ? v ^ 1 : v)) }]);
  const store = join(dir, 'store');
  storeInit(store);
  await drain(storeAdd({ ...RUN, store, checkpoint: join(dir, 'a.safetensors'), name: undefined, force: false, dryRun: false }));
  return store;
}

const record = (store: string): string => join(store, 'models', 'a.json');
const objectFiles = (store: string): string[] =>
  Object.keys(hashTree(join(store, 'objects')))
    .sort()
    .map((f) => join(store, 'objects', f));
/** The object of the tensor: the header's is far smaller. */
const largest = (store: string): string => objectFiles(store).sort((x, y) => readFileSync(y).length - readFileSync(x).length)[0]!;

interface BadStore {
  readonly what: string;
  readonly hurt: (store: string) => void;
  /** What each command says; `ok`: it works all the same, and loses nothing. */
  readonly ends: Readonly<Record<keyof typeof STORE_COMMANDS, ErrorCode | 'ok' | 'damaged'>>;
  readonly says: (store: string) => string;
}

const everywhere = (code: ErrorCode): BadStore['ends'] => Object.fromEntries(Object.keys(STORE_COMMANDS).map((c) => [c, code]));
const BAD_STORES: readonly BadStore[] = [
  {
    what: 'a later version',
    hurt: (s) => writeFileSync(join(s, 'store.json'), '{"format":"pith-store","version":2,"generator":"pith 9"}\n'),
    ends: everywhere('STORE_VERSION'),
    says: () => 'store.json',
  },
  { what: 'store.json cut', hurt: (s) => cut(join(s, 'store.json')), ends: everywhere('STORE_MALFORMED'), says: () => 'store.json' },
  {
    what: 'store.json of something else',
    hurt: (s) => writeFileSync(join(s, 'store.json'), '[]'),
    ends: everywhere('STORE_MALFORMED'),
    says: () => 'store.json',
  },
  { what: 'no store.json', hurt: (s) => rmSync(join(s, 'store.json')), ends: everywhere('NOT_A_STORE'), says: (s) => s },
  {
    what: 'a record of a later version',
    hurt: (s) => writeFileSync(record(s), readFileSync(record(s), 'utf8').replace('"version":1', '"version":2')),
    // an add of another model does without it
    ends: { add: 'ok', 'add --dry-run': 'ok', get: 'STORE_VERSION', list: 'STORE_VERSION', verify: 'damaged', gc: 'STORE_VERSION' },
    says: record,
  },
  {
    what: 'a record that is cut',
    hurt: (s) => cut(record(s)),
    ends: { add: 'ok', 'add --dry-run': 'ok', get: 'STORE_MALFORMED', list: 'STORE_MALFORMED', verify: 'damaged', gc: 'STORE_MALFORMED' },
    says: record,
  },
  {
    what: 'an object with a flipped byte',
    hurt: (s) => flip(largest(s), readFileSync(largest(s)).length - 5),
    ends: { add: 'ok', 'add --dry-run': 'ok', get: 'OBJECT_DAMAGED', list: 'ok', verify: 'damaged', gc: 'ok' },
    says: largest,
  },
  {
    what: 'an object with a flipped byte in its header',
    hurt: (s) => flip(largest(s), 40),
    ends: { add: 'ok', 'add --dry-run': 'ok', get: 'OBJECT_DAMAGED', list: 'ok', verify: 'damaged', gc: 'OBJECT_DAMAGED' },
    says: largest,
  },
  {
    what: 'an object that is cut',
    hurt: (s) => cut(largest(s)),
    ends: { add: 'ok', 'add --dry-run': 'ok', get: 'OBJECT_DAMAGED', list: 'ok', verify: 'damaged', gc: 'OBJECT_DAMAGED' },
    says: largest,
  },
];

describe('bad input of stores', () => {
  for (const bad of BAD_STORES) {
    it(`${bad.what}: every command`, async () => {
      using dir = tempDir();
      const prepared = await storeWithModel(dir.path);
      cpSync(prepared, join(dir.path, 'whole'), { recursive: true });
      const names = objectFiles(prepared);
      const named = bad.says(prepared);
      bad.hurt(prepared);
      for (const [name, run] of Object.entries(STORE_COMMANDS)) {
        const store = join(dir.path, 'work', 'store');
        rmSync(join(dir.path, 'work'), { recursive: true, force: true });
        mkdirSync(join(dir.path, 'work'));
        cpSync(prepared, store, { recursive: true });
        const before = hashTree(store);
        const expected = bad.ends[name]!;
        const where = `${bad.what}: ${name}`;
        if (expected === 'ok') await run(store, dir.path);
        else if (expected === 'damaged') {
          const r = (await run(store, dir.path)) as { ok: boolean; damaged: readonly { file: string; models: readonly string[] }[] };
          expect(r.damaged.map((d) => [d.file, d.models]), where).to.deep.equal([[named.replace(prepared, store), ['a']]]); // prettier-ignore
        } else {
          const error = await expectCode(expected, () => run(store, dir.path));
          expect(error.exitCode, where).to.equal(65);
          expect(error.message, where).to.contain(named.replace(prepared, store));
        }
        // whatever it said, what was there is there
        expect(hashTree(store), where).to.include(before);
        if (name !== 'add') expect(hashTree(store), where).to.deep.equal(before);
        expect(objectFiles(store), where).to.include.members(names.map((f) => f.replace(prepared, store)));
        // what a get had decoded waits for a mended store
        expect(existsSync(join(dir.path, 'out.safetensors')), where).to.equal(false);
        rmSync(join(dir.path, 'out.safetensors.pith-partial'), { recursive: true, force: true });
      }
    });
  }

  it('what add cannot take: named, and the store is as it was', async () => {
    using dir = tempDir();
    const store = await storeWithModel(dir.path);
    const before = hashTree(store);
    const folder = join(dir.path, 'bad');
    mkdirSync(folder);
    const w = random(rng, 'w', 4, 4);
    const cases: [ErrorCode, number, string, () => string][] = [
      ['FILE_NOT_COVERED', 65, 'cut.safetensors', () => (writeSafetensors(join(folder, 'cut.safetensors'), [w]), cut(join(folder, 'cut.safetensors')), join(folder, 'cut.safetensors'))],
      ['INDEX_ESCAPES', 65, 'model.safetensors.index.json', () => (writeFileSync(join(folder, 'model.safetensors.index.json'), '{"weight_map":{"w":"../x.safetensors"}}'), folder)],
      ['SHARD_MISSING', 66, 'gone.safetensors', () => (writeFileSync(join(folder, 'model.safetensors.index.json'), '{"weight_map":{"w":"gone.safetensors"}}'), folder)],
      ['NOT_A_CHECKPOINT', 65, 'none', () => (mkdirSync(join(dir.path, 'none')), join(dir.path, 'none'))],
      ['NOT_FOUND', 66, 'nowhere', () => join(dir.path, 'nowhere')],
    ]; // prettier-ignore
    for (const [code, exit, says, make] of cases) {
      const checkpoint = make();
      const error = await expectCode(code, () => drain(storeAdd({ ...RUN, store, checkpoint, name: 'x', force: false, dryRun: false })));
      expect([error.exitCode, error.message.includes(says)], error.message).to.deep.equal([exit, true]);
      expect(hashTree(store)).to.deep.equal(before);
    }
  });
});
