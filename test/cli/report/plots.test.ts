/** The figures: well formed, named, one mark a value, in the page's colours, names of tensors as text and nothing else. */
import { expect } from 'chai';
import { barPlot, brief, heatMap, layerPanels, roundDomain, spectrumPlot } from '../../../cli/report/plots.js';
import { rateDistortionPlot } from '../../../cli/report/rate-distortion.js';
import { RAMP } from '../../../cli/report/svg.js';
import { marks, nodes, parseXml, texts, tooltips, type XmlNode } from '../../support/svg.js';

const EVIL = 'a"b<script>alert(1)</script>&\'c';

/** What holds of every figure. */
function checked(svg: string): XmlNode {
  const root = parseXml(svg);
  expect(root.tag).to.equal('svg');
  expect(root.attributes).to.include({ role: 'img', xmlns: 'http://www.w3.org/2000/svg' });
  expect(root.attributes['aria-label']).to.have.length.greaterThan(10);
  for (const n of nodes(root)) {
    expect(n.tag).to.be.oneOf(['svg', 'g', 'path', 'line', 'text', 'title', 'rect']);
    // one image with one name: no roles inside
    if (n !== root) expect(Object.keys(n.attributes).filter((a) => a === 'role' || a.startsWith('aria-'))).to.deep.equal([]);
    for (const [name, value] of Object.entries(n.attributes)) {
      expect(name).to.not.match(/^on|href|style/);
      if (name === 'fill' || name === 'stroke') expect(value).to.match(/^(none|transparent|var\(--\w+\))$/);
      expect(value, name).to.not.match(/NaN|undefined|Infinity/);
    }
  }
  return root;
}

