import type { TopLevelSpec } from 'vega-lite';

export type { TopLevelSpec };
export { compile } from 'vega-lite';
export { parse, View } from 'vega';
/** Widths of text for the layout; Vega's own guess is for a wide font. */
export const textMetrics: { width(item: { fontSize?: number }, text: unknown): number };
