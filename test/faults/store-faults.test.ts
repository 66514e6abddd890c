/** One failing system call at every place of a store's commands: nothing that was in the store is lost, and the same command again completes. */
import { expect } from 'chai';
import { cpSync, existsSync, mkdirSync, readdirSync, rmSync, utimesSync } from 'node:fs';
import { join } from 'node:path';
import { storeAdd } from '../../pipelines/store-add.js';
import { storeGet } from '../../pipelines/store-get.js';
import { storeGc, storeInit, storeVerify } from '../../pipelines/store-list.js';
import { drain, RUN } from '../support/adapters.js';
import { pith } from '../support/cli.js';
import { everyFault, everyFaultOfProgram, FAULTS, outputCheck } from '../support/faults.js';
import { hashTree, tempDir, writeSafetensors } from '../support/files.js';

const run = { ...RUN, threads: 1 };
const bytes = (seed: number): Uint8Array => Uint8Array.from({ length: 600 }, (_, i) => (i * 7 + (i % 3 === 0 ? seed : 0)) & 63);
const add = (store: string, checkpoint: string) => drain(storeAdd({ ...run, store, checkpoint, name: undefined, force: false, dryRun: false }));
const get = (store: string, model: string, out: string, force = false) => drain(storeGet({ ...run, store, model, out, force, dryRun: false, resume: true }));
const gc = (store: string) => storeGc(store, { olderThanMs: 0, dryRun: false, signal: run.signal });

/** Two files, and a store with the first; what is coded against it comes with an add of the second. */
async function prepared(dir: string): Promise<{ a: string; b: string; store: string }> {
  const paths = { a: join(dir, 'a.safetensors'), b: join(dir, 'b.safetensors'), store: join(dir, 'prepared') };
  writeSafetensors(paths.a, [{ name: 'w', dtype: 'BF16', shape: [30, 10], bytes: bytes(0) }]);
  writeSafetensors(paths.b, [{ name: 'w', dtype: 'BF16', shape: [30, 10], bytes: bytes(1) }]);
  storeInit(paths.store);
  await add(paths.store, paths.a);
  return paths;
}

const reset = (from: string, to: string): void => {
  rmSync(to, { recursive: true, force: true });
  cpSync(from, to, { recursive: true });
};

describe('faults of a store', function () {
  this.timeout(300_000);

  for (const fault of FAULTS) {
    it(`${fault} at every place of an add`, async () => {
      using dir = tempDir();
      const p = await prepared(dir.path);
      const [store, out] = [join(dir.path, 's'), join(dir.path, 'r.safetensors')];
      reset(p.store, store);
      const seen = new Set<string>();
      const check = async (where: string, error: unknown): Promise<void> => {
        expect([readdirSync(join(store, 'tmp')), existsSync(join(store, 'lock'))], where).to.deep.equal([[], false]);
        // many faults leave the same store
        const state = JSON.stringify(Object.entries(hashTree(store)).sort());
        if (error !== undefined && seen.has(state)) {
          reset(p.store, store);
          return;
        }
        seen.add(state);
        // without an error, or with one after the record's name was given, the model is there
        const there = readdirSync(join(store, 'models')).includes('b.json');
        if (error === undefined) expect(there, where).to.equal(true);
        if (!there) await add(store, p.b);
        // b is coded against a: with it both are there
        await get(store, 'b', out, true);
        expect(hashTree(out), where).to.deep.equal(hashTree(p.b));
        reset(p.store, store);
      };
      expect(await everyFault(fault, { run: () => add(store, p.b), check })).to.be.greaterThan(0);
    });
  }

  it('every place of a get: the whole file or nothing', async () => {
    using dir = tempDir();
    const p = await prepared(dir.path);
    await add(p.store, p.b);
    mkdirSync(join(dir.path, 'work'));
    const out = join(dir.path, 'work', 'out.safetensors');
    const again = (): Promise<unknown> => get(p.store, 'b', out);
    for (const fault of FAULTS) {
      expect(await everyFault(fault, { run: again, check: outputCheck({ out, right: hashTree(p.b), again }) }), fault).to.be.greaterThan(0);
    }
    // over an older output
    const older = (): Record<string, string> => {
      cpSync(p.a, out);
      return hashTree(out);
    };
    const over = (): Promise<unknown> => get(p.store, 'b', out, true);
    for (const fault of ['rename:EIO', 'fsync:EIO']) {
      const check = outputCheck({ out, right: hashTree(p.b), again: over, older });
      expect(await everyFault(fault, { run: over, check }), fault).to.be.greaterThan(0);
    }
  });

  /** A store whose second model's record is gone: its object is swept, what the first needs stays. */
  async function unreachable(dir: string): Promise<{ a: string; store: string; swept: Record<string, string> }> {
    const p = await prepared(dir);
    const kept = hashTree(join(p.store, 'objects'));
    await add(p.store, p.b);
    rmSync(join(p.store, 'models', 'b.json'));
    const old = new Date(Date.now() - 60_000);
    for (const f of Object.keys(hashTree(join(p.store, 'objects')))) utimesSync(join(p.store, 'objects', f), old, old);
    return { ...p, swept: kept };
  }

  /** Nothing that a model needs is gone; another gc sweeps the rest. */
  async function afterGc(store: string, p: { a: string; swept: Record<string, string> }, where: string): Promise<void> {
    expect(hashTree(join(store, 'objects')), where).to.include(p.swept);
    await gc(store);
    expect(hashTree(join(store, 'objects')), where).to.deep.equal(p.swept);
    expect((await drain(storeVerify(store, run))).damaged, where).to.deep.equal([]);
    expect(existsSync(join(store, 'lock')), where).to.equal(false);
  }

  it('every place of a gc', async () => {
    using dir = tempDir();
    const p = await unreachable(dir.path);
    const store = join(dir.path, 's');
    reset(p.store, store);
    for (const fault of FAULTS.filter((f) => !f.startsWith('fsync'))) {
      const check = async (where: string): Promise<void> => {
        await afterGc(store, p, where);
        reset(p.store, store);
      };
      expect(await everyFault(fault, { run: () => gc(store), check }), fault).to.be.greaterThan(0);
      reset(p.store, store);
    }
  });

  it('the programs themselves: exit codes, calls that remove', async () => {
    using dir = tempDir();
    const p = await unreachable(dir.path);
    const store = join(dir.path, 's');
    reset(p.store, store);
    const sweep = ['store', 'gc', store, '--older-than', '0s'];
    const fired = await everyFaultOfProgram('remove:EACCES', sweep, async (where) => {
      await afterGc(store, p, where);
      reset(p.store, store);
    });
    expect(fired).to.be.greaterThan(2);
    const b = join(dir.path, 'b.safetensors');
    const put = ['store', 'add', store, b, '-j', '1'];
    reset(p.store, store);
    const failed = await everyFaultOfProgram('remove:EACCES', put, async (where) => {
      const again = pith(put);
      expect(again.code, `${where}: ${again.stderr}`).to.equal(readdirSync(join(store, 'models')).includes('b.json') && again.code === 73 ? 73 : 0);
      await get(store, 'b', join(dir.path, 'r.safetensors'), true);
      expect(hashTree(join(dir.path, 'r.safetensors')), where).to.deep.equal(hashTree(b));
      reset(p.store, store);
    });
    expect(failed).to.be.greaterThan(2);
  });
});
