/** JSON and expressions that come from others. */
import { expect } from 'chai';
import { PithError } from '../../core/errors.js';
import { matchesWithin } from '../../formats/adapter/pattern.js';
import { parseJson } from '../../formats/json.js';
import { expectCode } from '../support/expect-error.js';

const refuse = (message: string): PithError => new PithError('NOT_AN_ADAPTER', { file: 'x', message });

describe('formats/json', () => {
  it('brackets in strings do not count, those outside do, at most 127 deep', async () => {
    const deep = (n: number): string => '['.repeat(n) + ']'.repeat(n);
    expect(parseJson(`{"a\\"[[":"${'['.repeat(500)}\\\\"}`, refuse)).to.deep.equal({ 'a"[[': `${'['.repeat(500)}\\` });
    parseJson(deep(127), refuse);
    expect((await expectCode('NOT_AN_ADAPTER', () => parseJson(deep(128), refuse))).message).to.contain('deeper than 127');
    await expectCode('NOT_AN_ADAPTER', () => parseJson(deep(1_000_000), refuse));
    for (const text of ['', '{', '"', '"\\', '[1,]', 'nul', '\u0000']) await expectCode('NOT_AN_ADAPTER', () => parseJson(text, refuse));
  });
});

describe('formats/adapter/pattern', () => {
  it('matches as an expression does; one that does not end counts as none, at once the next time', () => {
    expect([matchesWithin('^(.*\\.)?(q|k)$', 'm.0.q'), matchesWithin('^(.*\\.)?(q|k)$', 'm.0.qq')]).to.deep.equal([true, false]);
    expect(matchesWithin('(', 'x')).to.equal(undefined);
    const endless = '^(a+)+$';
    const text = `${'a'.repeat(60)}!`;
    const started = performance.now();
    expect(matchesWithin(endless, text)).to.equal(undefined);
    expect(performance.now() - started).to.be.lessThan(10_000);
    const again = performance.now();
    for (let i = 0; i < 100; i++) expect(matchesWithin(endless, text)).to.equal(undefined);
    expect(performance.now() - again).to.be.lessThan(1000);
    expect(matchesWithin('^a+$', 'aaa')).to.equal(true);
  });
});
