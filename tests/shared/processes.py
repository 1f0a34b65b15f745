"""Processes that tests start: commands, and real ranks of one gloo group. They fork in milliseconds from one
process that has imported everything; what they print is shown when they fail."""

import faulthandler
import gc
import importlib.util
import os
import pickle
import signal
import socket
import sys
import time
from contextlib import contextmanager
from datetime import timedelta
from multiprocessing.connection import wait

import torch
import torch.distributed as dist
import warm
from torch.nn.parallel import DistributedDataParallel

LIMIT = 1200  # seconds; a net against hangs on the busiest machine, never a measure of speed


def module_at(path):
    """The Python file at `path`, which no package holds."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def free_port():
    """A port of this machine that nobody listens to."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def as_torchrun(rank, world, port=29500):
    """The environment that torchrun would set; Lightning then starts no ranks of its own."""
    return {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world),
        "GROUP_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
        "TORCHELASTIC_RUN_ID": "tests",
    }  # fmt: skip


@contextmanager
def joined():
    """Inside, this process is a rank of the gloo group that its environment names.

    No DistributedDataParallel may outlive it: its reducer would own the group, and what ends a group there
    waits with the interpreter's lock for a thread that needs the lock (torch 2.13).
    """
    dist.init_process_group("gloo", timeout=timedelta(seconds=LIMIT))
    yield
    dist.barrier()
    gc.collect()
    left = [each for each in gc.get_objects() if isinstance(each, DistributedDataParallel)]
    assert not left, f"{len(left)} DistributedDataParallel outlive their group: let go of them before it ends"
    dist.destroy_process_group()  # its threads must not outlive the interpreter


class Processes:
    """Processes of one folder, each with a log beside it; those that a test leaves behind are killed."""

    def __init__(self, folder):
        self.folder, self.started = folder, []

    def command(self, name, words, log=None, **environment):
        """`embedtrain-NAME WORDS` in the folder, printing to `log`."""
        log = self.folder / (log or f"{name}.{len(self.started)}.log")
        return self._add(warm.start(words, self.folder, log, environment, name), log)

    def ranks(self, name, words, log=None, world=2):
        """The same on each of `world` ranks, as torchrun starts them."""
        port = free_port()
        return [self.command(name, words, log, **as_torchrun(rank, world, port)) for rank in range(world)]

    def call(self, script, function, *given, log=None, **environment):
        """`function(*given)` of the file `script`; what it returns is pickled to `process.result`."""
        name = f"{script.stem}.{len(self.started)}"
        log, result = self.folder / (log or f"{name}.log"), self.folder / f"{name}.pkl"
        process = warm.forked(_called, self.folder, log, environment, script, function, given, result)
        process.result = result
        return self._add(process, log)

    def result(self, script, function, *given):
        """What `function(*given)` of the file `script` returns in a process of its own."""
        process = self.call(script, function, *given)
        finish(process)
        return result_of(process)

    def _add(self, process, log):
        process.log = log
        self.started.append(process)
        return process

    def close(self):
        for process in self.started:
            process.kill()
            process.join()


def _called(script, function, given, result):
    torch.set_num_threads(1)
    faulthandler.dump_traceback_later(LIMIT - 60, file=sys.stderr)
    returned = getattr(module_at(script), function)(*given)
    result.write_bytes(pickle.dumps(returned))


def result_of(process):
    return pickle.loads(process.result.read_bytes())


def finish(*processes):
    """Wait for all to end well; the first that does not ends the others, and its output is the error."""
    running = {process.sentinel: process for process in processes}
    try:
        while running:
            ended = wait(running, timeout=LIMIT)
            if not ended:
                raise AssertionError("\n".join(["no end:", *map(last_output, running.values())]))
            for sentinel in ended:
                process = running.pop(sentinel)
                process.join()
                if process.exitcode != 0:
                    raise AssertionError(f"exit status {process.exitcode}:\n{last_output(process)}")
    finally:
        for process in running.values():
            process.kill()


def last_output(process):
    return process.log.read_text()[-3000:]


def send_signal(process, number=signal.SIGTERM):
    """The exit status after a signal."""
    os.kill(process.pid, number)
    process.join()
    return process.exitcode


def wait_until(condition, *processes):
    """Return when `condition()` holds; an error if one of the processes ends before."""
    while not condition():
        for process in processes:
            assert process.is_alive(), f"it ended before:\n{last_output(process)}"
        time.sleep(0.005)


def run_ranks(folder, script, function, *given, world=2):
    """What `function(rank, *given)` of the file `script` returns on each rank of a torchrun environment."""
    processes, port = Processes(folder), free_port()
    try:
        started = [
            processes.call(script, function, rank, *given, **as_torchrun(rank, world, port))
            for rank in range(world)
        ]
        finish(*started)
    finally:
        processes.close()
    return [result_of(process) for process in started]
