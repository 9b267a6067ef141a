// Colours and pixels. One scale serves all pictures that are shown: {limit, kind, signed}.

const WIDTH = 640; // pixels of a picture
const PALETTES = { magnitudes: bytesOf(DATA.palettes.magnitudes), signed: bytesOf(DATA.palettes.signed) };
const LAST_COLOUR = PALETTES.signed.length / 3 - 1; // the one in the middle is zero

// Strength of a value between 0 and 1, and the value with this strength.
const STRENGTH = {
  linear: (ratio) => ratio,
  root: (ratio) => Math.sqrt(ratio),
  log: (ratio) => Math.max(0, 1 + Math.log10(ratio) / DATA.decades),
};
const VALUE = {
  linear: (strength) => strength,
  root: (strength) => strength ** 2,
  log: (strength) => 10 ** ((strength - 1) * DATA.decades),
};

function colourOf(value, { limit, kind, signed }) {
  const strength = limit > 0 ? Math.min(1, STRENGTH[kind](Math.abs(value) / limit)) : 0;
  const middle = LAST_COLOUR / 2;
  const index = signed ? middle + Math.sign(value) * Math.round(strength * middle) : Math.round(strength * LAST_COLOUR);
  return (signed ? PALETTES.signed : PALETTES.magnitudes).subarray(3 * index, 3 * index + 3);
}

const HATCH_COLOUR = '#b3b6ba';
const HATCH = makeCanvas(8, 8);
{
  const context = HATCH.getContext('2d');
  context.fillStyle = HATCH_COLOUR;
  context.fillRect(0, 0, 8, 8);
  context.strokeStyle = '#8d9196';
  context.lineWidth = 1.5;
  for (const shift of [-8, 0, 8]) {
    context.moveTo(shift - 1, 9);
    context.lineTo(shift + 9, -1);
  }
  context.stroke();
}

const bitmapOf = (jpeg) => createImageBitmap(new Blob([bytesOf(jpeg)], { type: 'image/jpeg' }));

function makeCanvas(width, height) {
  return element('canvas', { width, height });
}

function fillHatched(canvas) {
  const context = canvas.getContext('2d');
  context.fillStyle = context.createPattern(HATCH, 'repeat');
  context.fillRect(0, 0, canvas.width, canvas.height);
}

// Return the picture of a map; over its image, unless it is a matrix.
function drawMap(map, scale, image, opacity, values) {
  const canvas = makeCanvas(WIDTH, Math.round(WIDTH * (map.isMatrix ? map.rows / map.columns : image.height / image.width)));
  const context = canvas.getContext('2d');
  if (!map.isMatrix) {
    context.filter = 'grayscale(1)';
    context.drawImage(image, 0, 0, canvas.width, canvas.height);
    context.filter = 'none';
    context.globalAlpha = opacity;
  }
  const pixels = new ImageData(map.columns, map.rows);
  for (let cell = 0; cell < map.values.length; cell++) {
    if (map.states[cell] === HIDDEN) continue;
    pixels.data.set(colourOf(valueOf(map, cell, values), scale), 4 * cell);
    pixels.data[4 * cell + 3] = 255;
  }
  context.drawImage(hatchAround(pixels, canvas), 0, 0);
  return canvas;
}

// Copy a picture and outline the query token, or its row of the matrix, and the cell under the cursor.
function drawMarks(canvas, picture, map, cursorCell) {
  canvas.width = picture.width;
  canvas.height = picture.height;
  const context = canvas.getContext('2d');
  context.drawImage(picture, 0, 0);
  const [width, height] = [canvas.width / map.columns, canvas.height / map.rows];
  const outline = (cell, dash) => {
    for (const [style, line] of [['#000000', 6], ['#ffffff', 2.5]]) {
      context.strokeStyle = style;
      context.lineWidth = line;
      context.setLineDash(dash);
      context.strokeRect((cell % map.columns) * width, Math.floor(cell / map.columns) * height, width, height);
    }
  };
  if (map.queryCell >= 0) outline(map.queryCell, []);
  if (map.markedRow >= 0) pointAtRow(context, (map.markedRow + 0.5) * height);
  if (cursorCell !== null) outline(cursorCell, [6, 4]);
}

function pointAtRow(context, y) {
  context.fillStyle = '#ffffff';
  context.strokeStyle = '#000000';
  context.lineWidth = 2;
  for (const [edge, tip] of [[0, 16], [context.canvas.width, context.canvas.width - 16]]) {
    context.beginPath();
    for (const [x, shift] of [[edge, -9], [tip, 0], [edge, 9]]) context.lineTo(x, y + shift);
    context.closePath();
    context.fill();
    context.stroke();
  }
}

// Return the pixels, enlarged, on a hatched ground that shows where they are transparent.
function hatchAround(pixels, { width, height }) {
  const small = makeCanvas(pixels.width, pixels.height);
  small.getContext('2d').putImageData(pixels, 0, 0);
  const large = makeCanvas(width, height);
  fillHatched(large);
  const context = large.getContext('2d');
  context.imageSmoothingEnabled = false;
  context.drawImage(small, 0, 0, width, height);
  return large;
}

// Draw the colour scale with its numbers.
function drawLegend(scale, values, text) {
  const bar = document.getElementById('legend-bar');
  const pixels = new ImageData(bar.width, 1);
  const at = (position) => {
    const strength = scale.signed ? Math.abs(2 * position - 1) : position;
    const value = strength === 0 && scale.signed ? 0 : VALUE[scale.kind](strength) * scale.limit;
    return scale.signed && position < 0.5 ? -value : value;
  };
  for (let x = 0; x < bar.width; x++) {
    pixels.data.set(colourOf(at(x / (bar.width - 1)), scale), 4 * x);
    pixels.data[4 * x + 3] = 255;
  }
  bar.getContext('2d').putImageData(pixels, 0, 0);
  const format = (value) => (values === 'raw' ? formatNumber(value, 2) : formatShare(value, 2));
  const ticks = [0, 0.25, 0.5, 0.75, 1].map((position) => format(at(position)));
  if (scale.kind === 'log') {
    const lowest = scale.signed ? 2 : 0;
    ticks[lowest] = scale.signed ? `0 ± ${format(VALUE.log(0) * scale.limit)}` : `≤ ${ticks[lowest]}`;
  }
  document.getElementById('ticks').replaceChildren(...ticks.map((tick) => element('span', {}, tick)));
  document.getElementById('legend-text').textContent = text;
  bar.setAttribute('aria-label', `${text}: colours from ${ticks[0]} to ${ticks[4]}`);
}
