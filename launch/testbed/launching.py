"""Commands on a bed's hosts, and mpirun over them."""
import os
import shutil
import signal
import sys

import kernel
from beds import Refusal

TESTBED = os.path.join(os.path.dirname(os.path.realpath(__file__)), "testbed")
HOST_NAMESPACES = ("net", "uts", "ipc", "pid", "mnt")
SWITCH_NAMESPACES = ("net", "uts", "mnt")

# mpirun's options by how many words follow them: one follows all others. Only -np and the program must be found.
NO_WORD = set("""oversubscribe nooversubscribe tag-output timestamp-output display-map display-devel-map display-allocation
    display-topo report-bindings v verbose q quiet version V help h bynode byslot bycore bysocket bind-to-core bind-to-socket
    bind-to-none bind-to-board nolocal do-not-launch d debug debug-daemons leave-session-attached enable-recovery
    disable-recovery continuous report-events allow-run-as-root use-hwthread-cpus pernode noprefix novm do-not-resolve
    show-progress xml index-argv-by-rank cf-parallel merge-stderr-to-stdout""".split())
TWO_WORDS = {"mca", "gmca", "omca", "am-mca"}


# mpirun and its daemons notice within 15 s that a host is cut off; without these, when the kernel gives a connection up.
LOST_HOSTS = {"oob_tcp_keepalive_time": "5", "oob_tcp_keepalive_intvl": "2", "oob_tcp_keepalive_probes": "5"}


def ranks_wanted(arguments):
    """The number after -np among mpirun's own arguments, before the program's; None: it is not there."""
    index = 0
    while index < len(arguments) and arguments[index].startswith("-"):
        option = arguments[index].lstrip("-")
        if option in ("np", "n", "c") and index + 1 < len(arguments):
            try:
                return int(arguments[index + 1])
            except ValueError:
                raise Refusal(f"{arguments[index]} wants a number of ranks, not '{arguments[index + 1]}'") from None
        index += 1 if option in NO_WORD or "=" in option else 3 if option in TWO_WORDS else 2
    return None


def names_hosts(arguments):
    """Does the caller say which hosts?"""
    return any(word.lstrip("-") in ("host", "H", "hostfile", "machinefile", "default-hostfile")
               for word in arguments if word.startswith("-"))


