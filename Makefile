# Two commands to start with: `make demo` and `make test`. Both set up what they need in .venv, once.

PYTHON ?= python3
VENV ?= .venv
SEED ?= 0
# On a CUDA machine the same line brings the CUDA build; any release from 2.6 on will do.
TORCH ?= torch==2.13.0
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-slow quality peer-tests peer-models lmms-eval bench clean

help: ## show this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(READY) ## set up, then ask the embedded model about an unseen mp4 and show answers beside the truth [SEED=7]
	$(BIN)/saven demo --seed $(SEED)

test: $(READY) ## run the tests (everything but slow and GPU tests)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow and not gpu" -n auto --dist loadfile

test-slow: $(READY) ## run the slow tests, and the GPU tests where there is a GPU
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null \
		|| $(MAKE) --no-print-directory system-chromium
	$(BIN)/python -m pytest -m "slow or gpu"

quality: $(READY) ## lint, check formatting and that model folders and embedded datasets are up to date
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python hub_configs/build_configs.py --check
	$(BIN)/python hub_configs/build_cards.py --check
	$(BIN)/python dataset_scripts/build_embedded.py --check

peer-tests: $(READY) ## run transformers' own test suites against our classes
	$(BIN)/python tests/peer/run.py

# transformers' video processors need torchvision, which nothing else here does: it is installed aside.
TORCHVISION ?= torchvision==0.28.0
peer-models: $(READY) ## ask tiny random Qwen-Omnis, Gemma and VideoLLaMA3 through our commands; needs torchvision, put aside
	test -d .cache/torchvision || $(BIN)/pip install --quiet --no-deps --target .cache/torchvision "$(TORCHVISION)"
	PYTHONPATH=.cache/torchvision:tests/peer $(BIN)/python -m pytest -p torchvision_shim tests/peer_models

lmms-eval: ## check that lmms-eval and we agree item by item, in an environment of its own (several GB)
	$(PYTHON) tests/peer/lmms_eval_agreement.py

bench: $(READY) ## run the benchmarks; each prints ratios measured in the same run
	$(BIN)/python benchmarks/decode_speed.py
	$(BIN)/python benchmarks/encode_memory.py
	$(BIN)/python benchmarks/cache_speed.py
	$(BIN)/python benchmarks/gpu_full_size.py $$(command -v nvidia-smi >/dev/null || echo --tiny)

clean: ## remove the environment and caches
	rm -rf $(VENV) .cache .pytest_cache .ruff_cache

setup: $(READY) ## only set up

$(READY): pyproject.toml
	@command -v ffmpeg >/dev/null || $(MAKE) --no-print-directory system-ffmpeg
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || $(MAKE) --no-print-directory system-venv
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet "$(TORCH)"
	$(BIN)/pip install --quiet --editable ".[dev]"
	@touch $@

# The tests make their clips with the ffmpeg command.
.PHONY: system-ffmpeg system-chromium system-venv
system-ffmpeg:
	@echo "ffmpeg is missing. Elsewhere than on Debian and Ubuntu:"
	@echo "  brew install ffmpeg | conda install -c conda-forge ffmpeg | dnf install ffmpeg-free | winget install ffmpeg"
	$(call apt-install,ffmpeg)

# A browser visits the demo Space.
system-chromium:
	@echo "Chromium is missing. Elsewhere than on Debian:"
	@echo "  any Chrome or Chromium on the PATH as google-chrome, chromium or chromium-browser"
	$(call apt-install,chromium)

system-venv:
	@echo "This Python cannot make virtual environments."
	$(call apt-install,python3-venv)

define apt-install
@command -v apt-get >/dev/null || exit 1; \
	run=$$([ "$$(id -u)" = 0 ] || echo sudo); \
	$$run apt-get update -qq && $$run apt-get install -y -qq --no-install-recommends $(1) >/dev/null
endef
