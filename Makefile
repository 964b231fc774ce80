# `make run`, `make test` and `make lint` each set up .venv first, where it is missing or stale.

PYTHON ?= python3
EXTRAS ?= test,engine,cli,rails,onnx,trt-rtx,report,figures
ARGS ?=
WORKERS ?= 2

# Relative paths throughout: the checkout's own path may contain spaces.
BIN := .venv/bin
STAMP := .venv/.stamp

.DEFAULT_GOAL := run
.DELETE_ON_ERROR:
.PHONY: run test test-torch fuzz fuzz-guided coverage figures docs test-gpu test-gpu-complete test-tensorrt lint faults long-run sabotage sabotage-shard mutants clean help

run: $(STAMP)  ## check the engine against its blessed captures
	$(BIN)/python -m harness check $(ARGS)

# The folders with such tests, as collecting all tests takes longer than running these. Not the files: a run that is
# given files need not measure every time rail.
ALONE = $(sort $(dir $(shell grep -rl --include='test_*.py' 'mark\.alone' tests)))

# What measures time runs alone, after the others, and what plants defects is sabotage-shard's. A file's tests stay in
# one process, which makes what they share once.
test: $(STAMP)  ## run the tests; ARGS="-k name" selects some, in one process
ifeq ($(strip $(ARGS)),)
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile -m 'not alone and not sabotage'
	$(BIN)/python -m pytest -m alone $(ALONE)
else
	$(BIN)/python -m pytest $(ARGS)
endif

# The plugin's own tests and those of what its fixtures run, in an environment that has its dependencies, this torch and
# hypothesis: nothing of the extras. tests/test_torch_target.py fails where a file that needs no extra is not listed.
# Each torch but the one in constraints.txt brings gigabytes, so no other target makes these environments.
TORCH_BIN = build/torch-$(VERSION)/bin
TORCH_TESTS := tests/plugin tests/examples tests/traps tests/parity/foreign \
	$(patsubst %,tests/files/test_%.py,archive documents frames one_reader reading refused schema) \
	$(patsubst %,tests/parity/test_%.py,compare danger differences spread trees values) \
	$(patsubst %,tests/parity/baselines/test_%.py,blessed blessed_trees kept kernels_digest not_finite platform) \
	$(patsubst %,tests/parity/baselines/test_%.py,source_folders store) \
	$(patsubst %,tests/parity/proofs/test_%.py,bounds generic handed_out played randomness ring stages) \
	$(patsubst %,tests/parity/traces/test_%.py,foreign reading recording replay writer) \
	$(patsubst %,tests/rails/costs/test_%.py,block block_words calls counters lines) tests/rails/bench/test_ratio.py \
	tests/rails/compare/test_statistics.py
TORCH_LEFT_OUT := tests/plugin/test_html.py tests/plugin/test_switch_fixture.py tests/parity/foreign/test_ours.py

test-torch: build/torch-$(VERSION)/.stamp  ## run the plugin's own tests with another torch; VERSION=2.6.0
	$(TORCH_BIN)/python -m pytest --noconftest -p pytester -p tests.shared -m 'not engine' \
		$(addprefix --ignore=,$(TORCH_LEFT_OUT)) $(or $(ARGS),$(TORCH_TESTS))

build/torch-$(VERSION)/.stamp: pyproject.toml constraints.txt
	@test -n "$(VERSION)" || { echo "say which torch: make test-torch VERSION=2.6.0"; exit 2; }
	@rm -rf build/torch-$(VERSION)
	@$(PYTHON) -m venv build/torch-$(VERSION)
	@grep -E '^(numpy|safetensors|pytest|hypothesis)==' constraints.txt > build/torch-$(VERSION)/constraints.txt
	@$(TORCH_BIN)/python -m pip install -qq --disable-pip-version-check -c build/torch-$(VERSION)/constraints.txt \
		"torch==$(VERSION)" hypothesis -e .
	@touch $@

fuzz: $(STAMP)  ## read N=2000 mutated files of every kind, drawn from SEED=0; each must be refused by name or mean the same
	$(BIN)/python -m tests.fuzz --seed $(or $(SEED),0) --files $(or $(N),2000)

