# make test    set up everything on a bare machine (packages, .venv), run the linters and the whole suite
# make coverage  the same, with what it runs of the package counted in all processes; fails below the limit of pyproject.toml
# make demo    the same for the demonstration: build a kernel, bundle it, boot it
# make check   the same without the boots: what to run while working
# make bench   the measurements, as ratios to other tools
# make bench-page  the same and how all grows, written into docs/ as a page with plots
# make site    the documentation as a site, with the page for browsers in it, in build/site
# make page    the page for browsers, in build/page; make page-serve shows it, make page-measure times it

V := .venv/bin
PYTEST := $(V)/python -m pytest -n 2 --dist worksteal --durations=12

test: setup lint
	$(PYTEST)

coverage: setup lint
	@rm -rf .cache/coverage && mkdir -p .cache/coverage
	$(V)/python -m coverage run $(wordlist 2,99,$(PYTEST))
	$(V)/python -m coverage combine -q
	$(V)/python -m coverage report

check: setup lint
	$(PYTEST) -m "not boot"

lint:
	$(V)/ruff format --check .
	$(V)/ruff check .
	$(V)/mypy

demo:
	@scripts/setup scripts/packages-demo.txt
	@scripts/demo

# An installed rumpbundle has compiled modules; a checkout only if nothing forbids Python to write them.
bench: setup
	$(V)/python -m compileall -q rumpbundle
	$(V)/python bench/run.py

bench-page:
	@scripts/setup scripts/packages.txt test,bench
	$(V)/python -m compileall -q rumpbundle
	$(V)/python bench/page.py

site:
	@scripts/setup scripts/packages-site.txt docs
	$(V)/python web/build.py
	NO_MKDOCS_2_WARNING=1 $(V)/python -m mkdocs build -q

page: setup
	$(V)/python web/build.py

page-serve: page
	$(V)/python -m http.server --bind 127.0.0.1 --directory build/page 8000

page-measure: page
	PYTHONPATH=.:tests $(V)/python web/measure.py

setup:
	@scripts/setup scripts/packages.txt test

clean:
	rm -rf .venv .cache build dist .mypy_cache .ruff_cache .pytest_cache
	$(MAKE) -C examples/hello clean

.NOTPARALLEL:
.PHONY: test coverage check lint demo bench bench-page site page page-serve page-measure setup clean
