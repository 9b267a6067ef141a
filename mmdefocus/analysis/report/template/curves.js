// Scores over depth, as curves and as a table.

const MARKERS = ['M-4,0a4,4 0 1,0 8,0a4,4 0 1,0 -8,0', 'M-3.5,-3.5h7v7h-7z', 'M0,-4.5l4.5,8h-9z', 'M0,-5l5,5l-5,5l-5,-5z'];
const DASHES = ['', '7 3', '2 3', '9 3 2 3', '12 4', '5 2 1 2 1 2'];

function svg(name, attributes, ...children) {
  const node = document.createElementNS('http://www.w3.org/2000/svg', name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

// Colour, dash and marker of a network, the same for all images.
function styleOf(label) {
  const number = DATA.labels.indexOf(label);
  const pick = (list) => list[number % list.length];
  return { colour: pick(DATA.curves), dash: pick(DASHES), marker: pick(MARKERS) };
}

// Return round numbers between two others.
function ticksBetween(low, high, count) {
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough);
  const ticks = [];
  for (let number = Math.ceil(low / step - 1e-9); number * step <= high + 1e-9 * step; number++) ticks.push(number * step);
  return ticks;
}

// Points of the curve of a network: {x, mean, std, layer} of the layers that have the score.
function pointsOf(report, score, byLayer) {
  const { mean, std } = report.scores[score] ?? { mean: [], std: [] };
  return report.layers
    .map((layer, index) => ({ x: byLayer ? layer.index : 100 * layer.depth, mean: mean[index], std: std[index], layer }))
    .filter((point) => point.mean !== null && point.mean !== undefined);
}

// Whether the same layers of equally deep networks are compared, so that their numbers can be used instead of depths.
function haveSameLayers(reports) {
  const layers = (report) => report.layers.map(({ index, depth }) => `${index} ${depth}`).join();
  return reports.every((report) => layers(report) === layers(reports[0]));
}

const formatScore = ({ mean, std }) => `${formatNumber(mean)} ± ${formatNumber(std)}`;

function drawCurves(reports, score, shownDepth) {
  const byLayer = haveSameLayers(reports);
  const curves = reports.map((report) => ({ label: report.label, points: pointsOf(report, score, byLayer) }));
  const all = curves.flatMap((curve) => curve.points);
  const place = document.getElementById('curves');
  if (all.length === 0) return place.replaceChildren('None of the networks has this score.');
  const [width, height] = [Math.max(280, Math.min(900, place.clientWidth)), 300];
  const [left, right, top, bottom] = [58, 24, 12, 44];
  const low = Math.min(...all.map(({ mean, std }) => mean - std));
  const high = Math.max(...all.map(({ mean, std }) => mean + std));
  const margin = 0.06 * (high - low) || 0.1 * Math.abs(high) || 1;
  const xs = reports.flatMap((report) => report.layers.map((layer) => (byLayer ? layer.index : 100 * layer.depth)));
  const [first, last] = [Math.min(...xs), Math.max(...xs)];
  const toX = (x) => left + ((width - left - right) * (last > first ? x - first : 0.5)) / (last - first || 1);
  const toY = (y) => top + ((height - top - bottom) * (high + margin - y)) / (high - low + 2 * margin);
  const drawing = svg('svg', { width, height, viewBox: `0 0 ${width} ${height}`, role: 'img' });
  const text = (x, y, anchor, content) => svg('text', { x, y, 'text-anchor': anchor }, content);
  for (const y of ticksBetween(low - margin, high + margin, 5)) {
    drawing.append(svg('line', { class: 'grid', x1: left, x2: width - right, y1: toY(y), y2: toY(y) }));
    drawing.append(text(left - 8, toY(y) + 4, 'end', `${Number(y.toPrecision(6))}`.replace('-', '−')));
  }
  const tickCount = Math.min(12, width / 60, byLayer ? last - first : 12);
  const ticks = last > first ? ticksBetween(first, last, tickCount) : [first];
  for (const x of ticks) drawing.append(text(toX(x), height - bottom + 18, 'middle', byLayer ? `${x}` : `${x} %`));
  const axis = byLayer ? 'layer' : 'relative depth (share of the layers of each network)';
  drawing.append(text((left + width - right) / 2, height - 6, 'middle', axis));
  const shown = toX(byLayer ? layerAtDepth(reports[0], shownDepth).index : 100 * shownDepth);
  drawing.append(svg('line', { class: 'shown', x1: shown, x2: shown, y1: top, y2: height - bottom }));
  const line = (points) => points.map(([x, y]) => `${toX(x)},${toY(y)}`).join(' ');
  for (const { label, points } of curves) {
    const { colour, dash, marker } = styleOf(label);
    const band = [...points.map(({ x, mean, std }) => [x, mean + std]), ...points.toReversed().map(({ x, mean, std }) => [x, mean - std])];
    const path = line(points.map(({ x, mean }) => [x, mean]));
    drawing.append(svg('polygon', { class: 'band', points: line(band), fill: colour }));
    drawing.append(svg('polyline', { class: 'curve', points: path, stroke: colour, 'stroke-dasharray': dash }));
    for (const point of points) {
      const title = svg('title', {}, `${label}, layer ${point.layer.index}: ${formatScore(point)}`);
      const position = `translate(${toX(point.x)} ${toY(point.mean)})`;
      drawing.append(svg('path', { d: marker, transform: position, fill: colour }, title));
    }
  }
  drawing.setAttribute('aria-label', `Curves of ${score} over the layers of ${reports.length} networks; see the table below`);
  place.replaceChildren(drawing);
}

function drawKey(reports) {
  const items = reports.map(({ label }) => {
    const { colour, dash, marker } = styleOf(label);
    const sample = svg('svg', { width: 44, height: 16, 'aria-hidden': 'true' });
    sample.append(svg('line', { class: 'curve', x1: 0, x2: 44, y1: 8, y2: 8, stroke: colour, 'stroke-dasharray': dash }));
    sample.append(svg('path', { d: marker, transform: 'translate(22 8)', fill: colour }));
    return element('li', {}, sample, label);
  });
  document.getElementById('key').replaceChildren(...items);
}

function fillTable(reports, score) {
  const byLayer = haveSameLayers(reports);
  const columns = reports.map((report) => new Map(pointsOf(report, score, byLayer).map((point) => [point.x, point])));
  const positions = [...new Set(columns.flatMap((column) => [...column.keys()]))].sort((a, b) => a - b);
  const cell = (name, scope, content) => element(name, scope ? { scope } : {}, content);
  const head = [byLayer ? 'Layer' : 'Relative depth', ...reports.map((report) => report.label)];
  const rows = positions.map((x) => {
    const values = columns.map((column) => {
      const point = column.get(x);
      return cell('td', '', point ? formatScore(point) + (byLayer ? '' : ` (layer ${point.layer.index})`) : '–');
    });
    return element('tr', {}, cell('th', 'row', byLayer ? `${x}` : `${formatNumber(x)} %`), ...values);
  });
  document.querySelector('thead').replaceChildren(element('tr', {}, ...head.map((label) => cell('th', 'col', label))));
  document.querySelector('tbody').replaceChildren(...rows);
  document.getElementById('table-caption').textContent = `${score}: mean ± standard deviation over the heads or groups`;
}
