# Two commands matter: `make demo` and `make test`. Both set up .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready

.PHONY: demo test check lint types generate lock act clean \
  fault fault-canary fault-deploy \
  bench-canary bench-coverage bench-data bench-evaluate bench-races bench-skipped bench-scan bench-serve

$(STAMP): pyproject.toml tools/setup.sh actions/_shared/requirements.txt examples/flight-delays/requirements.txt
	PYTHON="$(PYTHON)" bash tools/setup.sh $(VENV)
	touch $(STAMP)

demo: $(STAMP)  ## The whole loop on a real project, in under five minutes
	$(BIN)/python examples/demo.py

test: check  ## All tests, with lint, types and generated files
	bash tools/system_packages.sh
	$(BIN)/python -m pytest -m "not alone" -n 2 --dist loadscope --durations=25
	$(BIN)/python -m pytest -m alone --durations=25

check: $(STAMP) lint types
	$(BIN)/python tools/generate.py --check
	bash tools/check_workflows.sh $(BIN)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy

generate: $(STAMP)  ## Write what is made from the command line and the configuration's models
	$(BIN)/python tools/generate.py

lock: $(STAMP)  ## Lock the actions' private environment
	bash tools/lock.sh $(BIN)

act: $(STAMP)  ## Only the workflows, under act; prints how each ended
	$(BIN)/python -m pytest -m act -rA

bench-canary: $(STAMP)
	$(BIN)/python benchmarks/canary.py

fault-canary: $(STAMP)  ## Kill a rollout at each of its writes, go on, and compare: about two minutes
	OPENBLAS_NUM_THREADS=1 $(BIN)/python tests/rollout/rollout_world.py

fault: $(STAMP)  ## Registers, promotes, rolls back and recovers with a fault at every point: more than 1,000 injections
	bash tools/system_packages.sh
	$(BIN)/python tests/fault/fault_matrix.py --every 4
	$(BIN)/python tests/fault/fault_recovery.py

fault-deploy: $(STAMP)  ## Kill servers, router, supervisor and the deployer at each step, under live load
	OPENBLAS_NUM_THREADS=1 $(BIN)/python tests/targets/fault_deploy.py

bench-races: $(STAMP)  ## 500 rounds of 4 to 8 promoters, beside the alias call alone
	$(BIN)/python benchmarks/races.py

bench-evaluate: $(STAMP)
	$(BIN)/python benchmarks/evaluate.py

bench-skipped: $(STAMP)  ## `mlcicd train` where nothing changed, beside the whole training
	$(BIN)/python benchmarks/skipped.py

bench-coverage: $(STAMP)  ## How often intervals hold the truth and gates err, on simulated populations
	OPENBLAS_NUM_THREADS=1 $(BIN)/python benchmarks/coverage.py

bench-data: $(STAMP)  ## Rules and drift beside the peers, Parquet and CSV, 1 and 10 million rows: takes hours with them
	$(BIN)/python benchmarks/data.py
	$(BIN)/python benchmarks/data.py --rows 10000000

bench-scan: $(STAMP)  ## Our scanner of models beside picklescan, modelscan and fickling
	$(BIN)/python benchmarks/scan.py

bench-serve: $(STAMP)  ## Our model server beside mlflow models serve, MLServer and BentoML
	$(BIN)/python benchmarks/serve.py

clean:
	rm -rf $(VENV) .demo