fuzz-guided: $(STAMP)  ## fuzz files of one KIND="contract" for SECONDS=60, guided by coverage; installs atheris
	$(BIN)/python -m pip install -qq --disable-pip-version-check 'atheris>=3,<4'
	$(BIN)/python -m tests.fuzz.guided --kind "$(or $(KIND),contract)" --seconds $(or $(SECONDS),60)

# Apart from `test`, as tracing makes the tests take half as long again.
coverage: $(STAMP)  ## run the tests but those of time, and print which lines and branches they run
	$(BIN)/python -m pytest --cov --cov-report=term:skip-covered -n $(WORKERS) --dist loadfile -m 'not alone and not sabotage'

# Uses the interpreter in PYTHON as it is, because a machine with a GPU has its own torch. `make test-gpu SHARD=1/4` runs
# the first of four parts; `make test-gpu-complete` says whether all parts ran and passed.
test-gpu:  ## run the tests that need a GPU, with $(PYTHON) and nothing installed; SHARD=1/4 runs a part
	$(PYTHON) -m tests.gpu.shards run $(or $(SHARD),1/1) -q $(ARGS)

test-gpu-complete:  ## say whether the parts of test-gpu together ran every test, and whether all passed
	$(PYTHON) -m tests.gpu.shards check

test-tensorrt: $(STAMP)  ## build and run TensorRT engines, on a machine that has the GPU; EXTRAS=test,engine,cli,rails,onnx,trt for the full one
	HARNESS_REQUIRE_TENSORRT=1 $(BIN)/python -m pytest -rfEsP -m tensorrt tests/tensorrt $(ARGS)

lint: $(STAMP)  ## ruff and mypy
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy --strict harness

figures: $(STAMP)  ## draw the pictures of the documentation anew, from the kept reports
	$(BIN)/python -m tests.pictures

docs: .venv/.docs  ## build the site of the documentation into build/site; installs the extra docs
	$(BIN)/python -m mkdocs build --config-file docs/site/mkdocs.yml
	@echo "open build/site/index.html"

# Apart from EXTRAS: nothing else needs it. Not with --quiet, which counts no warnings.
.venv/.docs: $(STAMP)
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt -e '.[docs]'
	@touch $@

faults: $(STAMP)  ## inject N faults, by SEED, and make CALLS calls from eight threads; say what was lost
	$(BIN)/python -m tests.faults --seed $(or $(SEED),0) --count $(or $(N),20000) --calls $(or $(CALLS),100000)

long-run: $(STAMP)  ## tick N times, then open and close streams; say whether memory and time stay flat
	$(BIN)/python -m tests.faults.long_run --ticks $(or $(N),100000)

sabotage: $(STAMP)  ## plant every defect in a copy; each must turn its test red; JSON=path writes the verdicts
	$(BIN)/python -m tests.sabotage $(if $(JSON),--json "$(JSON)") $(ARGS)

sabotage-shard: $(STAMP)  ## plant the part of the defects and mutants that this commit is held to
	$(BIN)/python -m pytest -m sabotage tests/sabotage

mutants: $(STAMP)  ## mutate the package; the score per module and the survivors; JSON=path writes them
	$(BIN)/python -m tests.sabotage.mutants $(if $(JSON),--json "$(JSON)") $(ARGS)

# On a terminal pip shows its progress; in a pipe, as in CI, it is quiet. The stamp is touched last, so that a set-up that
# failed half-way is done again.
$(STAMP): pyproject.toml constraints.txt
	@echo "Setting up .venv with $(PYTHON): torch and the extras $(EXTRAS). This takes a few minutes, once."
	@rm -f $@
	@$(PYTHON) -m venv .venv
	@test -t 1 && quiet= || quiet=-qq; \
	$(BIN)/python -m pip install $$quiet --disable-pip-version-check -c constraints.txt -e '.[$(EXTRAS)]'
	@touch $@

clean:  ## remove .venv and everything that the other targets write
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks .coverage build *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*  ## /\1\t/p' Makefile
