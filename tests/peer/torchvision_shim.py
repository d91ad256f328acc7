"""Makes torchvision's Python code importable next to a CPU-only torch. For tests only, never for the library.

The torchvision wheels on PyPI are built for CUDA. Next to a CPU build of torch their C++ operators do not load, and
`import torchvision` stops with "operator torchvision::nms does not exist", because it registers Python kernels for
operators that nobody declared. Declaring the two of them first is enough for everything that is plain Python
(transforms.v2, transformers' video and image processors). Needed for torchvision 0.28.0 with torch 2.13.
"""

import torch


_declared: list[torch.library.Library] = []  # a torch Library undoes its definitions when it is collected


def declare_operators() -> None:
    """Declares what `import torchvision` needs, unless this torch can load torchvision's own operators."""
    if torch.version.cuda is not None or _declared:
        return
    library = torch.library.Library("torchvision", "DEF")
    for operator in ("nms", "qnms"):
        library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _declared.append(library)


def pytest_load_initial_conftests() -> None:
    """As a plugin (`pytest -p torchvision_shim`), before a conftest imports transformers, and with it torchvision."""
    declare_operators()
