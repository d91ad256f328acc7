"""Freed memory stays with the process: seen by the page faults of a process of its own."""

import subprocess
import sys

import pytest


ROUNDS, SIZE = 20, 64 << 20
SCRIPT = f"""
import ctypes, resource, sys
from saven_hf.training.memory import keep_freed_memory

if sys.argv[1] == "keep" and not keep_freed_memory():
    sys.exit("no glibc")
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.memset.argtypes, libc.free.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t], [ctypes.c_void_p]
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range({ROUNDS}):
    block = libc.malloc({SIZE})
    libc.memset(block, 1, {SIZE})
    libc.free(block)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(mode: str) -> int:
    done = subprocess.run([sys.executable, "-c", SCRIPT, mode], capture_output=True, text=True)
    if done.stderr.strip() == "no glibc":
        pytest.skip("this system's C library is not glibc: there is nothing to tell it")
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def test_a_block_is_faulted_in_once_and_not_in_every_round():
    assert faults("keep") < 2 * faults("default") / ROUNDS
