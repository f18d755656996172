"""What testbed's commands do; testbed itself reads the command line."""
import contextlib
import ipaddress
import json
import os
import shutil
import signal

import beds
import keeper
import kernel
import launching
from beds import Failure, Refusal, say


def rate_words(bits):
    if bits is None:
        return "no limit"
    for unit, size in (("Gbit/s", 10**9), ("Mbit/s", 10**6), ("kbit/s", 10**3)):
        if bits >= size:
            return f"{bits / size:g} {unit}"
    return f"{bits} bit/s"


class Interrupted(BaseException):
    def __init__(self, number):
        self.number = number


def interrupted(number, frame):
    for other in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(other, signal.SIG_IGN)  # what follows is the clean-up
    raise Interrupted(number)


def shared_folders(wanted):
    """Folders beneath those of which each host has its own; the source tree is among them if it lies there."""
    here = os.path.dirname(os.path.dirname(launching.TESTBED))
    found = []
    for folder in [*wanted, os.path.dirname(here)]:
        full = os.path.realpath(folder)
        if not os.path.isdir(full):
            raise Refusal(f"--share {folder}: there is no such folder")
        if full in ("/tmp", "/dev/shm"):
            raise Refusal(f"--share {folder}: each host has its own {full}; name a folder beneath it")
        if full.startswith(("/tmp/", "/dev/shm/")) and full not in found:
            found.append(full)  # all others are shared as it is
    return sorted(found)


def up(bed, options):
    for tool in ("ip", "tc"):
        if shutil.which(tool) is None:
            raise Refusal(f"{tool} is not there: apt-get install iproute2")
    room = max(0, ipaddress.ip_network(options.net).num_addresses - 3)  # its own, that of all, the switch's
    if options.hosts > room:
        raise Refusal(f"{options.net} has addresses for {room} host{'s' if room != 1 else ''}, not {options.hosts}; see --net")
    shared = shared_folders(options.share)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupted)
    with bed.lock():
        if bed.keeper():
            raise Refusal(f"the bed '{bed.name}' stands already, with {len(bed.hosts())} hosts: testbed down, or --bed NAME")
        if os.path.lexists(bed.folder):
            if os.path.islink(bed.folder) or not os.path.isdir(bed.folder):
                raise Refusal(f"{bed.folder} is where this bed would be listed, and testbed did not make it")
            shutil.rmtree(bed.folder)  # of a bed whose keeper was killed
        child = None
        stands = False
        life_out, life_in = os.pipe()
        news_out, news_in = os.pipe()
        try:
            os.mkdir(bed.folder, 0o700)
            wish = keeper.Wish(bed, options.hosts, options.rate, options.net, shared, options.until)
            launching.write_files(bed.folder, bed.name, wish.names, options.ranks_per_host)
            child = os.fork()
            if child == 0:
                for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                    signal.signal(number, signal.SIG_DFL)
                os.close(life_in)
                os.close(news_out)
                keeper.keep(wish, life_out, news_in)
            os.close(news_in)
            with open(news_out) as news:
                line = news.readline().strip()
            if line != "ready":
                kind, _, why = line.partition(" ")
                raise (Refusal if kind == "lacking" else Failure)(why or "the bed's keeper ended without a word")
            stands = True
            os.write(life_in, b"!")
        finally:
            os.close(life_in)
            if not stands:
                if child:
                    os.waitpid(child, 0)
                bed.forget()
        bed.read()
    say(f"the bed '{bed.name}' stands: {len(bed.hosts())} hosts, {bed.hosts()[0]['name']} to {bed.hosts()[-1]['name']}, "
        f"{rate_words(options.rate)} each way between a host and the switch")
    return 0


def down(bed, options):
    with bed.lock():
        pid = bed.keeper()
        stood = bed.state is not None
        if bed.state:
            beds.clear_switch(bed.state)
            if pid:
                with contextlib.suppress(ProcessLookupError):  # it was going already
                    os.kill(pid, signal.SIGKILL)
            left = [host["name"] for host in bed.hosts() if not kernel.ended(host["pid"], host["started"], beds.PATIENCE)]
            if left:
                raise Failure(f"{', '.join(left)} did not end within {beds.PATIENCE} s: a process there waits for a disk?")
        bed.forget()
    say(f"the bed '{bed.name}' is gone" if stood else f"there is no bed '{bed.name}'")
    return 0


