'use strict';
// The data of the page, and its arrays: unpacked when they are first shown.

const DATA = JSON.parse(document.getElementById('data').textContent);
const ARRAYS = new Map(); // the arrays used last, as promises by their packed form
const ARRAYS_KEPT = 64;

const bytesOf = (base64) => Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));

// Return the array that pack_array of quantisation.py packed, row by row: value = sign(c) · (c / m)² · scale of the row.
async function unpack({ bits, rows, columns, scales, codes }) {
  const stream = new Blob([bytesOf(codes)]).stream().pipeThrough(new DecompressionStream('deflate'));
  const bytes = new Uint8Array(await new Response(stream).arrayBuffer());
  const scaleOf = new Float32Array(bytesOf(scales).buffer);
  const largest = 2 ** (bits - 1) - 1;
  const count = rows * columns;
  const values = new Float32Array(count);
  for (let index = 0; index < count; index++) {
    const unsigned = bits === 8 ? bytes[index] << 24 : (bytes[index] << 16) | (bytes[index + count] << 24);
    const code = unsigned >> (32 - bits); // restores the sign
    values[index] = (Math.sign(code) * code * code * scaleOf[Math.floor(index / columns)]) / largest ** 2;
  }
  return values;
}

// Return an array, or the promise of one that is being unpacked.
function unpacked(packed) {
  const values = ARRAYS.get(packed) ?? unpack(packed);
  ARRAYS.delete(packed); // the order of a Map is that of insertion
  ARRAYS.set(packed, values);
  if (ARRAYS.size > ARRAYS_KEPT) ARRAYS.delete(ARRAYS.keys().next().value);
  return values;
}

// Return the analysed layer of a network whose relative depth is nearest.
function layerAtDepth(report, depth) {
  const distance = (layer) => Math.abs(layer.depth - depth);
  return report.layers.reduce((best, layer) => (distance(layer) < distance(best) ? layer : best));
}

// Text of a number with so many significant digits, and of a share in percent.
function formatNumber(value, digits = 3) {
  const size = Math.abs(value);
  let text = '0';
  if (size > 0) text = size < 1e-4 || size >= 1e6 ? value.toExponential(digits - 1) : value.toPrecision(digits);
  if (size >= 10 ** digits && size < 1e6) text = value.toFixed(0);
  return text.replaceAll('-', '−');
}

function formatShare(value, digits = 3) {
  return `${formatNumber(100 * value, digits)} %`;
}

// Return a new element. Children are nodes or texts; texts never become markup.
function element(name, properties = {}, ...children) {
  const node = Object.assign(document.createElement(name), properties);
  node.append(...children);
  return node;
}
