"""The demo Space: the page of `saven app`, set up by environment variables."""

try:
    import spaces  # noqa: F401  ZeroGPU's library, which has to come before torch
except ImportError:
    pass  # every other kind of hardware

from saven_hf.app import serve


if __name__ == "__main__":
    serve()
