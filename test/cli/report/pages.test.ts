/** The pages of `diff` and `inspect`: what sections they have, for models of every form; names are text wherever they stand. */
import { expect } from 'chai';
import { createHash } from 'node:crypto';
import { heatCells, hasLayers, largestBars, panels, rowNames } from '../../../cli/report/by-layer.js';
import { diffPage } from '../../../cli/report/diff-page.js';
import { evalPage } from '../../../cli/report/eval-page.js';
import { inspectPage } from '../../../cli/report/inspect-page.js';
import { renderPage } from '../../../cli/report/page.js';
import { changed, diffReport, evalOutcome, EVIL, inspectReport, spectrumOf, STEALTHY } from '../../support/reports.js';
import { nodes, parseXml, type XmlNode } from '../../support/svg.js';

/** The body as a tree: it is written so that an XML reader takes it. */
function bodyOf(page: string): XmlNode {
  expect(page).to.match(/^<!doctype html>\n<html lang="en">/);
  const body = /<body>[^]*<\/body>/.exec(page)![0];
  // a boolean attribute and the script's own text are HTML's, not XML's
  return parseXml(body.replace(' hidden>', ' hidden="">').replace(/<script>[^]*?<\/script>/, ''));
}
const find = (root: XmlNode, tag: string): XmlNode[] => nodes(root).filter((n) => n.tag === tag);
const allText = (n: XmlNode): string => nodes(n).map((c) => c.text).join(''); // prettier-ignore
const headings = (root: XmlNode): string[] => find(root, 'h2').map((n) => n.text);

