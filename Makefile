# Which command does what? Set-up is here; everything else is in `python -m lib`.
.DEFAULT_GOAL := quick
.PHONY: quick test book study timings chapter lab verdicts clean lock help

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready
run = $(BIN)/python -m lib
profile = $(if $(PROFILE),--profile "$(PROFILE)")

# The environment: made once, and again when what it is made from has changed.
$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
	  { echo "error: wanted Python 3.11 to 3.13, got `$(PYTHON) -V 2>&1`; try make PYTHON=python3.12"; exit 1; } >&2
	@test -x $(BIN)/pip && test "`$(BIN)/python -V`" = "`$(PYTHON) -V`" || $(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --disable-pip-version-check -r requirements.lock
	@PYTHONWARNINGS=ignore $(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps \
	  --no-build-isolation -e .
	@touch $@

quick: $(READY) ## (plain `make`) set up, run the quick study live, build its book, show its verdicts
	@$(run) quick $(profile)

test: $(READY) ## set up and run the tests; ARGS="-k name" passes options to pytest
	@$(BIN)/python -m pytest $(ARGS)

book: $(READY) ## render the published study from its records; PROFILE=quick for another
	@$(run) book $(profile)

study: $(READY) ## compute what the published study lacks; PROFILE=paper CLUSTER=slurm
	@$(run) study $(profile) $(if $(CLUSTER),--cluster "$(CLUSTER)")

timings: $(READY) ## measure the speed of the recorded shapes on this machine
	@$(run) timings $(profile)

chapter: $(READY) ## execute one notebook: NAME=coreset TASK=cola ENCODER=folder SEEDS=3 BUDGETS=.9,.5
	@$(run) chapter "$(NAME)" $(if $(TASK),--task "$(TASK)") $(if $(ENCODER),--encoder "$(ENCODER)") \
	  $(if $(SEEDS),--seeds "$(SEEDS)") $(if $(BUDGETS),--budgets "$(BUDGETS)") \
	  $(if $(PROFILE),--set "profile=$(PROFILE)") $(foreach setting,$(SET),--set "$(setting)")

lab: $(READY) ## open the notebooks in JupyterLab
	@$(run) lab

verdicts: $(READY) ## print the ledger as tab-separated lines
	@$(run) verdicts $(profile)

clean: ## remove the built book; data/cache (downloads, teachers, local runs) and .venv stay
	rm -rf book/_build book/chapters book/_generated book/_static/data .snakemake .pytest_cache

lock: $(READY) ## for maintainers: pin pyproject.toml's dependencies again
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile --quiet --all-extras pyproject.toml -o requirements.lock

help: ## show this list
	@echo "make [TARGET] [PYTHON=python3.12]"; echo
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  \1\t\2/p' Makefile | expand -t 12
