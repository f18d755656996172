"""Checkpoints as h5py sees them, through index.h5 and its links to the other files. h5py is None where it is missing."""
try:
    import h5py
except ImportError as error:
    h5py = None
    print(f"SKIPPED: what h5py sees ({error}; Debian: apt install python3-h5py)")


def datasets(file):
    """Every dataset by name, as (shape, bytes); a moment in pieces is put together, and has no shape then."""
    found = {}

    def walk(group, path):
        pieces = [name for name in group if name.startswith("from-")]
        if pieces:
            pieces.sort(key=lambda name: int(name[len("from-"):]))
            found[path] = None, b"".join(group[name][:].tobytes() for name in pieces)
            return
        for name in group:
            if isinstance(group[name], h5py.Group):
                walk(group[name], f"{path}/{name}")
            else:
                found[f"{path}/{name}"] = group[name].shape, group[name][...].tobytes()

    with h5py.File(file, "r") as opened:
        walk(opened, "")
    return found


def difference(file, wanted):
    """The names of datasets() that are not in both files, or have not the same bits or, where both are whole, shape."""
    a, b = datasets(file), datasets(wanted)
    return sorted(name for name in a.keys() | b.keys() if name not in a or name not in b or a[name][1] != b[name][1] or
                  (a[name][0] != b[name][0] and None not in (a[name][0], b[name][0])))
