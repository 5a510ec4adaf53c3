"""Whether this machine has the device that a command line names. PyTorch is imported for GPUs alone."""

from blurdm.core.errors import InputError


def require_device(device: str, ranks: int = 1) -> None:
    """InputError unless ``device`` (cpu, cuda, cuda:N) exists here, and a GPU for each of ``ranks`` if it is one."""
    if device == "cpu":
        return
    import torch

    there = torch.cuda.device_count()
    number = device.partition(":")[2]
    if int(number or 0) >= there:
        gpus = "no GPU" if there == 0 else f"{there} GPU{'s' * (there > 1)}"
        raise InputError(f"--device {device}: PyTorch sees {gpus} here; should be cpu{', cuda' if there else ''}")
    if ranks > 1 and number:
        raise InputError(f"--device {device}: {ranks} ranks need a GPU each; should be cuda")
    if ranks > there:
        raise InputError(f"--ranks {ranks}: each needs a GPU, and PyTorch sees {there} here; should be fewer")
