# SPDX-License-Identifier: MIT
"""Engines in a control group that has half of what the model needs: moed streams experts, others map
the file.  The page cache is forgotten before each, since what others have left there would count for
nobody."""
import os
import sys

import engines

sys.path.append(os.path.join(engines.HERE, "..", "e2e"))
import group  # noqa: E402  what the tests of the memory contract use


class Half:
    """The group, and the read-ahead of the model's file system, as it was again at the end."""
    def __init__(self, model, limit, read_ahead):
        self.model, self.limit, self.before = model, limit, None
        self.cage = group.Group()
        if not self.cage.path:
            raise engines.Fault("no control group with a memory limit can be made here (root?)")
        self.cage.write(self.cage.limit, limit)
        device = os.stat(model).st_dev
        self.knob = f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb"
        if read_ahead:
            with open(self.knob, encoding="ascii") as file:
                self.before = file.read()
            self.set(read_ahead)

    def set(self, value):
        with open(self.knob, "w", encoding="ascii") as file:
            file.write(str(value))

    def forget(self):
        fd = os.open(self.model, os.O_RDONLY)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)

    def engine(self, engine, programs, place, threads, context):
        """One like it that lives in the group; None where it cannot run so."""
        measurer = engine.measurer
        if isinstance(engine, engines.Moed):
            return engines.Moed(programs, place(), self.model, measurer, self.limit, threads, context,
                                1, self.cage.wrap())
        flags = engine.section.get("streamed-flags")
        if not flags:
            return None
        caged = engines.Measurer([*measurer.under, *self.cage.wrap()], measurer.noise,
                                 measurer.retries)
        return Mapped(engine.name, {**engine.section, "flags": flags}, engine.values["directory"],
                      self.model, caged, threads)

    def close(self):
        if self.before is not None:
            self.set(self.before)
        self.cage.close()


class Mapped(engines.Peer):
    """A peer has nothing that runs between its measurements."""
    def start(self):
        pass

    def stop(self):
        pass