def links(bed):
    """Which hosts are linked, by name: read at the switch, in a child, so that this process stays where it is."""
    out, into = os.pipe()
    child = os.fork()
    if child == 0:
        launching.enter(bed.keeper(), launching.with_user(bed, ("net",)))
        os.dup2(into, 1)
        os.execvp("ip", ["ip", "-json", "link", "show"])
    os.close(into)
    with open(out) as text:
        found = json.loads(text.read() or "[]")
    os.waitpid(child, 0)
    return {link["ifname"]: "UP" in link["flags"] for link in found}


def describe(bed):
    result = {"bed": bed.name, "stands": bed.keeper() is not None}
    if bed.state:
        linked = links(bed) if bed.keeper() else {}
        result |= {"net": bed.state["net"], "head": bed.state["switch"], "rootless": bed.state["rootless"],
                   "shared": bed.state["shared"], "hosts": []}
        for host in bed.hosts():
            alive = kernel.started(host["pid"]) == host["started"]
            own = kernel.namespace(host["pid"], "pid") if alive else None
            result["hosts"].append({
                "name": host["name"], "address": host["address"], "rate_bits_per_s": host["rate"],
                "link": "gone" if not alive else "up" if linked.get(host["name"]) else "cut",
                "processes": len(beds.processes_in("pid", own, {host["pid"]})) if own else 0})
    return result


def status(bed, options):
    chosen = [bed] if options.chosen else beds.all_beds()
    told = [describe(one) for one in chosen]
    if options.json:
        print(json.dumps(told[0] if options.chosen else told))
    for one in told if not options.json else ():
        if not one["stands"]:
            print(f"bed '{one['bed']}' " + ("was killed; testbed down removes the rest" if "net" in one else "is not up"))
            continue
        print(f"bed '{one['bed']}': {one['net']}, switch {one['head']}" + (", without root" if one["rootless"] else "") +
              (f", shared: {' '.join(one['shared'])}" if one["shared"] else ""))
        for host in one["hosts"]:
            print(f"  {host['name']:<5} {host['address']:<15} {rate_words(host['rate_bits_per_s']):>10}  "
                  f"link {host['link']:<4}  {host['processes']} processes")
    if not told and not options.json:
        print("no bed is up: testbed up")
    return 0 if all(one["stands"] for one in told) and told else 1


def change_links(bed, options):
    names = [bed.host(name)["name"] for name in options.host]
    with bed.lock():
        bed.standing()
        launching.enter(bed.keeper(), launching.with_user(bed, ("net",)))
        for name in names:
            keeper.run("ip", "link", "set", name, "up" if options.command == "mend" else "down")
    return 0


def change_rate(bed, options):
    names = [bed.host(name)["name"] for name in options.host] or [host["name"] for host in bed.hosts()]
    with bed.lock():
        bed.standing()
        for host in bed.hosts():
            if host["name"] not in names:
                continue
            for pid, device in ((bed.keeper(), host["name"]), (host["pid"], "eth0")):
                child = os.fork()
                if child == 0:
                    try:
                        launching.enter(pid, launching.with_user(bed, ("net",)))
                        keeper.shape(device, options.rate)
                        os._exit(0)
                    except (Failure, OSError) as error:
                        say(error)
                        os._exit(1)
                if os.waitpid(child, 0)[1] != 0:
                    return 1
            host["rate"] = options.rate
        bed.write(bed.state)
    return 0


def run_mpirun(bed, options, words):
    launching.mpirun(bed.standing(), words, options.slots, options.ranks_per_host)


def run_exec(bed, options, words):
    bed.standing()
    if not words:
        raise Refusal("exec wants a host and a command: testbed exec n1 hostname")
    name, command = words[0], words[1:] or [os.environ.get("SHELL", "/bin/sh")]
    if name == keeper.SWITCH_NAME:
        return launching.on_switch(bed, command, len(bed.hosts()))
    return launching.on_host(bed, bed.host(name), command)


def run_agent(bed, options, words):
    return launching.agent(bed.standing(), words)
