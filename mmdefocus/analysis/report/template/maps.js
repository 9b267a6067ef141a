// What a picture shows: the values of one view of one layer on a grid of cells.

const HIDDEN = 0; // not visible to the query by causality
const VISIBLE = 1;
const PADDING = -2; // cell of a token; those outside the image have -1
const CLASS_TOKEN = 'class token';

const HEADS = { magnitude: 'mean of |A|', signed: 'signed mean' }; // besides single heads

// Every view: where its array and its query tokens are, and how it was computed.
const VIEWS = {
  row: {
    label: 'Attention row',
    packed: (layer, head) => attentionOf(layer, head),
    queries: (layer) => layer.queries,
    missing: (layer, head) => noAttention(layer, head),
    caption:
      'Attention of the query token (outlined) to every token: a row of the matrix A that turns the values of the ' +
      "layer's token mixing into its output, exact and not estimated.",
  },
  matrix: {
    label: 'Whole matrix',
    packed: (layer, head) => (isComplete(layer) ? attentionOf(layer, head) : layer.matrix),
    missing: (layer, head) => noAttention(layer, head),
    caption:
      'Attention of all tokens: query tokens from top to bottom, key tokens from left to right, in the order of the ' +
      'sequence, without padding. Arrows mark the row of the query token. Long sequences are averaged to at most 256 × 256.',
  },
  rollout: {
    label: 'Rollout',
    packed: (layer) => layer.rollout,
    queries: (layer) => layer.queries,
    missing: (layer) => layer.note || 'The attention rollout was not computed.',
    caption:
      'Attention rollout (Abnar and Zuidema, 2020) from the query token down to the first analysed layer: the product ' +
      'over the layers of the mean of |A| over the heads plus the identity, with rows that sum to 1.',
  },
  gradient: {
    label: 'Gradient',
    packed: (layer) => layer.gradient,
    queries: (layer) => layer.gradientQueries,
    missing: () => 'Gradients of tokens were not computed.',
    caption:
      'Norm of the gradient of the norm of the query token that leaves the layer, with respect to each token that ' +
      'enters it.',
  },
  classGradient: {
    label: 'Class gradient',
    packed: (layer) => layer.classGradient,
    missing: () => 'There is no class logit whose gradient could be shown.',
    caption:
      'Norm of the gradient of the logit of the predicted class with respect to each token that enters the layer. It ' +
      'has no query token.',
  },
  fields: {
    label: 'Receptive field',
    packed: (layer) => layer.fields,
    queries: (layer) => layer.gradientQueries,
    missing: () => 'Receptive fields were not computed.',
    caption:
      'Effective receptive field (as in RepLKNet): how much each cell of the image contributes to the query token that ' +
      'leaves the layer, from gradients, averaged over the images.',
  },
};

const isComplete = (layer) => layer.attention !== null && layer.matrix === null;

function attentionOf(layer, head) {
  const maps = layer.attention;
  if (maps === null) return null;
  if (head === 'magnitude') return maps.magnitude;
  if (head === 'signed' || (head === '0' && maps.count === 1)) return maps.signed ?? maps.magnitude;
  return maps.heads[head] ?? null;
}

function noAttention(layer, head) {
  if (layer.attention === null) return layer.note || 'No attention was computed.';
  const kept = Object.keys(layer.attention.heads);
  if (Number(head) >= layer.attention.count) return `This layer has only ${layer.attention.count} heads or groups.`;
  return `Head ${head} was left out to keep the page small (kept: ${kept.join(', ') || 'none'}).`;
}

// Return the index of the query token nearest to a place of the image, the last of equally near ones, or of the class
// token; -1 without one.
function nearestQuery(layout, queries, place) {
  if (place === CLASS_TOKEN) return layout.classToken === null ? -1 : queries.indexOf(layout.classToken);
  let best = -1;
  let nearest = Infinity;
  queries.forEach((token, index) => {
    const cell = layout.cells[token];
    if (cell < 0) return;
    const distance = Math.hypot(
      (Math.floor(cell / layout.columns) + 0.5) / layout.rows - place.y,
      ((cell % layout.columns) + 0.5) / layout.columns - place.x,
    );
    if (distance < nearest + 1e-9) [best, nearest] = [index, distance];
  });
  return best;
}

// Return the map of a layer: {rows, columns, values, states, tokens, totals, query, …}, or {missing: why}.
async function makeMap(layer, { view: name, head, query: place }) {
  const view = VIEWS[name];
  const packed = view.packed(layer, head);
  if (packed === null) return { missing: view.missing(layer, head) };
  const layout = DATA.layouts[layer.layout];
  const queries = view.queries?.(layer);
  const index = queries ? nearestQuery(layout, queries, place) : 0;
  if (index < 0) {
    const exists = place !== CLASS_TOKEN || layout.classToken !== null;
    return { missing: exists ? 'This view has no row of that token.' : 'This network has no class token.' };
  }
  const array = await unpacked(packed);
  if (name === 'matrix') return matrixMap(layout, array, packed.columns, place);
  const row = array.subarray(index * packed.columns, (index + 1) * packed.columns);
  const query = queries ? queries[index] : null;
  return name === 'fields' ? fieldMap(layout, layer.fieldGrid, row, query) : rowMap(layout, row, query);
}

