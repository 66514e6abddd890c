/** A fine-tuning run as a page: losses, learning rate and gradient norms over the steps. */
import type { StepMetrics } from '../../core/events.js';
import type { FinetuneReport } from '../../pipelines/finetune/finetune.js';
import { renderPage } from './page.js';
import { brief } from './plots.js';
import { DASHES, renderPlot, SERIES, type Plot } from './svg.js';

type Numbers = Exclude<keyof StepMetrics, 'step'>;

export async function finetunePage(r: FinetuneReport): Promise<string> {
  const val = r.valLoss === undefined ? [] : [['validation loss', r.valLoss.toFixed(4)] as const];
  const base = r.baseLoss === undefined ? [] : [['loss of the base', r.baseLoss.toFixed(4)] as const];
  const curve = async (title: string, note: string, series: readonly (readonly [field: Numbers, name: string])[]) => {
    return { title, note, figures: [{ svg: await linePlot(r.metrics, title, series) }] };
  };
  const sections = [
    await curve('Loss', 'Mean cross entropy of the learnt tokens of each step, nats.', [
      ['loss', 'training'],
      ['valLoss', 'validation'],
    ]),
    await curve('Learning rate', 'As the schedule has it.', [['lr', 'learning rate']]),
    await curve('Gradient norm', 'Over all trainable tensors, before clipping.', [['gradNorm', 'norm']]),
  ];
  const facts = [
    ['method', r.method],
    ['steps', String(r.steps)],
    ['trainable values', String(r.trainable)],
    ['layers', String(r.modules)],
    ['loss', r.loss.toFixed(4)],
    ...val,
    ...base,
  ] as (readonly [string, string])[];
  const rows = r.metrics.map((m) => [m.step, m.loss, m.valLoss, m.lr, m.gradNorm, m.tokens]);
  const columns = ['step', 'loss', 'validation', 'learning rate', 'gradient norm', 'tokens'].map((title) => ({ title, format: brief }));
  return renderPage({ title: `Fine-tuning: ${r.method}`, facts, sections: [...sections, { title: 'Steps', table: { caption: 'steps', columns, rows } }] });
}

function linePlot(metrics: readonly StepMetrics[], title: string, series: readonly (readonly [field: Numbers, name: string])[]): Promise<string> {
  const values = series.flatMap(([field, name]) =>
    metrics.flatMap((m) => {
      const value = m[field];
      return value === undefined || !Number.isFinite(value) ? [] : [{ name, step: m.step, value, tip: `${name} at step ${m.step}: ${brief(value)}` }];
    }),
  );
  const domain = series.map(([, name]) => name);
  const legend = series.length < 2 ? null : { title: null, orient: 'bottom' as const };
  const plot: Plot = {
    data: { values },
    width: 640,
    height: 240,
    mark: { type: 'line', strokeWidth: 1.75, point: values.length < 60 },
    encoding: {
      x: { field: 'step', type: 'quantitative', title: 'step', axis: { grid: false, tickCount: 6 } },
      y: { field: 'value', type: 'quantitative', title, scale: { zero: false }, axis: { tickCount: 5, format: '~g' } },
      color: { field: 'name', type: 'nominal', scale: { domain, range: SERIES }, legend },
      strokeDash: { field: 'name', type: 'nominal', scale: { domain, range: DASHES }, legend },
      description: { field: 'tip' },
    },
  };
  return renderPlot(plot, `Lines: ${title} over ${metrics.length} steps`);
}
