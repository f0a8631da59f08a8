#!/usr/bin/env bash
# MPICH 4.0.2 of Debian 12: loading libmpich.so.12 is enough to put a handler on SIGSEGV, MPI need not be started. The library brings
# UCX, which takes the signal for its own reports as it is loaded. Runtimes that live by that signal, such as a Java virtual machine,
# which finds null pointers by it, lose it. UCX_ERROR_SIGNALS= (empty) in the environment before the library is loaded leaves it
# alone. Open MPI 4.1.4 does not take it.
#
# Below: the signal's handler is asked for before and after a library is loaded.
#
# Seen with MPICH 4.0.2, Open MPI 4.1.4, Python 3.11 on Linux, x86-64: mpich takes it, mpich with UCX_ERROR_SIGNALS= leaves it, openmpi leaves it
# Ends with 1 if that changes. Needs python3 and both libraries (Debian: libmpich12, libopenmpi3).
set -euo pipefail

load() {
  python3 - "$1" <<'PYTHON'
import ctypes
import signal
import sys

libc = ctypes.CDLL(None)


def handler():
    action = (ctypes.c_void_p * 32)()  # struct sigaction begins with the handler
    assert libc.sigaction(int(signal.SIGSEGV), None, ctypes.byref(action)) == 0
    return action[0]


before = handler()
ctypes.CDLL(sys.argv[1], ctypes.RTLD_GLOBAL)
print("leaves it" if handler() == before else "takes it")
PYTHON
}

seen="mpich $(load libmpich.so.12)"
seen+=", mpich with UCX_ERROR_SIGNALS= $(UCX_ERROR_SIGNALS="" load libmpich.so.12)"
seen+=", openmpi $(load libmpi.so.40)"
echo "$seen"
[ "$seen" = "mpich takes it, mpich with UCX_ERROR_SIGNALS= leaves it, openmpi leaves it" ]
