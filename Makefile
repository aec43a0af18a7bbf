# The short ways. Each calls cargo with DuckDB's library linked where one can be had, which saves
# 25 minutes of compiling C++ (scripts/duckdb.sh). Plain cargo works too, and compiles it.

CARGO   := scripts/cargo.sh
PREFIX  ?= $(HOME)/.local
DESTDIR ?=
ARGS    ?= apply pipelines/sentiment.toml

.PHONY: help build run test check install stage wheel deb

help:
	@echo 'make run       builds cryo and runs pipelines/sentiment.toml (or: make run ARGS="plan")'
	@echo 'make test      runs the tests'
	@echo 'make install   puts cryo, its library, manual and completions into PREFIX ($(PREFIX))'
	@echo 'make wheel     makes dist/cryoflux-*.whl, for pip'
	@echo 'make deb       makes dist/cryoflux_*.deb, for apt'
	@echo 'make check     does what the tests of a change do: .ci/run'

build:
	@$(CARGO) build --release --locked

run:
	@$(CARGO) run --release --locked -- $(ARGS)

test:
	@$(CARGO) test --release --locked

check:
	@.ci/run

install: build
	@scripts/stage.sh '$(DESTDIR)$(PREFIX)'
	@echo 'cryo is in $(PREFIX)/bin; its manual: man cryo'
	@case ":$$PATH:" in *':$(PREFIX)/bin:'*) ;; *) echo 'put that folder on your PATH: export PATH="$(PREFIX)/bin:$$PATH"' ;; esac

wheel: build
	@scripts/wheel.sh

deb: build
	@scripts/deb.sh
