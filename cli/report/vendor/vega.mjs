// Plots without a browser: Vega-Lite to Vega, Vega to an SVG string.
export { compile } from 'vega-lite';
export { parse, textMetrics, View } from 'vega';
