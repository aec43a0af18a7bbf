"""The counters of an NVIDIA card, through the driver's library (NVML).

By ctypes, so that nothing has to be installed: of NVML's many functions a few are enough. The same
counter is read for cryo and for the peer, so that their joules can be compared.
"""

import ctypes
import os
import threading
import time

LIBRARIES = [
    "libnvidia-ml.so.1",
    # Containers mount the driver where the loader does not look.
    "/usr/local/nvidia/lib64/libnvidia-ml.so.1",
    "/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1",
    "/usr/lib/wsl/lib/libnvidia-ml.so.1",
]
LONGEST_BEAT = 0.3  # seconds; counters move every 20 to 100 ms
SAMPLE = 0.1  # seconds between two looks at the memory


class NoCard(Exception):
    """Why there is nothing to read."""


class Memory(ctypes.Structure):
    """As nvmlMemory_t."""

    _fields_ = [
        ("total", ctypes.c_ulonglong),
        ("free", ctypes.c_ulonglong),
        ("used", ctypes.c_ulonglong),
    ]


def load():
    causes = []
    for name in LIBRARIES:
        try:
            return ctypes.CDLL(name)
        except OSError as error:
            causes.append(str(error))
    raise NoCard(f"no NVIDIA driver library: {causes[0]}")


class Card:
    """What CUDA calls device 0.

    CUDA numbers the cards by their bus, as NVML does, when CUDA_DEVICE_ORDER says so; this
    program sets it for all that it starts.
    """

    def __init__(self):
        self.nvml = load()
        self.call("nvmlInit_v2")
        self.handle = ctypes.c_void_p()
        first = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0].strip()
        if first.startswith("MIG-"):
            raise NoCard("a MIG slice has no energy counter of its own")
        if first.startswith("GPU-"):
            self.call("nvmlDeviceGetHandleByUUID", first.encode(), ctypes.byref(self.handle))
        else:
            number = int(first) if first.isdigit() else 0
            self.call("nvmlDeviceGetHandleByIndex_v2", number, ctypes.byref(self.handle))
        self.joules()  # a card without a counter is of no use here

    def call(self, function, *arguments):
        try:
            code = getattr(self.nvml, function)(*arguments)
        except AttributeError:
            raise NoCard(f"the driver has no {function}") from None
        if code != 0:
            self.nvml.nvmlErrorString.restype = ctypes.c_char_p
            text = self.nvml.nvmlErrorString(code)
            raise NoCard(f"{function}: {text.decode(errors='replace')} ({code})")

    def text(self, function):
        buffer = ctypes.create_string_buffer(96)
        self.call(function, self.handle, buffer, ctypes.c_uint(len(buffer)))
        return buffer.value.decode(errors="replace")

    def joules(self):
        """What the card has used since the driver was loaded."""
        millijoules = ctypes.c_ulonglong()
        self.call("nvmlDeviceGetTotalEnergyConsumption", self.handle, ctypes.byref(millijoules))
        return millijoules.value / 1000

    def edge(self):
        """Joules and the time, read when the counter has just moved.

        Between two moves the counter is up to 100 ms old, which is a large part of a short run.
        """
        before, begun = self.joules(), time.perf_counter()
        while True:
            now, at = self.joules(), time.perf_counter()
            if now != before or at - begun > LONGEST_BEAT:
                return now, at
            time.sleep(0.001)

    def used_mib(self):
        """Memory in use by all programs; None where the driver does not tell."""
        memory = Memory()
        try:
            self.call("nvmlDeviceGetMemoryInfo", self.handle, ctypes.byref(memory))
        except NoCard:
            return None
        return memory.used / 2**20

    def watts(self, seconds):
        """Mean power over some time."""
        joules, begun = self.edge()
        time.sleep(seconds)
        later, ended = self.edge()
        return (later - joules) / (ended - begun)


class Watch:
    """Joules and the highest use of memory while a program runs."""

    def __init__(self, card):
        self.card = card
        self.joules, self.seconds, self.peak_mib = None, None, None
        self.over = threading.Event()

    def __enter__(self):
        if self.card:
            self.before = self.card.used_mib()
            self.highest = self.before
            self.sampler = threading.Thread(target=self.sample, daemon=True)
            self.sampler.start()
            self.begun = self.card.edge()
        return self

    def sample(self):
        while self.before is not None and not self.over.wait(SAMPLE):
            self.highest = max(self.highest, self.card.used_mib() or 0)

    def __exit__(self, *_):
        if self.card:
            ended = self.card.edge()
            self.joules = ended[0] - self.begun[0]
            self.seconds = ended[1] - self.begun[1]
            self.over.set()
            self.sampler.join()
            if self.before is not None:
                self.peak_mib = self.highest - self.before
