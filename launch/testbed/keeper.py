"""The process that is the bed. Everything hangs on it: the switch's network namespace is its own, each host is a child of
it that the kernel kills when it goes, and with a host's first process go all the others of that host, its network and its
/tmp. So nothing is left to clean up but a folder, whatever is killed, and whenever."""
import contextlib
import ipaddress
import os
import select
import signal
import socket
import subprocess

import kernel
from beds import PATIENCE, Failure, Refusal, clear_switch

SWITCH_NAME = "head"  # what the host is called on which mpirun runs, at the switch itself


def run(*command):
    """A tool of iproute2; what it says where it fails is the sentence."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Failure(f"{' '.join(command)}: {error}") from error
    if done.returncode != 0:
        raise Failure(f"'{' '.join(command)}' failed: {' '.join((done.stderr or done.stdout).split())}")


def shape(device, rate):
    """What `device` sends is held to `rate` (bits per second; None: not at all)."""
    if rate is None:
        with contextlib.suppress(Failure):  # there may be none
            run("tc", "qdisc", "del", "dev", device, "root")
        return
    # A millisecond's worth may go at once: less cannot keep the rate up with a timer's grain, more is no wire.
    burst = max(32 * 1024, rate // 8 // 1000)
    try:
        run("tc", "qdisc", "replace", "dev", device, "root", "tbf", "rate", f"{rate}bit", "burst", str(burst),
            "latency", "20ms")
    except Failure as error:
        raise Refusal(f"links cannot be shaped: this kernel seems to have no tbf (modprobe sch_tbf; --rate none does "
                      f"without): {error}") from error


def addresses(net, hosts):
    """Those of the hosts, from the front, and the switch's, the last."""
    usable = ipaddress.ip_network(net)
    return [str(usable[i + 1]) for i in range(hosts)], str(usable[-2]), usable.prefixlen


class Wish:
    """What `up` was asked for."""

    def __init__(self, bed, hosts, rate, net, shared, until):
        self.bed, self.rate, self.net, self.shared, self.until = bed, rate, net, shared, until
        self.names = [f"n{i + 1}" for i in range(hosts)]
        self.addresses, self.switch, self.prefix = addresses(net, hosts)


def say_hosts(wish):
    """The names, over whatever /etc/hosts says, in this mount namespace alone."""
    file = os.path.join(wish.bed.folder, "hosts")
    with open(file, "w") as hosts:
        hosts.write("127.0.0.1 localhost\n::1 localhost\n")
        for name, address in zip(wish.names + [SWITCH_NAME], wish.addresses + [wish.switch]):
            hosts.write(f"{address} {name}\n")
    kernel.mount(file, "/etc/hosts", flags=kernel.MS_BIND)


def own_folders(shared):
    """/tmp and /dev/shm that no other host sees; the folders beneath them that all share stay where they are."""
    kept = [(folder, os.open(folder, os.O_PATH)) for folder in shared]
    for folder, options in (("/tmp", "mode=1777"), ("/dev/shm", "mode=1777")):
        kernel.mount("testbed", folder, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, options)
    for folder, file in kept:
        os.makedirs(folder, exist_ok=True)
        kernel.mount(f"/proc/self/fd/{file}", folder, flags=kernel.MS_BIND | kernel.MS_REC)
        os.close(file)
    kernel.mount("proc", "/proc", "proc", kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC)


def be_host(wish, index, order, answer):
    """The first process of a host, in its network already: makes the rest, and then is there. `order` and `answer` are
    pipes to the keeper."""
    name = wish.names[index]
    try:
        kernel.die_with_parent()
        if os.read(order, 1) != b"!":  # there is a cable now; or no keeper any more
            os._exit(1)
        kernel.unshare(kernel.NEWNS | kernel.NEWUTS | kernel.NEWIPC)
        socket.sethostname(name)
        own_folders(wish.shared)
        run("ip", "link", "set", "lo", "up")
        run("ip", "address", "add", f"{wish.addresses[index]}/{wish.prefix}", "dev", "eth0")
        run("ip", "link", "set", "eth0", "up")
        shape("eth0", wish.rate)
        os.write(answer, b"up\n")
    except Exception as error:  # whatever it is, the keeper must hear it
        os.write(answer, f"{name}: {error}\n".encode())
        os._exit(1)
    stay_alone()
    while True:
        signal.pause()


