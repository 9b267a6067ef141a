// State, controls and panels.

const $ = (id) => document.getElementById(id);
const state = { image: DATA.images[0], view: 'row', head: 'magnitude', position: 0, query: { x: 0.5, y: 0.5 }, cursor: null };
const held = new Map(); // limits of the colour scales that are held, by kind of map
let panels = []; // one per network: {report, layer, map, image, …elements}
let turn = 0; // number of the latest drawing; an older one that is still unpacking gives up

const reportsShown = () => DATA.reports.filter((report) => report.image === state.image);
// The layers of the slider are those of the network with the most; the others show the layer at the nearest depth.
const reference = () => reportsShown().reduce((best, report) => (report.layers.length > best.layers.length ? report : best));
const depthShown = () => reference().layers[state.position].depth;
const percent = (depth) => `${Math.round(100 * depth)} %`;

function startPanels() {
  panels = reportsShown().map((report) => {
    const canvas = element('canvas', { tabIndex: 0, hidden: true });
    canvas.setAttribute('role', 'img');
    canvas.setAttribute('aria-describedby', 'help');
    const parts = {
      canvas,
      absent: element('div', { className: 'absent', hidden: true }),
      where: element('p', { className: 'quiet' }),
      tokens: element('p', { className: 'numbers' }),
      readout: element('p', { className: 'numbers readout' }),
    };
    const text = (content) => element('p', { className: 'quiet' }, content);
    const notes = report.notes.map((note) => text(`Note: ${note}`));
    if (report.predicted) notes.unshift(text(`Predicted class: ${report.predicted}`));
    const figure = element('figure', {}, canvas, parts.absent, element('figcaption', {}, parts.tokens, parts.readout));
    const heading = element('h3', {}, report.label);
    const root = element('article', { className: 'panel' }, heading, text(report.description), parts.where, figure, ...notes);
    const panel = { report, root, ...parts, bitmap: bitmapOf(DATA.pictures[report.picture]) };
    listen(panel);
    return panel;
  });
  $('panels').replaceChildren(...panels.map((panel) => panel.root));
  $('panels').style.maxWidth = `${33 * panels.length}rem`;
  $('layer').max = reference().layers.length - 1;
  state.position = Math.min(state.position, reference().layers.length - 1);
  $('layer').value = state.position;
  drawKey(reportsShown());
  drawScores();
  update();
}

// Unpack what is to be shown, then draw all pictures on one scale.
async function update() {
  const mine = ++turn;
  document.querySelector('main').setAttribute('aria-busy', 'true');
  const parts = panels.map(async (panel) => {
    const layer = layerAtDepth(panel.report, depthShown());
    return { layer, map: await makeMap(layer, state), image: await panel.bitmap };
  });
  const ready = await Promise.all(parts);
  if (mine !== turn) return;
  panels.forEach((panel, index) => Object.assign(panel, ready[index]));
  draw();
  document.querySelector('main').setAttribute('aria-busy', 'false');
}

function draw() {
  if (panels.some((panel) => !panel.map)) return; // still unpacking
  const shown = panels.filter((panel) => !panel.map.missing);
  const values = $('values').value;
  const scale = { kind: $('scale').value, signed: shown.some(({ map }) => map.values.some((value) => value < 0)), limit: 0 };
  for (const { map } of shown) {
    for (let cell = 0; cell < map.values.length; cell++) {
      if (map.states[cell] === VISIBLE) scale.limit = Math.max(scale.limit, Math.abs(valueOf(map, cell, values)));
    }
  }
  // Two digits read better in the legend.
  const unit = 10 ** (Math.floor(Math.log10(scale.limit)) - 1);
  if (scale.limit > 0) scale.limit = Math.ceil(scale.limit / unit - 1e-9) * unit;
  const kind = [state.view, values, scale.signed].join();
  if (!$('hold').checked) held.clear();
  else if (held.has(kind)) scale.limit = held.get(kind);
  else held.set(kind, scale.limit);
  panels.forEach((panel) => drawPanel(panel, scale));
  const measure = { row: 'Attention', matrix: 'Attention', rollout: 'Rollout' }[state.view] ?? 'Norm of the gradient';
  drawLegend(scale, values, `${measure}, ${values === 'raw' ? 'as computed' : 'share of the sum over the tokens'}; one scale for all networks`);
  $('legend').hidden = shown.length === 0;
  drawTexts();
}

