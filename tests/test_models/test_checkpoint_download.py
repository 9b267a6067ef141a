"""Checkpoints from http addresses, through the loader that MMEngine uses."""

import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from mmengine.runner.checkpoint import CheckpointLoader

from mmdefocus.models.checkpoint import CheckpointError
from mmdefocus.models.checkpoint.loaders import cached_path


class Server(BaseHTTPRequestHandler):
    """Serves ``files`` by path; ``announced`` overrides the content length."""

    files: dict[str, bytes]
    announced: dict[str, int]
    requests: list[str]

    def do_GET(self):
        self.requests.append(self.path)
        content = self.files.get(self.path)
        if content is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header('Content-Length', str(self.announced.get(self.path, len(content))))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, '_hub_dir', str(tmp_path / 'hub'))
    Server.files, Server.announced, Server.requests = {}, {}, []
    with ThreadingHTTPServer(('127.0.0.1', 0), Server) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        Server.url = f'http://127.0.0.1:{running.server_port}'
        yield Server
        running.shutdown()


def checkpoint(tmp_path, value):
    path = tmp_path / 'made.pth'
    torch.save({'state_dict': {'weight': torch.full((100,), float(value))}}, path)
    return path.read_bytes()


def load(url):
    return CheckpointLoader.load_checkpoint(url)['state_dict']['weight'][0].item()


def test_an_address_is_downloaded_once(server, tmp_path):
    server.files['/base.pth'] = checkpoint(tmp_path, 1)
    assert [load(f'{server.url}/base.pth') for _ in range(2)] == [1, 1]
    assert server.requests == ['/base.pth']


def test_addresses_of_one_file_name_are_kept_apart(server, tmp_path):
    for version in (1, 2):
        server.files[f'/v{version}/base.pth'] = checkpoint(tmp_path, version)
    assert [load(f'{server.url}/v{version}/base.pth') for version in (1, 2, 1)] == [1, 2, 1]


def test_a_truncated_download_is_an_error_and_removed(server, tmp_path):
    whole = checkpoint(tmp_path, 1)
    server.files['/base.pth'], server.announced['/base.pth'] = whole[:600], len(whole)
    url = f'{server.url}/base.pth'
    with pytest.raises(
        CheckpointError, match=rf'{url} could not be downloaded .*init_cfg\.checkpoint=FILE, or load_from'
    ):
        load(url)
    assert not list((tmp_path / 'hub').rglob('*.pth'))
    server.files['/base.pth'] = whole
    assert load(url) == 1


def test_a_damaged_copy_is_downloaded_again(server, tmp_path):
    server.files['/base.pth'] = checkpoint(tmp_path, 1)
    url = f'{server.url}/base.pth'
    load(url)
    cached = cached_path(url)
    cached.write_bytes(cached.read_bytes()[:-1000])
    os.utime(cached)
    assert load(url) == 1
    assert server.requests == ['/base.pth'] * 2


@pytest.mark.parametrize('content', [b'<html>moved</html>', None])
def test_other_content_is_removed(server, tmp_path, content):
    if content is not None:
        server.files['/base.pth'] = content
    with pytest.raises(
        CheckpointError, match=rf'{server.url}/base\.pth could not be downloaded \((Check|HTTP)\w*Error'
    ):
        load(f'{server.url}/base.pth')
    assert not list((tmp_path / 'hub').rglob('*.pth'))


def test_an_invalid_checkpoint_is_removed(server, tmp_path):
    path = tmp_path / 'made.pth'
    torch.save({'state_dict': {'weight': torch.tensor(torch.nan)}}, path)
    server.files['/base.pth'] = path.read_bytes()
    with pytest.raises(CheckpointError, match=r'state_dict\.weight has NaN or infinite elements'):
        load(f'{server.url}/base.pth')
    assert not list((tmp_path / 'hub').rglob('*.pth'))


def test_no_network(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, '_hub_dir', str(tmp_path / 'hub'))
    with pytest.raises(CheckpointError, match=r'http://127\.0\.0\.1:9/base\.pth could not be downloaded \(URLError'):
        load('http://127.0.0.1:9/base.pth')
