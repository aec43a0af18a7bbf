"""What this machine is and has: processor, card, driver, and what the peer needs."""

import importlib.util
import os
import pathlib
import platform
import re
import subprocess

LIBDEVICE = "nvvm/libdevice/libdevice.10.bc"
TOOLKITS = ["/usr/local/cuda", "/opt/cuda", "/usr/lib/cuda", "/usr"]
FIELDS = [
    "name", "driver_version", "memory.total", "power.limit", "compute_cap", "clocks.max.sm",
    "persistence_mode", "mig.mode.current", "uuid",
]

# A program, since importing torch takes memory and seconds, and may fail.
VERSIONS = """
import json, sys
found = {"python": sys.version.split()[0]}
for name in ["torch", "transformers", "peft"]:
    try:
        found[name] = __import__(name).__version__
    except Exception as error:
        found[name] = None
        found.setdefault("missing", f"{name} cannot be imported: {error}")
if found["torch"]:
    import torch
    found["torch_cuda"] = torch.version.cuda
    found["cuda"] = torch.cuda.is_available()
    if found["cuda"]:
        found["torch_card"] = torch.cuda.get_device_name(0)
print(json.dumps(found))
"""


def settings():
    """What a person has set for the libraries below cryo."""
    return {
        name: value
        for name, value in sorted(os.environ.items())
        if name.startswith(("CUBECL_", "BURN_", "CUDA_"))
    }


def processor():
    found = {
        "kernel": platform.release(),
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "cores_allowed": len(os.sched_getaffinity(0)),
    }
    try:
        text = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8")
        if name := re.search(r"^model name\s*:\s*(.+)$", text, flags=re.MULTILINE):
            found["processor"] = name.group(1)
        text = pathlib.Path("/proc/meminfo").read_text(encoding="utf-8")
        if size := re.search(r"^MemTotal:\s*(\d+)", text, flags=re.MULTILINE):
            found["memory_mib"] = int(size.group(1)) // 1024
    except OSError:
        pass
    return found


def driver():
    """What nvidia-smi says about the first card."""
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0] or "0"
    query = [f"--query-gpu={','.join(FIELDS)}", "--format=csv,noheader,nounits", "-i", first]
    try:
        line = said("nvidia-smi", *query).splitlines()[0]
        found = dict(zip(FIELDS, (value.strip() for value in line.split(","))))
        version = re.search(r"CUDA Version:\s*([\d.]+)", said("nvidia-smi"))
        return {**found, "cuda": version.group(1) if version else None}
    except (OSError, subprocess.SubprocessError, IndexError) as error:
        return {"name": None, "error": str(error)}


def said(*command):
    ran = subprocess.run(command, stdout=subprocess.PIPE, timeout=20, check=True)
    return ran.stdout.decode(errors="replace")


def libdevice(made):
    """Where libdevice is, and what CUDA_PATH has to name for it, if anything.

    burn's CUDA backend links this file of the CUDA toolkit into every kernel with exp, log or
    tanh. Python packages bring it along, so a machine without a toolkit can do as well: the
    folder `made` then becomes a toolkit of this one file.
    """
    named = os.environ.get("CUDA_PATH")
    for root in [named] if named else TOOLKITS:
        path = pathlib.Path(root) / LIBDEVICE
        if path.is_file():
            return str(path), None
    for package in ["triton", "nvidia", "torch", "numba_cuda", "jaxlib"]:
        spec = importlib.util.find_spec(package)
        for folder in (spec.submodule_search_locations or []) if spec else []:
            for path in sorted(pathlib.Path(folder).rglob("libdevice.10.bc")):
                (made / LIBDEVICE).parent.mkdir(parents=True)
                (made / LIBDEVICE).symlink_to(path)
                return str(path), made
    return None, None
