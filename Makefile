# make run    set up what is missing, then serve the page
# make test   set up what is missing, then run the whole test suite (ARGS="-k tree": a part)
# make check  set up what is missing, then lint, formatting, types and import contracts
# make audit  ask for known vulnerabilities of what docs/sbom.json lists; 3 is "could not ask"
#
# PYTHON=... chooses the interpreter; otherwise the first fitting one on the PATH is taken.

PYTHON ?=
PYTHONS := $(or $(PYTHON),python3 python3.13 python3.12 python3.11)
VENV := .venv
PY := $(VENV)/bin/python
PIP_INSTALL := $(PY) -m pip install -qq --disable-pip-version-check
# Where both our code and Chainlit run.
FITS := import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))

.PHONY: run test check audit

run: $(VENV)/installed
	@$(PY) -m storygen.launch

test: $(VENV)/installed-dev
	@$(PY) -m pytest -n 2 --dist loadfile $(ARGS)

check: $(VENV)/installed-dev
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy
	@$(PY) $(VENV)/bin/lint-imports --no-logo

# In an environment of its own, for what it needs is no part of storygen.
audit: $(VENV)/installed
	@$(PY) scripts/sbom.py --check
	@$(PY) -m venv $(VENV)/audit
	@$(VENV)/audit/bin/python -m pip install -qq --disable-pip-version-check pip-audit==2.10.1
	@$(VENV)/audit/bin/python scripts/audit.py

# These files are touched last, so that whatever was interrupted is done again.
$(VENV)/installed: requirements.txt $(VENV)/created
	@echo "Installing what storygen needs into $(VENV); the first time takes some minutes."
	@$(PIP_INSTALL) -r requirements.txt
	@touch $@

$(VENV)/installed-dev: requirements-dev.txt $(VENV)/installed
	@echo "Installing what its tests need into $(VENV)."
	@$(PIP_INSTALL) -r requirements-dev.txt
	@touch $@

# An environment that somebody made by hand is kept when it can be used.
$(VENV)/created:
	@if { $(PY) -c '$(FITS)' && $(PY) -m pip --version; } >/dev/null 2>&1; then \
		touch $@; exit; \
	fi; \
	for python in $(PYTHONS); do \
		$$python -c '$(FITS)' 2>/dev/null || continue; \
		$$python -c 'import ensurepip, venv' 2>/dev/null || { \
			echo "$$python has no venv module. On Debian or Ubuntu: apt install python3-venv" >&2; \
			exit 1; }; \
		$$python -m venv --clear $(VENV) && touch $@; exit; \
	done; \
	echo "storygen needs Python 3.11, 3.12 or 3.13; none is found as: $(PYTHONS)." \
		"Install one, or name it: make run PYTHON=/path/to/python3" >&2; \
	exit 1

# One whose interpreter is gone (a system upgrade, a moved disk) is made anew.
ifneq ($(shell $(PY) -c 'print("runs")' 2>/dev/null),runs)
.PHONY: $(VENV)/created
endif
