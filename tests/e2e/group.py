# SPDX-License-Identifier: MIT
"""A control group of one's own, where the memory controller (v1 or v2) lets us make one."""
import os
import re


class Group:
    """A control group; its files have other names in v1 and v2."""
    def __init__(self):
        self.path = None
        for root, limit, peak, events in (
                (self.own("memory"), "memory.limit_in_bytes", "memory.max_usage_in_bytes",
                 "memory.failcnt"),
                (self.own(""), "memory.max", "memory.peak", "memory.events")):
            if not root:
                continue
            path = os.path.join(root, f"moed-test-{os.getpid()}")
            try:
                os.mkdir(path)
            except OSError:
                continue
            if all(os.path.exists(os.path.join(path, name)) for name in (limit, peak, events)):
                self.path, self.limit, self.peak, self.events = path, limit, peak, events
                return
            os.rmdir(path)

    @staticmethod
    def own(controller):
        """The directory of this process in a hierarchy."""
        mounts = {}
        with open("/proc/self/mounts", encoding="utf-8") as file:
            for line in file:
                _, where, kind, options, *_ = line.split()
                if kind == "cgroup2":
                    mounts[""] = where
                elif kind == "cgroup" and controller in options.split(","):
                    mounts[controller] = where
        if controller not in mounts:
            return None
        with open("/proc/self/cgroup", encoding="utf-8") as file:
            for line in file:
                _, controllers, path = line.rstrip("\n").split(":", 2)
                if controller in controllers.split(","):
                    # Inside of a container the path may be one of the outside.
                    inside = mounts[controller] + path
                    return inside if os.path.isdir(inside) else mounts[controller]
        return None

    def write(self, name, value):
        with open(os.path.join(self.path, name), "w", encoding="ascii") as file:
            file.write(str(value))

    def read(self, name):
        with open(os.path.join(self.path, name), encoding="ascii") as file:
            return file.read()

    def wrap(self):
        return ["/bin/sh", "-c", f'echo $$ >{self.path}/cgroup.procs && exec "$@"', "sh"]

    def hits(self):
        """How often the limit was run into."""
        if self.events == "memory.failcnt":
            return int(self.read(self.events))
        return int(re.search(r"^max (\d+)", self.read(self.events), re.MULTILINE).group(1))

    def cache(self):
        text = self.read("memory.stat")
        return int(re.search(r"^(?:total_cache|file) (\d+)", text, re.MULTILINE).group(1))

    def close(self):
        os.rmdir(self.path)