describe('cli/report/plots', () => {
  it('bars: a bar, a name and a value each; lengths in proportion', async () => {
    const { svg } = await barPlot([{ name: EVIL, value: 4, text: '4 B' }, { name: 'half', value: 2, text: '2 B' }, { name: 'none', value: 0, text: '0 B' }], 'bytes'); // prettier-ignore
    const root = checked(svg);
    expect(tooltips(root)).to.deep.equal([`${EVIL}: 4 B`, 'half: 2 B', 'none: 0 B']);
    expect(texts(root)).to.include.members([EVIL, 'half', '4 B', '2 B']);
    const width = marks(root, 'rect').map((n) => Number(/h([\d.]+)v/.exec(n.attributes['d']!)![1]));
    expect(width).to.have.length(3);
    expect(width[0]! / width[1]!).to.be.closeTo(2, 0.02);
    checked((await barPlot([], 'bytes')).svg);
  });

  it('heat map: a cell a value, darker for more, layers in order, what is outside last', async () => {
    const cells = [10, 9, 2].flatMap((layer) => [{ layer, row: 'q', value: layer, text: `${layer}!` }, { layer, row: EVIL, value: 0, text: '0' }]); // prettier-ignore
    const { svg } = await heatMap([...cells, { row: 'embed', value: 7, text: '7' }], 'what');
    const root = checked(svg);
    const found = marks(root, 'rect');
    expect(found).to.have.length(7);
    const fill = (tip: string): number => RAMP.indexOf(found.find((n) => n.children[0]!.text === tip)!.attributes['fill']!);
    expect(fill('q, layer 10: 10!')).to.be.greaterThan(fill('q, layer 2: 2!'));
    expect(fill(`${EVIL}, layer 9: 0`)).to.equal(0);
    expect(fill('embed, outside of the layers: 7')).to.be.within(1, 6);
    expect(texts(root).filter((t) => /^(\d+|–)$/.test(t)).slice(-4)).to.deep.equal(['2', '9', '10', '–']); // prettier-ignore
    expect(root.attributes['aria-label']).to.contain('3 modules in 3 layers');
    const reversed = checked((await heatMap(cells, 'what', { reverse: true })).svg);
    const zero = marks(reversed, 'rect').find((n) => n.children[0]!.text === `${EVIL}, layer 9: 0`)!;
    expect(zero.attributes['fill']).to.equal(RAMP.at(-1));
  });

  it('heat map of counts: a colour each up to six, one value alone, all the same', async () => {
    const of = (values: number[]): Promise<{ svg: string }> =>
      heatMap(values.map((value, layer) => ({ layer, row: 'q', value, text: String(value) })), 'n', { whole: true }); // prettier-ignore
    const few = checked((await of([0, 1, 2])).svg);
    expect(marks(few, 'rect').map((n) => n.attributes['fill'])).to.deep.equal([RAMP[0], RAMP[3], RAMP[6]]);
    const many = checked((await of([0, 5, 40])).svg);
    expect(marks(many, 'rect').map((n) => n.attributes['fill'])).to.have.members([RAMP[0], RAMP[0], RAMP[6]]);
    checked((await of([0, 0])).svg);
    checked((await heatMap([{ row: 'q', layer: 0, value: 0.98, text: '' }], 'share')).svg);
    checked((await heatMap([], 'share')).svg);
  });

  it('panels: one figure a module, one line a series, points with tooltips, the same scale', async () => {
    const points = (k: number): { layer: number; value: number; series: number }[] =>
      [0, 1, 2, 3].flatMap((layer) => [0, 1].map((series) => ({ layer, series, value: k * (1 + series) * (layer + 1) })));
    const figures = await layerPanels([{ title: EVIL, points: points(1) }, { title: 'big', points: points(10) }], 'rank', ['one', 'two'], String); // prettier-ignore
    expect(figures.map((f) => f.caption)).to.deep.equal([EVIL, 'big']);
    const [small, big] = figures.map((f) => checked(f.svg)) as [XmlNode, XmlNode];
    expect(marks(small, 'line')).to.have.length(2);
    expect(new Set(marks(small, 'line').map((n) => n.attributes['stroke-dasharray'])).size).to.equal(2);
    expect(tooltips(small)).to.include('layer 3, two: 8');
    expect(small.attributes['aria-label']).to.equal(`${EVIL}: rank by layer, from 1 to 8`);
    const ticks = (n: XmlNode): string[] => texts(n).filter((t) => /^\d+$/.test(t));
    expect(ticks(small)).to.deep.equal(ticks(big));
    for (const f of await layerPanels([{ title: 'alone', points: [{ layer: 3, value: 0, series: 0 }] }], 'rank', ['one'], String)) checked(f.svg);
  });

  it('spectra: a curve each, at most eight, empty and zero ones left out', async () => {
    const curve = (name: string): { name: string; values: number[] } => ({ name, values: Array.from({ length: 200 }, (_, i) => 0.9 ** i) });
    const svg = (await spectrumPlot([curve(EVIL), { name: 'none', values: [] }, { name: 'zero', values: [0, 0] }, curve('b')])).svg; // prettier-ignore
    const root = checked(svg);
    expect(marks(root, 'line')).to.have.length(2);
    expect(tooltips(root)).to.deep.equal([EVIL, 'b']);
    expect(texts(root)).to.include.members([EVIL, 'b', 'index of the singular value']).and.not.include('zero');
    // log-spaced: far fewer points than values, first and last among them
    expect(marks(root, 'line')[0]!.attributes['d']!.split('L')).to.have.length.within(30, 64);
    const many = checked((await spectrumPlot(Array.from({ length: 12 }, (_, i) => curve(`t${i}`)))).svg);
    expect(marks(many, 'line')).to.have.length(8);
    expect(marks(checked((await spectrumPlot([{ name: 'one', values: [3] }])).svg), 'line')).to.have.length(1);
  });

  it('size against error: a line a method, its name beside it, exact points on the edge, a table of all', async () => {
    const section = await rateDistortionPlot([
      { name: EVIL, points: [{ ratio: 0.1, error: 0.2, label: 'rank 8' }, { ratio: 0.05, error: 0.4 }] }, // prettier-ignore
      { name: 'close', points: [{ ratio: 0.1, error: 0.2001 }] },
      { name: 'lossless', points: [{ ratio: 0.3, error: 0 }] },
    ]);
    const root = checked(section.figures![0]!.svg);
    expect(tooltips(root)).to.deep.equal([`${EVIL}: 5 % of the bytes, error 0.4`, `${EVIL}, rank 8: 10 % of the bytes, error 0.2`, 'close: 10 % of the bytes, error 0.2', 'lossless: 30 % of the bytes, exact']); // prettier-ignore
    const names = nodes(root).filter((n) => n.tag === 'text' && [EVIL, 'close', 'lossless'].includes(n.text));
    expect(names.map((n) => n.text)).to.have.members([EVIL, 'close', 'lossless']);
    const height = (name: string): number => Number(/,(-?[\d.]+)/.exec(names.find((n) => n.text === name)!.attributes['transform']!)![1]);
    // two points in one place: the labels are apart; the exact one is lowest
    expect(Math.abs(height(EVIL) - height('close'))).to.be.greaterThan(13);
    expect(height('lossless')).to.be.greaterThan(Math.max(height(EVIL), height('close')));
    expect(section.table!.rows).to.deep.equal([[EVIL, '', 0.05, 0.4], [EVIL, 'rank 8', 0.1, 0.2], ['close', '', 0.1, 0.2001], ['lossless', '', 0.3, 0]]); // prettier-ignore
    checked((await rateDistortionPlot([{ name: 'x', points: [{ ratio: 0.5, error: 0 }] }])).figures![0]!.svg);
    expect((await rateDistortionPlot([])).figures).to.equal(undefined);
  });

  it('the same numbers give the same bytes, side by side too', async () => {
    const draw = async (): Promise<string> => (await heatMap([{ layer: 0, row: 'q', value: 1, text: '1' }, { layer: 1, row: 'q', value: 2, text: '2' }], 'x')).svg; // prettier-ignore
    const [a, b] = await Promise.all([draw(), draw()]);
    expect(a).to.equal(b);
  });

  it('round bounds and brief numbers', () => {
    for (const [low, high] of [
      [0, 1],
      [0.06, 0.77],
      [-3, 8.5],
      [0.979, 0.981],
      [1e-9, 2e-9],
      [0, 40],
    ] as const) {
      // prettier-ignore
      const [first, last] = roundDomain(low, high);
      expect(first).to.be.at.most(low);
      expect(last).to.be.at.least(high);
      expect(last - first).to.be.at.most(2.5 * (high - low));
    }
    expect([0, 1, 0.012345, 1234, 123456, 1e-5, -2].map(brief)).to.deep.equal(['0', '1', '0.0123', '1230', '1.23e+5', '1.00e-5', '-2']);
  });
});