function rowMap(layout, row, query) {
  const { rows, columns, cells, causal, classToken } = layout;
  const map = emptyMap(rows, columns, query, query === null ? -1 : cells[query]);
  const isVisible = (token) => query === null || !causal || token <= query;
  map.totals = [row.reduce((sum, value) => sum + Math.abs(value), 0)];
  map.padding = 0;
  cells.forEach((cell, token) => {
    if (cell === PADDING) map.padding += Math.abs(row[token]);
    if (cell < 0) return;
    map.values[cell] = row[token];
    map.tokens[cell] = token;
    if (isVisible(token)) map.states[cell] = VISIBLE;
  });
  map.hasPadding = cells.includes(PADDING);
  if (classToken !== null) map.classToken = { value: row[classToken], visible: isVisible(classToken) };
  return map;
}

function fieldMap(layout, [rows, columns], values, query) {
  const same = rows === layout.rows && columns === layout.columns;
  const map = emptyMap(rows, columns, query, same ? layout.cells[query] : -1);
  map.values.set(values);
  map.totals = [values.reduce((sum, value) => sum + Math.abs(value), 0)];
  map.states.fill(VISIBLE);
  if (same) {
    layout.cells.forEach((cell, token) => {
      if (cell < 0) return;
      map.tokens[cell] = token;
      if (layout.causal && token > query) map.states[cell] = HIDDEN;
    });
  }
  return map;
}

// A line of the matrix is a token, or several that were averaged: {first, last}.
function matrixMap(layout, array, count, place) {
  const length = layout.cells.length;
  const lines = Array.from({ length: count }, (_, line) => ({
    number: line,
    first: Math.floor((line * length) / count),
    last: Math.ceil(((line + 1) * length) / count) - 1,
  })).filter((line) => count < length || layout.cells[line.first] !== PADDING);
  const map = { ...emptyMap(lines.length, lines.length, null, -1), isMatrix: true, lines };
  lines.forEach((query, row) => {
    lines.forEach((key, column) => {
      const cell = row * lines.length + column;
      map.values[cell] = array[query.number * count + key.number];
      if (!layout.causal || column <= row) map.states[cell] = VISIBLE;
    });
    const all = array.subarray(query.number * count, (query.number + 1) * count); // of padding, too
    map.totals.push(all.reduce((sum, value) => sum + Math.abs(value), 0));
  });
  const token = nearestQuery(layout, [...layout.cells.keys()], place);
  map.markedRow = lines.findIndex((line) => line.first <= token && token <= line.last);
  return map;
}

function emptyMap(rows, columns, query, queryCell) {
  const count = rows * columns;
  const [values, states] = [new Float32Array(count), new Uint8Array(count)];
  return { rows, columns, values, states, tokens: new Int32Array(count).fill(-1), totals: [], query, queryCell };
}

// Return the value of a cell as it is coloured: as computed, or as a share of the sum of magnitudes of its row.
function valueOf(map, cell, values) {
  return values === 'raw' ? map.values[cell] : shareOf(map, map.values[cell], cell);
}

function shareOf(map, value, cell = 0) {
  const total = map.totals[map.isMatrix ? Math.floor(cell / map.columns) : 0];
  return total > 0 ? value / total : 0;
}

// Return the place in the image of the token of a cell: in a matrix, of its query.
function placeOfCell(map, layout, cell) {
  const centre = (index, { rows, columns }) => ({ x: ((index % columns) + 0.5) / columns, y: (Math.floor(index / columns) + 0.5) / rows });
  if (!map.isMatrix) return centre(cell, map);
  const { first, last } = map.lines[Math.floor(cell / map.columns)];
  if (layout.classToken !== null && first <= layout.classToken && layout.classToken <= last) return CLASS_TOKEN;
  const inside = layout.cells.slice(first, last + 1).find((index) => index >= 0);
  return inside === undefined ? null : centre(inside, layout);
}

// Return a sentence about a cell.
function describeCell(map, cell) {
  const [row, column] = [Math.floor(cell / map.columns), cell % map.columns];
  const token = map.tokens[cell];
  const name = (index) => {
    const { first, last } = map.lines[index];
    return first === last ? `${first}` : `${first}–${last}`;
  };
  const where = map.isMatrix
    ? `Query ${name(row)}, key ${name(column)}`
    : `Row ${row}, column ${column}${token < 0 ? '' : ` (token ${token})`}`;
  if (map.states[cell] === HIDDEN) return `${where}: not visible to the query`;
  return `${where}: ${formatNumber(map.values[cell])}, ${formatShare(shareOf(map, map.values[cell], cell))} of the sum`;
}
