/** What runs that were killed leave: lines that are cut, an older output that waits aside. */
import { expect } from 'chai';
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Journal, partialFolder, refuseExisting, takeName, thisProcess } from '../../pipelines/journal.js';
import { expectCode } from '../support/expect-error.js';
import { tempDir } from '../support/files.js';

const PLAN = { plan: 1 };
const DEAD = JSON.stringify({ pid: 999_999_999, started: '1' });

describe('pipelines/journal', () => {
  it('lines that were cut off by kills, at the end and before later runs, did not happen', () => {
    using dir = tempDir();
    const out = join(dir.path, 'out');
    const first = Journal.open<number>(out, PLAN, { resume: true });
    first.append('a', 1);
    first.append('b', 2);
    first.close();
    const file = join(partialFolder(out), 'journal.ndjson');
    const whole = readFileSync(file, 'utf8');
    writeFileSync(file, whole.slice(0, -5));
    const second = Journal.open<number>(out, PLAN, { resume: true });
    expect([...second.done]).to.deep.equal([['a', 1]]);
    second.append('c', 3);
    second.publishing();
    second.close();
    // the cut line is in the middle now
    const third = Journal.open<number>(out, PLAN, { resume: true });
    expect([...third.done]).to.deep.equal([
      ['a', 1],
      ['c', 3],
    ]);
    third.remove();
    expect(readdirSync(dir.path)).to.deep.equal([]);
  });

  it('an older output that a killed run had moved aside comes back before anything else', async () => {
    using dir = tempDir();
    const out = join(dir.path, 'out');
    const aside = join(partialFolder(out), 'replaced');
    const killed = (lock: string): void => {
      mkdirSync(aside, { recursive: true });
      writeFileSync(join(aside, 'old'), 'old');
      writeFileSync(join(partialFolder(out), 'lock'), lock);
    };
    killed(DEAD);
    await expectCode('OUTPUT_EXISTS', () => refuseExisting(out, { force: false }));
    expect(readFileSync(join(out, 'old'), 'utf8')).to.equal('old');
    refuseExisting(out, { force: true });
    expect(existsSync(out)).to.equal(true);
    // one that is being replaced now is left to whoever does it
    const other = join(dir.path, 'other');
    mkdirSync(join(partialFolder(other), 'replaced'), { recursive: true });
    writeFileSync(join(partialFolder(other), 'lock'), JSON.stringify(thisProcess()));
    refuseExisting(other, { force: true });
    expect(existsSync(other)).to.equal(false);
  });

  it('a result takes its name over a folder or a file only with force', async () => {
    using dir = tempDir();
    const out = join(dir.path, 'out');
    const result = (text: string): string => {
      const folder = join(dir.path, 'new');
      mkdirSync(folder);
      writeFileSync(join(folder, 'f'), text);
      return folder;
    };
    writeFileSync(out, 'a file');
    mkdirSync(partialFolder(out));
    await expectCode('OUTPUT_EXISTS', () => takeName(result('one'), out, { force: false }));
    expect(readFileSync(out, 'utf8')).to.equal('a file');
    takeName(join(dir.path, 'new'), out, { force: true });
    expect(readFileSync(join(out, 'f'), 'utf8')).to.equal('one');
    takeName(result('two'), out, { force: true });
    expect(readFileSync(join(out, 'f'), 'utf8')).to.equal('two');
  });
});
