# `make demo` and `make test` create .venv if needed; with TORCH=cpu it gets the build of torch without CUDA, from the
# index that docs/machines.md names, or from TORCH_INDEX.
PYTHON ?= python3
TORCH  ?= cuda
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
ifneq ($(TORCH),$(filter cpu cuda,$(TORCH)))
$(error TORCH=$(TORCH): choose cpu or cuda)
endif
ifeq ($(TORCH),cpu)
TORCH_INDEX ?= $(firstword $(shell sed -n 's/.*TORCH_INDEX=\([^ ]*\).*/\1/p' docs/machines.md))
ifeq ($(TORCH_INDEX),)
$(error TORCH=cpu needs TORCH_INDEX, the index of torch's wheels without CUDA)
endif
WHEELS := PIP_EXTRA_INDEX_URL=$(TORCH_INDEX)
endif

.PHONY: setup demo test elsewhere docs fields crash power-cuts damage fuzz lint format bench gpu clean

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(WHEELS) $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

demo: $(READY)
	$(BIN)/personsearch demo

# Three processes, one thread each, keep two cores busy: end-to-end tests mostly wait for processes to start.
test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 3 --dist worksteal

# All packages, and the tests of storage but for four that need Linux, as on another system.
elsewhere: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.elsewhere --all tests/storage

# The documentation as a site, in build/site; a broken link or a page without a place in the menu is an error.
docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

# The listing that `personsearch fields` prints, after a change of a config's models.
fields: $(READY)
	$(BIN)/python -m flows.config.model_fields

# Every crash point of every operation that writes: four minutes on two cores.
crash: $(READY)
	$(BIN)/python -m tests.crash.campaign

# What a power cut may leave at each of these points: about ten minutes.
power-cuts: $(READY)
	$(BIN)/python -m tests.crash.campaign --power

# Every file of every kind of artifact, damaged in every way.
damage: $(READY)
	$(BIN)/python -m tests.campaigns.damage

# Hostile input to everything that is read: make fuzz [MINUTES=10] [TARGET="zarr model"]; it goes on from its record.
fuzz: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.fuzz --minutes $(or $(MINUTES),10) $(if $(TARGET),--target $(TARGET))

lint: $(READY)
	$(BIN)/ruff check --no-cache .
	$(BIN)/ruff format --no-cache --check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY)
	$(BIN)/personsearch benchmark start
	$(BIN)/personsearch benchmark store
	$(BIN)/personsearch benchmark extraction
	$(BIN)/personsearch benchmark reid
	$(BIN)/personsearch benchmark search
	$(BIN)/personsearch benchmark speed
	OPENBLAS_NUM_THREADS=1 $(BIN)/python -m benchmarks.evaluation

# Everything that waits for a GPU, as one table, in at most 15 minutes: make gpu [WORK=var/gpu]
gpu: $(READY)
	$(BIN)/python -m benchmarks.gpu $(or $(WORK),var/gpu)

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache
