/** The page of `delta frontier`. */
import type { FrontierReport } from '../../pipelines/delta-frontier.js';
import { formatBytes, formatShare } from '../sizes.js';
import { renderPage } from './page.js';
import { rateDistortionPlot } from './rate-distortion.js';

export async function frontierPage(r: FrontierReport, base: string, tuned: string): Promise<string> {
  const series = r.series.map(({ method, points }) => ({
    name: method,
    points: points.map((p) => ({ ratio: p.ratio, error: p.error, label: p.share === undefined ? 'whole' : `asked for ${formatShare(p.share)}` })),
  }));
  return renderPage({
    title: `Delta frontier of ${tuned}`,
    facts: [
      ['base', base],
      ['tuned', tuned],
      ['raw', formatBytes(r.rawBytes)],
    ],
    sections: [await rateDistortionPlot(series)],
  });
}