describe('cli/report pages', () => {
  it('a page: one script, allowed by its hash; nothing from outside; every part named', async () => {
    const page = await diffPage(diffReport(3));
    const scripts = [...page.matchAll(/<script>([^]*?)<\/script>/g)];
    expect(scripts).to.have.length(1);
    const hash = createHash('sha256').update(scripts[0]![1]!).digest('base64');
    expect(page).to.contain(`content="default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-${hash}'"`);
    expect(page.replaceAll('http://www.w3.org/2000/svg', '')).to.not.match(/https?:|@import|url\(|src="/);
    const root = bodyOf(page);
    const ids = nodes(root).flatMap((n) => n.attributes['id'] ?? []);
    expect(new Set(ids).size).to.equal(ids.length);
    for (const a of find(root, 'a')) expect(ids).to.include(a.attributes['href']!.slice(1));
    for (const n of nodes(root).filter((c) => c.attributes['role'] !== undefined)) expect(n.attributes['aria-label']).to.be.a('string').and.not.equal('');
    for (const n of nodes(root).filter((c) => c.attributes['tabindex'] === '0')) expect(n.attributes['role']).to.equal('region');
    for (const t of find(root, 'table')) expect(find(t, 'caption')).to.have.length(1);
  });

  it('diff: a section for each question, one row a tensor, numbers that sort', async () => {
    const root = bodyOf(await diffPage(diffReport(3, [changed('gone', 0, { status: 'removed' })])));
    expect(headings(root)).to.deep.equal(['Changed share by layer and module', 'Relative norm by layer', 'Singular values of the differences', 'Rank of the differences by layer', 'Intruder dimensions', 'Tensors']); // prettier-ignore
    const [intruders, tensors] = find(root, 'table') as [XmlNode, XmlNode];
    expect(find(tensors, 'tr')).to.have.length(1 + 8);
    expect(find(intruders, 'tr')).to.have.length(1 + 6);
    const row = find(find(intruders, 'tr')[1]!, 'td');
    expect(row.map(allText)).to.deep.equal(['model.layers.0.q_proj.weight', '1', '0', '5', '0.250', '0.250', '6.0', '5.0']);
    expect(row[1]!.attributes['data-v']).to.equal('1');
    expect(allText(root)).to.contain('3 in 3 of 6 matrices');
    expect(find(root, 'figcaption').map((n) => n.text)).to.deep.equal(['q_proj', 'mlp', 'q_proj', 'mlp']);
  });

  it('diff without spectra, without layers, of nothing alike', async () => {
    const plain = diffReport(3);
    const bare = { ...plain, tensors: plain.tensors.map((t) => changed(t.name, t.changedShare!)) };
    expect(headings(bodyOf(await diffPage(bare)))).to.deep.equal(['Changed share by layer and module', 'Relative norm by layer', 'Tensors']);
    const flat = { ...diffReport(0), tensors: [changed('a.weight', 0.5, { spectrum: spectrumOf([3, 2, 1]) }), changed('b', 0.2)] };
    const root = bodyOf(await diffPage(flat));
    expect(headings(root)).to.include('Effective rank of the differences');
    expect(find(root, 'figcaption')).to.deep.equal([]);
    expect(find(root, 'svg').length).to.be.at.least(4);
    const alien = { ...diffReport(0), tensors: [{ name: 'x', status: 'added' as const, dtype: 'F32', shape: [2], place: { stack: '', module: 'x' } }] };
    expect(headings(bodyOf(await diffPage(alien)))).to.deep.equal(['Tensors']);
    const left = { ...diffReport(0), tensors: [changed('big', 0.5, { intruders: { left: 'too large', leading: [], intruders: [] } })] };
    expect(headings(bodyOf(await diffPage(left)))).to.not.include('Intruder dimensions');
    const partly = await diffPage(diffReport(2, [changed('big', 0.5, { intruders: { left: 'too large', leading: [], intruders: [] } })]));
    expect(partly).to.contain('1 left out, too large or not finite');
  });

  it('eval: loss by place, divergence where there is a reference, tokens as text', async () => {
    const compared = bodyOf(await evalPage(evalOutcome(EVIL, true)));
    expect(headings(compared)).to.deep.equal(['Loss by place in the window', 'Divergence from the reference', 'Worst tokens', 'A sample']);
    expect(find(compared, 'h1').map((n) => n.text)).to.deep.equal(['small against large']);
    const cells = find(compared, 'td').map(allText);
    expect(cells).to.include.members([EVIL, 'one\u21b5two']);
    expect(find(compared, 'script')).to.deep.equal([]);
    const alone = bodyOf(await evalPage(evalOutcome('x', false)));
    expect(headings(alone)).to.deep.equal(['Loss by place in the window', 'Worst tokens', 'A sample']);
    const { report } = evalOutcome('x', false);
    expect(headings(bodyOf(await evalPage({ report })))).to.deep.equal(['A sample']);
  });

  it('inspect: bytes by module and type, spectra where they were asked for', async () => {
    const report = inspectReport(['model.layers.0.q.weight', 'model.layers.0.k.weight', 'model.layers.1.q.weight', 'model.layers.1.k.weight', 'norm.weight']);
    const plain = bodyOf(await inspectPage(report, undefined));
    expect(headings(plain)).to.deep.equal(['Size by module', 'Types', 'Tensors']);
    const drawn = find(plain, 'text').map((n) => n.text);
    expect(drawn).to.include.members(['k (2)', 'q (2)', 'norm', '256 B, 57.1 %', '128 B, 28.6 %', '64 B, 14.3 %', 'BF16 (3)', 'F32 (2)', '192 B, 42.9 %']);
    const spectra = new Map(report.tensors.slice(0, 4).map((t) => [t.name, spectrumOf([4, 2, 1])]));
    const full = bodyOf(await inspectPage(report, spectra));
    expect(headings(full)).to.deep.equal(['Size by module', 'Types', 'Singular values of the weights', 'Rank of the weights by layer', 'Tensors']);
    expect(find(full, 'figcaption').map((n) => n.text)).to.deep.equal(['q', 'k']);
    expect(headings(bodyOf(await inspectPage(inspectReport([]), undefined)))).to.have.length(3);
  });

  it('names from files are text everywhere', async () => {
    const evil = `model.layers.0.${EVIL}.weight`;
    const more = [evil, evil.replace('.0.', '.1.'), EVIL].map((n) => changed(n, 0.5, { spectrum: spectrumOf([3, 2, 1]) }));
    const diff = { ...diffReport(2, more), base: `/m/${EVIL.replaceAll('/', '')}`, tuned: EVIL };
    const inspect = { ...inspectReport([evil, EVIL]), source: EVIL };
    for (const page of [await diffPage(diff), await inspectPage(inspect, new Map([[evil, spectrumOf([2, 1])]]))]) {
      expect(page.match(/<script/g)).to.have.length(1);
      expect(page).to.not.match(/<img/);
      const root = bodyOf(page);
      for (const n of nodes(root)) expect(Object.keys(n.attributes).filter((a) => /^on|^src$/.test(a))).to.deep.equal([]);
      expect(find(root, 'td').map((n) => n.text)).to.include(EVIL);
      expect(find(root, 'text').some((n) => n.text.includes(EVIL))).to.equal(true);
    }
    expect(renderPage({ title: EVIL, facts: [[EVIL, EVIL]], sections: [{ title: EVIL, note: EVIL, legend: [{ name: EVIL, colour: 'var(--c0)', dash: [1, 0] }], table: { caption: EVIL, columns: [{ title: EVIL }], rows: [[EVIL]] } }] })) // prettier-ignore
      .to.not.match(/<img|alert\(1\)<\/script>/);
  });

  it('control characters are shown, not sent', async () => {
    const page = await diffPage(diffReport(2, [changed(STEALTHY, 0.5, { spectrum: spectrumOf([3, 2, 1]) })]));
    // eslint-disable-next-line no-control-regex
    expect(page).to.not.match(/[\u0000-\u0009\u000b-\u001f\u202e]/);
    const shown = String.raw`x\u0000\u001b[2J\u202etxt`;
    const root = bodyOf(page);
    for (const tag of ['td', 'text', 'title'])
      expect(
        find(root, tag).some((n) => n.text.includes(shown)),
        tag,
      ).to.equal(true);
  });

  it('modules and layers: experts are one, stacks are told apart', () => {
    const moe = [0, 1].flatMap((l) => [0, 1, 2].map((e) => changed(`model.layers.${l}.experts.${e}.up.weight`, (e + 1) / 10)));
    const cells = heatCells(moe, (of) => ({ value: of.length, text: '' }));
    expect(cells).to.deep.equal([0, 1].map((layer) => ({ row: 'experts.*.up', layer, value: 3, text: '' })));
    const [panel] = panels(moe, (t) => [t.changedShare, undefined]);
    expect(panel!.title).to.equal('experts.*.up');
    expect(panel!.points.map((p) => [p.layer, p.series, Number(p.value.toFixed(9))])).to.deep.equal([[0, 0, 0.2], [1, 0, 0.2]]); // prettier-ignore
    const pair = ['encoder.block.0.q.weight', 'decoder.block.0.q.weight', 'shared.weight'].map((n) => changed(n, 0.5));
    expect(pair.map(rowNames(pair))).to.deep.equal(['encoder.block.*.q', 'decoder.block.*.q', 'shared']);
    expect([hasLayers(moe), hasLayers(pair)]).to.deep.equal([true, false]);
    expect(largestBars(moe, (t) => ({ value: t.changedShare!, text: '' }), 2).map((b) => b.value)).to.deep.equal([0.3, 0.3]);
  });
});