function drawPanel(panel, scale) {
  const { report, layer, map, image, canvas, absent, where, tokens } = panel;
  canvas.hidden = Boolean(map.missing);
  absent.hidden = !map.missing;
  where.textContent = `Layer ${layer.index} (${layer.name}), relative depth ${percent(layer.depth)}`;
  tokens.replaceChildren();
  if (map.missing) {
    absent.textContent = map.missing;
    absent.style.aspectRatio = state.view === 'matrix' ? '1' : `${image.width} / ${image.height}`;
  } else {
    const values = $('values').value;
    panel.picture = drawMap(map, scale, image, $('opacity').value / 100, values);
    if (map.classToken) tokens.append(...describeClassToken(panel, scale, values));
    if (map.hasPadding) tokens.append(` Padding: ${formatShare(shareOf(map, map.padding))} of the sum.`);
    const view = VIEWS[state.view].label.toLowerCase();
    canvas.setAttribute('aria-label', `${report.label}: ${view}, layer ${layer.index}, ${queryText(map)}. ${largestText(map)}`);
  }
  pointAt(panel);
}

function describeClassToken({ map, layer }, scale, values) {
  const { value, visible } = map.classToken;
  const isQuery = map.query !== null && map.query === DATA.layouts[layer.layout].classToken;
  const swatch = element('span', { className: isQuery ? 'swatch query' : 'swatch' });
  const colour = colourOf(values === 'raw' ? value : shareOf(map, value), scale);
  swatch.style.backgroundColor = visible ? `rgb(${colour.join()})` : HATCH_COLOUR;
  const number = visible ? `${formatNumber(value)}, ${formatShare(shareOf(map, value))} of the sum.` : 'not visible to the query.';
  return [swatch, `Class token${isQuery ? ' (query)' : ''}: ${number}`];
}

// Draw the cursor of a panel and the number below it.
function pointAt({ map, canvas, picture, readout }) {
  const cell = map.missing ? null : cellAt(map, state.cursor);
  if (!map.missing) drawMarks(canvas, picture, map, cell);
  readout.textContent = map.missing ? '' : cell === null ? largestText(map) : describeCell(map, cell);
}

function largestText(map) {
  let largest = -1;
  map.values.forEach((value, cell) => {
    if (map.states[cell] === VISIBLE && (largest < 0 || Math.abs(value) > Math.abs(map.values[largest]))) largest = cell;
  });
  return largest < 0 ? 'Nothing is visible.' : `Largest: ${describeCell(map, largest)}`;
}

function queryText(map) {
  if (map.isMatrix) return 'all query tokens';
  if (map.query === null) return 'no query token';
  const [row, column] = [Math.floor(map.queryCell / map.columns), map.queryCell % map.columns];
  return map.queryCell < 0 ? `query token ${map.query}` : `query at row ${row}, column ${column} (token ${map.query})`;
}

function drawTexts() {
  const layers = haveSameLayers(reportsShown());
  const depth = percent(depthShown());
  const number = reference().layers[state.position].index;
  $('layer-text').textContent = layers ? `${number}, at depth ${depth}` : `at depth ${depth}`;
  $('layer').setAttribute('aria-valuetext', $('layer-text').textContent);
  $('opacity-text').textContent = `${$('opacity').value} %`;
  const usesHeads = state.view === 'row' || state.view === 'matrix';
  const head = state.head in HEADS ? `${HEADS[state.head]} over all heads or groups` : `head or group ${state.head}, signed, rounded to 8 bits`;
  const { caption, queries } = VIEWS[state.view];
  const sentences = [caption];
  const isPartial = ({ layer, map }) => !map.missing && queries(layer).length < DATA.layouts[layer.layout].cells.length;
  if (queries && panels.some(isPartial)) sentences.push('Not every token has this map: each network shows that of its nearest query token.');
  if (usesHeads) sentences.push(`Shown: ${head}.`);
  if (usesHeads && DATA.headStep !== 1) {
    const kept = DATA.headStep ? `One head in ${DATA.headStep} is` : 'Single heads are not';
    sentences.push(`${kept} kept, to limit the size of this file; means are over all.`);
  }
  if (!layers) sentences.push('The networks differ in their layers: each shows its analysed layer nearest to the relative depth chosen.');
  $('caption').textContent = sentences.join(' ');
  $('head').disabled = !usesHeads;
  $('opacity').disabled = state.view === 'matrix';
  $('class-token').setAttribute('aria-pressed', String(state.query === CLASS_TOKEN));
}

function drawScores() {
  const score = $('score').value;
  $('scores').hidden = score === '';
  if (score === '') return;
  $('meaning').textContent = DATA.meanings[score] ?? '';
  drawCurves(reportsShown(), score, depthShown());
  fillTable(reportsShown(), score);
}

