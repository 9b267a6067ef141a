"""What every page must do in a browser."""

import json
from pathlib import Path
from typing import Any

# The contrast of every visible text with the first background behind it that is not transparent, as WCAG 2 defines it.
_CONTRAST = r"""
const linear = (c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
const numbers = (text) => text.match(/[\d.]+/g).map(Number);
const light = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
const found = [];
for (const element of document.querySelectorAll('main *, header *, nav *')) {
  const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
  if (!own || !element.checkVisibility()) continue;
  const svg = element.closest('svg');
  const style = getComputedStyle(element);
  if (svg && element.getAttribute('fill') && element.getAttribute('fill') !== 'currentColor') continue;
  let behind = element;
  const isClear = (node) => getComputedStyle(node).backgroundColor === 'rgba(0, 0, 0, 0)';
  while (behind.parentElement && isClear(behind)) behind = behind.parentElement;
  const colours = [svg ? style.fill : style.color, getComputedStyle(behind).backgroundColor];
  const [a, b] = colours.map((colour) => light(numbers(colour)));
  found.push([(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), element.tagName, element.textContent.slice(0, 40)]);
}
return found.sort((x, y) => x[0] - y[0]);
"""


def open_page(driver: Any, path: Path, width: int = 1280, scheme: str = 'light') -> None:
    feature = {'name': 'prefers-color-scheme', 'value': scheme}
    driver.execute_cdp_cmd('Emulation.setEmulatedMedia', {'features': [feature]})
    metrics = {'width': width, 'height': 900, 'deviceScaleFactor': 1, 'mobile': False}
    driver.execute_cdp_cmd('Emulation.setDeviceMetricsOverride', metrics)
    driver.get_log('performance')
    driver.get(path.as_uri())


def check_page(driver: Any, path: Path) -> None:
    """Check console, requests, width and contrast, narrow and wide, light and dark."""
    for width in (360, 1280):
        for scheme in ('light', 'dark'):
            open_page(driver, path, width, scheme)
            assert driver.get_log('browser') == []
            messages = [json.loads(entry['message'])['message'] for entry in driver.get_log('performance')]
            urls = [m['params']['request']['url'] for m in messages if m['method'] == 'Network.requestWillBeSent']
            assert [url for url in urls if not url.startswith('data:')] == [path.as_uri()]
            assert driver.execute_script('return document.documentElement.scrollWidth') <= width
            lowest = driver.execute_script(_CONTRAST)
            assert len(lowest) > 10
            assert lowest[0][0] >= 4.5, lowest[:5]
            background = driver.execute_script(
                'return getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)'
            )
            assert (max(background) < 60) == (scheme == 'dark')
