PY := .venv/bin/python
LOCK := --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate

.venv/installed: requirements.txt pyproject.toml
	@$(PY) -m pip --version >/dev/null 2>&1 || python3 -m venv --clear .venv  # one that was cut short has no pip
	$(PY) -m pip install --disable-pip-version-check --quiet --require-hashes -r requirements.txt
	$(PY) -m pip install --disable-pip-version-check --quiet --no-deps --no-build-isolation --editable .
	@touch $@

.PHONY: install up test check format lock bench bench-train bench-recipes bench-families bench-serve bench-peers soak chaos
install: .venv/installed        ## the virtual environment with hash-locked dependencies
up: install                     ## start everything on this machine
	.venv/bin/resnetd up
# Most tests wait for processes of their own: two files of them at a time.
test: check                     ## what CI runs
	$(PY) -m pytest -n 2 --dist loadfile --no-loadscope-reorder
check: install                  ## lint and types; changes nothing
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
format: install                 ## fix what a tool can fix
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .
lock:                           ## resolve all dependencies anew, those of the images among them; needs uv
	uv pip compile pyproject.toml --extra dev $(LOCK) -o requirements.txt
	uv pip compile pyproject.toml -c requirements.txt $(LOCK) -o deploy/requirements.txt
bench: install                  ## measure a new user's first hour; the last line is one JSON object
	$(PY) -m benchmarks.first_hour
bench-train: install            ## measure this trainer against the book's way; the last line is one JSON object
	$(PY) -m benchmarks.train
bench-recipes: install          ## train the recipes on all of their data, for hours; the last line is one JSON object
	$(PY) -m benchmarks.recipes
bench-families: install         ## train, evaluate, export and serve every network; the last line is one JSON object
	$(PY) -m benchmarks.families
bench-serve: install            ## measure serving against this machine's limit; the last line is one JSON object
	$(PY) -m benchmarks.serve
bench-peers: install            ## measure serving against other servers, in an environment of theirs; the last line is one JSON object
	$(PY) -m benchmarks.peers
soak: install                   ## load, swaps, kills, aborts and overload for hours; the last line is one JSON object
	$(PY) -m benchmarks.soak $(SCENARIOS)
chaos: install                  ## hurt everything for hours, then check; the last line is one JSON object
	$(PY) tests/chaos/run.py --scale long --records benchmarks/records