// The cursor is a place between 0 and 1 of every picture.
function cellAt(map, cursor) {
  if (cursor === null) return null;
  const clip = (value, count) => Math.max(0, Math.min(count - 1, Math.floor(value * count)));
  return clip(cursor.y, map.rows) * map.columns + clip(cursor.x, map.columns);
}

function select(panel) {
  const cell = cellAt(panel.map, state.cursor);
  const place = cell === null ? null : placeOfCell(panel.map, DATA.layouts[panel.layer.layout], cell);
  if (place !== null) setQuery(place);
}

async function setQuery(place) {
  state.query = place;
  await update();
  const shown = panels.find(({ map }) => !map.missing);
  $('status').textContent = shown ? `New query. ${shown.canvas.getAttribute('aria-label')}` : 'No network has this query.';
}

function listen(panel) {
  const { canvas } = panel;
  const steps = { ArrowUp: [0, -1], ArrowDown: [0, 1], ArrowLeft: [-1, 0], ArrowRight: [1, 0] };
  const moveTo = (cursor) => {
    state.cursor = cursor;
    panels.forEach(pointAt);
  };
  canvas.addEventListener('pointermove', (event) => moveTo({ x: event.offsetX / canvas.clientWidth, y: event.offsetY / canvas.clientHeight }));
  canvas.addEventListener('pointerleave', () => moveTo(null));
  canvas.addEventListener('blur', () => moveTo(null));
  canvas.addEventListener('click', () => select(panel));
  canvas.addEventListener('keydown', (event) => {
    const { rows, columns, queryCell, markedRow } = panel.map;
    if (event.key in steps) {
      const start = cellAt(panel.map, state.cursor) ?? (queryCell >= 0 ? queryCell : Math.max(0, markedRow ?? 0) * columns);
      const [right, down] = steps[event.key];
      const clip = (value, count) => (Math.max(0, Math.min(count - 1, value)) + 0.5) / count;
      moveTo({ x: clip((start % columns) + right, columns), y: clip(Math.floor(start / columns) + down, rows) });
      $('status').textContent = panel.readout.textContent;
    } else if (event.key === 'Enter' || event.key === ' ') select(panel);
    else if (event.key === 'Escape') moveTo(null);
    else return;
    event.preventDefault();
  });
}

function start() {
  for (const [name, view] of Object.entries(VIEWS)) {
    const radio = element('input', { type: 'radio', name: 'view', value: name, checked: name === state.view });
    radio.disabled = !DATA.reports.some((report) => report.layers.some((layer) => view.packed(layer, 'magnitude') !== null));
    $('views').append(element('label', {}, radio, view.label));
  }
  const fill = (id, entries) => $(id).append(...entries.map(([value, text]) => element('option', { value }, text)));
  fill('image', DATA.images.map((name) => [name, name]));
  $('image-field').hidden = DATA.images.length < 2;
  const maps = DATA.reports.flatMap((report) => report.layers.flatMap((layer) => layer.attention ?? []));
  const heads = new Set(maps.flatMap((map) => (map.count > 1 ? Object.keys(map.heads).map(Number) : [])));
  fill('head', [...Object.entries(HEADS), ...[...heads].sort((a, b) => a - b).map((head) => [`${head}`, `head ${head}`])]);
  fill('score', [...new Set(DATA.reports.flatMap((report) => Object.keys(report.scores)))].map((name) => [name, name]));
  $('class-token').disabled = DATA.layouts.every((layout) => layout.classToken === null);
  $('summary').textContent = `Networks: ${DATA.labels.join(' · ')}. Images: ${DATA.images.join(' · ')}.`;
  state.position = reference().layers.length - 1;
  fillHatched($('hatch-key'));
  const on = (id, event, action) => $(id).addEventListener(event, action);
  on('controls', 'submit', (event) => event.preventDefault());
  on('views', 'change', (event) => { state.view = event.target.value; state.cursor = null; update(); });
  on('image', 'change', () => { state.image = $('image').value; startPanels(); });
  on('head', 'change', () => { state.head = $('head').value; update(); });
  on('layer', 'input', () => { state.position = Number($('layer').value); drawScores(); update(); });
  on('class-token', 'click', () => setQuery(CLASS_TOKEN));
  on('centre', 'click', () => setQuery({ x: 0.5, y: 0.5 }));
  for (const id of ['values', 'scale', 'opacity', 'hold']) on(id, 'input', draw);
  on('score', 'change', drawScores);
  new ResizeObserver(drawScores).observe($('curves'));
  startPanels();
}

if (typeof DecompressionStream === 'undefined') $('summary').textContent = 'This page needs a browser of 2023 or later.';
else start();