def stay_alone():
    """A process that is only there: it holds nothing open, reaps whoever becomes its child, and heeds no terminal."""
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    for number in (signal.SIGCHLD, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def wait_for_end_of(pid):
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    select.select([process], [], [])
    os.close(process)


def father_host(wish, index, order, answer):
    """A host's first process needs a father who makes its namespace of processes; that one waits for it."""
    try:
        kernel.die_with_parent()
        for entry in os.listdir("/proc/self/fd"):  # those of `up`: a pipe must end with it, and the lock go
            if int(entry) > 2 and int(entry) not in (order, answer):
                with contextlib.suppress(OSError):
                    os.close(int(entry))
        kernel.unshare(kernel.NEWNET | kernel.NEWPID)
        pid = os.fork()
        if pid == 0:
            be_host(wish, index, order, answer)
        os.write(answer, f"{pid}\n".encode())
        os.close(order)
        os.close(answer)
        os.waitpid(pid, 0)
    except Exception as error:
        os.write(answer, f"{wish.names[index]}: {error}\n".encode())
    os._exit(1)


def make_host(wish, index, fathers):
    """Forks it and lays its cable; `fathers` grows by one. Returns the number of its first process."""
    order_out, order_in = os.pipe()
    answer_out, answer_in = os.pipe()
    father = os.fork()
    if father == 0:
        os.close(order_in)
        os.close(answer_out)
        father_host(wish, index, order_out, answer_in)
    fathers.append(father)
    os.close(order_out)
    os.close(answer_in)
    name = wish.names[index]
    with open(answer_out) as answer, open(order_in, "wb", buffering=0) as order:
        line = answer.readline().strip()
        if line.isdigit():
            run("ip", "link", "add", "name", name, "type", "veth", "peer", "name", "eth0", "netns", line)
            shape(name, wish.rate)
            run("ip", "link", "set", name, "master", "br0", "up")
            order.write(b"!")
            pid, line = int(line), answer.readline().strip()
        if line != "up":
            raise Failure(line or f"the first process of {name} ended without a word")
    return pid


def own_namespaces():
    """A network, a view of files and a name of this process's own. Does it take a user namespace?"""
    kinds = kernel.NEWNET | kernel.NEWNS | kernel.NEWUTS
    try:
        try:
            kernel.unshare(kinds)
            return False
        except PermissionError:  # not root, or root of a container
            kernel.become_root_of_own_namespace()
            kernel.unshare(kinds)
            return True
    except OSError as error:
        raise Refusal(f"this needs root, or a kernel that lets users make namespaces ({error}; see the sysctls "
                      "user.max_user_namespaces, kernel.unprivileged_userns_clone and "
                      "kernel.apparmor_restrict_unprivileged_userns)") from error


def make(wish, fathers):
    """The switch, then the hosts. Returns whether that took a user namespace, and the numbers of the hosts' first
    processes; `fathers` takes their fathers'."""
    rootless = own_namespaces()
    kernel.mount(None, "/", flags=kernel.MS_REC | kernel.MS_SLAVE)  # nothing mounted here is seen outside
    socket.sethostname(SWITCH_NAME)
    say_hosts(wish)
    run("ip", "link", "set", "lo", "up")
    run("ip", "link", "add", "name", "br0", "type", "bridge")
    run("ip", "address", "add", f"{wish.switch}/{wish.prefix}", "dev", "br0")
    run("ip", "link", "set", "br0", "up")
    return rootless, [make_host(wish, index, fathers) for index in range(len(wish.names))]


def described(wish, rootless, hosts):
    """What bed.json says."""
    me = os.getpid()
    return {"name": wish.bed.name, "keeper": {"pid": me, "started": kernel.started(me)}, "rootless": rootless,
            "net": wish.net, "switch": wish.switch, "switch_net": kernel.namespace(me, "net"), "shared": wish.shared,
            "hosts": [{"name": name, "address": address, "pid": pid, "started": kernel.started(pid), "rate": wish.rate}
                      for name, address, pid in zip(wish.names, wish.addresses, hosts)]}


def keep(wish, life, news):
    """The keeper's whole life, in a forked process. `life` ends when `up` has; `news` takes "ready", or
    "lacking" or "failed" and a sentence."""
    os.setsid()
    os.chdir("/")
    log = os.open(os.path.join(wish.bed.folder, "log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    nothing = os.open("/dev/null", os.O_RDONLY)
    for target, source in ((0, nothing), (1, log), (2, log)):
        os.dup2(source, target)
    fathers = []
    try:
        wish.bed.write(described(wish, *make(wish, fathers)))
        os.write(news, b"ready\n")
        # `up` says that it has heard; one that was killed half-way says nothing, and its bed goes.
        heard = os.read(life, 1) == b"!"
    except Exception as error:  # whatever it is, `up` must hear it
        heard = False
        with contextlib.suppress(OSError):
            os.write(news, f"{'lacking' if isinstance(error, Refusal) else 'failed'} {error}\n".encode())
    if not heard:
        for pid in fathers:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        os._exit(1)
    stay_alone()
    if wish.until:
        wait_for_end_of(wish.until)
        with wish.bed.lock():
            clear_switch(wish.bed.state)
            wish.bed.forget()
        os._exit(0)
    while True:
        signal.pause()
