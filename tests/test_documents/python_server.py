"""Run Python programs in forks of one process that has imported torch and OpenMMLab, which takes seconds, once.

    python python_server.py SOCKET

Each request of ``python_client.py`` runs in a fork, as ``python`` would run it: a file, ``-m``, ``-c`` or
standard input.
Nothing of mmdefocus is imported before the fork, so that a program has to import what it uses. ``toy_sizes`` replaces
what would take too long.
"""

import atexit
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import sys
import traceback
import types
from pathlib import Path

import toy_sizes

MODULES = (
    'matplotlib.pyplot',
    'mmdet.apis',
    'mmdet.datasets',
    'mmdet.evaluation',
    'mmdet.models',
    'mmdet.visualization',
    'mmengine.runner',
    'mmpretrain',
    'mmpretrain.datasets',
    'mmpretrain.evaluation',
    'modelindex',
    'pycocotools.cocoeval',
    'sklearn.datasets',
    'timm',
    'torch.distributed.launcher.api',
    'torch.utils.flop_counter',
)


def serve(path: str) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(64)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # leaves no zombies
    while True:
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            supervise(connection)
        connection.close()


def supervise(connection: socket.socket) -> None:
    """Run one program in a process group of its own; end it if its client ends."""
    head, streams, _, _ = socket.recv_fds(connection, 4, 3)
    request = b''
    while len(request) < int.from_bytes(head, 'big'):
        request += connection.recv(65536)
    child = os.fork()
    if child == 0:
        connection.close()
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        os._exit(run(*json.loads(request)))
    for stream in streams:
        os.close(stream)
    connection.sendall(child.to_bytes(4, 'big'))
    ended = os.pidfd_open(child)
    if connection in select.select([connection, ended], [], [])[0]:
        os.kill(child, signal.SIGKILL)
    _, status, usage = os.wait4(child, 0)
    sys.stderr.write(f'{usage.ru_utime + usage.ru_stime:.1f} s of CPU: {json.loads(request)[0]}\n')
    code = os.waitstatus_to_exitcode(status)
    connection.sendall((code if code >= 0 else 128 - code).to_bytes(4, 'big'))
    os._exit(0)


def run(arguments: list[str], folder: str, environment: dict[str, str]) -> int:
    """Run a program and return its exit status."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:0] = [entry for entry in environment.get('PYTHONPATH', '').split(os.pathsep) if entry]
    sys.executable = environment['DOCUMENTS_PYTHON']
    try:
        execute(arguments)
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            sys.stderr.write(f'{end.code}\n')
    except BaseException:  # noqa: BLE001 - as the interpreter does
        traceback.print_exc()
        status = 1
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    return status & 255


def execute(arguments: list[str]) -> None:
    while arguments and arguments[0] in ('-u', '-I', '-S', '-E'):
        arguments.pop(0)
    program, *rest = arguments or ['-']
    if program == '-c':
        code, *rest = rest
        execute_text(code, ['-c', *rest])
    elif program == '-':
        execute_text(sys.stdin.read(), ['-', *rest])
    elif program == '-m':
        sys.path.insert(0, '')
        sys.argv = toy_sizes.before(rest)
        runpy.run_module(rest[0], run_name='__main__', alter_sys=True)
    else:
        sys.path.insert(0, str(Path(program).resolve().parent))
        sys.argv = toy_sizes.before([program, *rest])
        runpy.run_path(program, run_name='__main__')


def execute_text(code: str, argv: list[str]) -> None:
    sys.path.insert(0, '')
    sys.argv = argv
    module = sys.modules['__main__'] = types.ModuleType('__main__')
    exec(compile(code, '<string>', 'exec'), module.__dict__)  # noqa: S102 - the code of our own pages


if __name__ == '__main__':
    for name in MODULES:
        importlib.import_module(name)
    toy_sizes.install()
    gc.freeze()  # MMEngine's data sets collect garbage, which would visit everything that is imported here
    serve(sys.argv[1])