def spread(hosts, slots, per_host, ranks):
    """How many ranks each host has room for: as told, or evenly. Returns (how many, of all hosts; the ranks to start)."""
    if slots:
        if len(slots) > len(hosts):
            raise Refusal(f"--slots speaks of {len(slots)} hosts, but the bed has {len(hosts)}")
        slots = slots + [0] * (len(hosts) - len(slots))
    elif per_host:
        slots = [per_host] * len(hosts)
    else:
        ranks = ranks or len(hosts)
        slots = [ranks // len(hosts) + (index < ranks % len(hosts)) for index in range(len(hosts))]
    ranks = ranks or sum(slots)
    if ranks > sum(slots):
        raise Refusal(f"{ranks} ranks do not fit on {sum(slots)} slots ({', '.join(map(str, slots))})")
    return slots, ranks


def environment(bed, ranks):
    """What mpirun must know of the bed, in its own variables: what is on its command line goes before."""
    cores = len(os.sched_getaffinity(0))
    result = dict(os.environ)
    mca = {"plm": "rsh", "plm_rsh_agent": os.path.join(bed.folder, "agent"), "plm_rsh_no_tree_spawn": "1",
           "oob_tcp_if_include": bed.state["net"], "btl_tcp_if_include": bed.state["net"],
           "orte_default_hostfile": os.path.join(bed.folder, "hostfile")}
    result |= {f"OMPI_MCA_{name}": value for name, value in mca.items()}
    # Hosts do not know that they share this machine's cores: no binding, and no rank spins while it waits.
    usual = {"btl": "self,vader,tcp", "pml": "ob1", "btl_base_warn_component_unused": "0",
             "rmaps_base_oversubscribe": "1", "hwloc_base_binding_policy": "none",
             "mpi_yield_when_idle": "1" if ranks > cores else "0"} | LOST_HOSTS
    for name, value in usual.items():
        result.setdefault(f"OMPI_MCA_{name}", value)
    result.setdefault("OMP_NUM_THREADS", str(max(1, cores // ranks)))
    if ranks > cores:
        result.setdefault("OMP_WAIT_POLICY", "passive")
    result |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
               "TMPDIR": bed.folder,  # the switch has this machine's /tmp: mpirun's own files are to go with the bed
               "SWITCHYARD_TESTBED": bed.name,
               "SWITCHYARD_TESTBED_HOME": os.path.dirname(bed.folder)}
    return result


def check_folder(bed):
    """Ranks start in the folder that mpirun is started in: it must be on the hosts."""
    here = os.getcwd()
    mine = os.stat(here)
    for host in bed.hosts():
        try:
            there = os.stat(f"/proc/{host['pid']}/root{here}")
        except FileNotFoundError:
            there = None
        except OSError:
            return  # it cannot be looked at; mpirun will tell
        if there is None or (there.st_dev, there.st_ino) != (mine.st_dev, mine.st_ino):
            raise Refusal(f"{here} is not on {host['name']}, which has a /tmp of its own: go to another folder, or "
                          f"`testbed down` and `testbed up --share {here}`")


def with_user(bed, namespaces):
    return (("user",) if bed.state["rootless"] else ()) + namespaces


def enter(pid, namespaces):
    here = os.getcwd()
    kernel.join(pid, namespaces)
    try:
        os.chdir(here)
    except OSError:
        os.chdir("/")


def become(command, env):
    try:
        os.execvpe(command[0], command, env)
    except OSError as error:
        print(f"testbed: {command[0]}: {error.strerror}", file=sys.stderr)
        os._exit(127 if isinstance(error, FileNotFoundError) else 126)


def on_switch(bed, command, ranks):
    """This process becomes `command`, at the switch."""
    env = environment(bed, ranks)
    with bed.lock(shared=True):
        enter(bed.standing().keeper(), with_user(bed, SWITCH_NAMESPACES))
    become(command, env)


def on_host(bed, host, command):
    """Runs `command` there; returns its code, or 128 and the signal that ended it."""
    if kernel.started(host["pid"]) != host["started"]:
        raise Refusal(f"the host {host['name']} is gone: somebody killed its first process; `testbed down`, and up again")
    enter(host["pid"], with_user(bed, HOST_NAMESPACES))
    child = os.fork()  # into the host's processes; this one stays outside
    if child == 0:
        kernel.die_with_parent()
        # Wherever this machine keeps what is temporary: a host keeps it for itself.
        become(command, {name: value for name, value in os.environ.items() if name != "TMPDIR"})
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, lambda got, frame: os.kill(child, got))
    for number in (signal.SIGINT, signal.SIGQUIT):  # a terminal sends them to the child as well
        signal.signal(number, signal.SIG_IGN)
    status = os.waitpid(child, 0)[1]
    return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def mpirun(bed, arguments, slots, per_host):
    if shutil.which("mpirun") is None:
        raise Refusal("mpirun is not there: apt-get install openmpi-bin")
    check_folder(bed)
    ranks = ranks_wanted(arguments)
    command = ["mpirun"]
    if names_hosts(arguments):
        ranks = ranks or len(bed.hosts())
    else:
        room, wanted = spread(bed.hosts(), slots, per_host, ranks)
        command += ["--host", ",".join(f"{host['name']}:{n}" for host, n in zip(bed.hosts(), room) if n)]
        command += [] if ranks else ["-np", str(wanted)]
        ranks = wanted
    on_switch(bed, command + arguments, ranks)


def agent(bed, arguments):
    """What mpirun calls instead of ssh: [-option...] HOST COMMAND..., which a shell there puts together again."""
    while arguments and arguments[0].startswith("-"):
        arguments = arguments[1:]
    host = bed.host(arguments[0])
    return on_host(bed, host, ["/bin/sh", "-c", " ".join(arguments[1:])])


def write_files(folder, name, hosts, slots):
    """What mpirun reads and calls, for a new bed."""
    with open(os.path.join(folder, "agent"), "w") as file:
        file.write(f'#!/bin/sh\nexec "{sys.executable}" "{TESTBED}" agent --bed {name} "$@"\n')
    os.chmod(file.name, 0o700)
    with open(os.path.join(folder, "hostfile"), "w") as file:
        file.writelines(f"{host} slots={slots}\n" for host in hosts)
