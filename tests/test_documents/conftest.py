"""A server that runs the Python programs of the documents, and one for the published files, both started once."""

import os
import subprocess
import threading
from collections.abc import Callable
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from page_session import HERE, PageSession, python_server, write_commands


class OfficialFiles(SimpleHTTPRequestHandler):
    """Serves toy networks in the layout of the release; makes each at its first request."""

    environment: dict[str, str]

    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path))
        if not path.exists():
            command = ['python', str(HERE / 'make_stand_in.py'), f'official {path}']
            subprocess.run(command, env=self.environment, check=True)
        super().do_GET()

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture(scope='session')
def _python_socket(tmp_path_factory: pytest.TempPathFactory):
    with python_server(tmp_path_factory.mktemp('server')) as path:
        yield path


@pytest.fixture(scope='session')
def _file_server(tmp_path_factory: pytest.TempPathFactory, _python_socket: Path):
    folder = tmp_path_factory.mktemp('files')
    write_commands(folder / 'bin')
    OfficialFiles.environment = {
        **os.environ,
        'PATH': f'{folder / "bin"}:{os.environ["PATH"]}',
        'DOCUMENTS_SOCKET': str(_python_socket),
        'DOCUMENTS_PYTHON': str(folder / 'bin' / 'python'),
        'DOCUMENTS_NEEDS': '',
    }
    handler = partial(OfficialFiles, directory=str(folder))
    with ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f'http://127.0.0.1:{server.server_port}/'
        server.shutdown()


@pytest.fixture
def session(tmp_path: Path, _python_socket: Path, _file_server: str) -> Callable[[], PageSession]:
    """Return a maker of the directory in which the blocks of a page run."""
    return lambda: PageSession(tmp_path, _python_socket, _file_server)
