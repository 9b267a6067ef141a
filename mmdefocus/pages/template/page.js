'use strict';
for (const table of document.querySelectorAll('table.sortable')) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.firstElementChild.addEventListener('click', () => {
    const direction = head.getAttribute('aria-sort') === 'ascending' ? -1 : 1;
    for (const other of heads) other.removeAttribute('aria-sort');
    head.setAttribute('aria-sort', direction > 0 ? 'ascending' : 'descending');
    const key = (row) => {
      const cell = row.cells[column];
      return { number: cell.hasAttribute('data-value') ? Number(cell.dataset.value) : NaN, text: cell.textContent };
    };
    const compare = (a, b) => {
      const [left, right] = [key(a), key(b)];
      const missing = Number.isNaN(left.number) - Number.isNaN(right.number);
      if (missing) return missing; // cells without a number stay at the end
      if (!Number.isNaN(left.number)) return direction * (left.number - right.number || 0);
      return direction * left.text.localeCompare(right.text, undefined, { numeric: true });
    };
    table.tBodies[0].append(...[...table.tBodies[0].rows].sort(compare));
  }));
}
const dialog = document.querySelector('dialog');
for (const button of document.querySelectorAll('button.enlarge')) {
  button.addEventListener('click', () => {
    const [small, large] = [button.firstElementChild, dialog.querySelector('img')];
    large.src = small.src;
    large.alt = small.alt;
    dialog.querySelector('figcaption').textContent = small.alt;
    dialog.showModal();
  });
}
dialog.addEventListener('click', (event) => { if (event.target === dialog) dialog.close(); });
