"""What the Linux kernel offers for a host of one's own and Python 3.11 does not: namespaces, mounts, a parent's death."""
import contextlib
import ctypes
import os
import signal
import time

NEWNS, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET = 0x20000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_REC, MS_SLAVE = 0x2, 0x4, 0x8, 0x1000, 0x4000, 0x80000
PR_SET_PDEATHSIG = 1

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result, what):
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def unshare(kinds):
    _check(_libc.unshare(kinds), "unshare")


def mount(source, target, kind=None, flags=0, data=None):
    def word(text):
        return None if text is None else os.fsencode(text)
    _check(_libc.mount(word(source), word(target), word(kind), ctypes.c_ulong(flags), word(data)),
           f"mount {kind or source} on {target}")


def die_with_parent():
    """SIGKILL for this process once its parent is gone."""
    _check(_libc.prctl(PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL), 0, 0, 0), "prctl")


def become_root_of_own_namespace():
    """A user's way to all the rest: a user namespace in which this user is called root."""
    user, group = os.geteuid(), os.getegid()
    unshare(NEWUSER)
    for name, line in (("setgroups", "deny"), ("uid_map", f"0 {user} 1"), ("gid_map", f"0 {group} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(line)


def join(pid, names):
    """Goes over to the namespaces of process `pid`; that of processes ("pid") is for children alone."""
    # All are opened before any is joined: a mount namespace brings another /proc. One that this process is in already
    # need not be joined, and that of users cannot.
    names = [name for name in names if namespace(pid, name) != namespace("self", name)]
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(open(f"/proc/{pid}/ns/{name}")) for name in names]
        for file, name in zip(files, names):
            _check(_libc.setns(file.fileno(), 0), f"setns {name}")


def started(pid):
    """When that process began, in clock ticks: tells it from a later one of the same number. None: there is none."""
    try:
        with open(f"/proc/{pid}/stat", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def namespace(pid, name):
    try:
        return os.readlink(f"/proc/{pid}/ns/{name}")
    except OSError:
        return None


def ended(pid, began, seconds):
    """Waits until that process, which began then, has ended; False: it still runs."""
    end = time.monotonic() + seconds
    while started(pid) == began:
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True
