# `make run` and `make test` are each the whole set-up: they install what is missing (scripts/setup.sh, which says so
# first), build, and do the job. `make help` lists the rest.
SHELL := /bin/sh
# Where rustup puts cargo; a shell started before rustup was installed does not know.
export PATH := $(or $(CARGO_HOME),$(HOME)/.cargo)/bin:$(PATH)

OUT := $(or $(CARGO_TARGET_DIR),target)
PLUGIN := $(if $(filter Darwin,$(shell uname)),libgstirohlive.dylib,libgstirohlive.so)
# GStreamer walks a plugin folder to its depths and loads every library it meets, at the start of every process: so it
# gets a folder with only the plugin in it, not target/release with its thousands of files.
PLUGINS := $(OUT)/gstreamer-1.0
HERE := $(if $(filter /%,$(OUT)),,$(CURDIR)/)

# Looks for what $(1) (run, test, build) needs, then builds everything, once and for all jobs.
define build
@scripts/setup.sh $(1)
cargo build --release --workspace
@mkdir -p "$(PLUGINS)" && ln -sf "../release/$(PLUGIN)" "$(PLUGINS)/" && touch "$(OUT)/built"
endef

# The plugin that was just built, and a registry (GStreamer's cache of plugins) that keeps it out of the user's own.
run publish watch test: export GST_PLUGIN_PATH := $(HERE)$(PLUGINS)$(if $(GST_PLUGIN_PATH),:$(GST_PLUGIN_PATH))
run publish watch test: export GST_REGISTRY := $(HERE)$(OUT)/gst-registry.bin

.PHONY: help run publish watch test build install
.NOTPARALLEL:

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

run: ## publish a test card and watch it, here; FILE=movie.mp4 publishes that file
	$(call build,run)
	"$(OUT)/release/irohlive-demo" both $${FILE:+"$$FILE"}

publish: ## publish a test card (or FILE=movie.mp4) and print its ticket
	$(call build,run)
	"$(OUT)/release/irohlive-demo" publish $${FILE:+"$$FILE"}

watch: ## watch what another machine publishes: TICKET=iroh-live:…
	@test -n "$$TICKET" || { echo "make watch TICKET=iroh-live:…   (make publish prints the ticket)"; exit 2; }
	$(call build,run)
	"$(OUT)/release/irohlive-demo" watch "$$TICKET"

test: ## build everything and run all tests
	$(call build,test)
	@gst-inspect-1.0 >/dev/null # fills the registry before many tests want it at once
	cargo test --release --workspace --no-fail-fast

build: ## build everything, into target/release
	$(call build,build)

install: $(OUT)/built ## install the plugin, for this user or, as root, for all; PREFIX=/usr/local for elsewhere
	@set -e; case "$(PREFIX):$$(id -u)" in \
	  :0) dir=$$(pkg-config --variable=pluginsdir gstreamer-1.0) ;; \
	  :*) dir=$${XDG_DATA_HOME:-$$HOME/.local/share}/gstreamer-1.0/plugins ;; \
	  *) dir=$$(pkg-config --define-variable=prefix="$(PREFIX)" --variable=pluginsdir gstreamer-1.0) ;; \
	esac; \
	mkdir -p "$$dir"; install -m 755 "$(OUT)/release/$(PLUGIN)" "$$dir/"; echo "Installed $$dir/$(PLUGIN)"; \
	unset GST_PLUGIN_PATH; found=$$(gst-inspect-1.0 irohlivesink 2>&1 | awk '$$1 == "Filename" { print $$2 }'); \
	if [ "$$found" -ef "$$dir/$(PLUGIN)" ]; then echo "gst-inspect-1.0 irohlivesink finds it."; \
	elif [ -n "$$found" ]; then echo "But gst-inspect-1.0 irohlivesink finds another one first: $$found"; exit 1; \
	elif GST_PLUGIN_PATH="$$dir" gst-inspect-1.0 --exists --atleast-version=0.0 irohlivesink; then \
	  echo "GStreamer does not look there by itself: export GST_PLUGIN_PATH=$$dir"; \
	else echo "But it does not load: see gst-inspect-1.0 -b"; exit 1; fi

# For `make build && sudo make install`: root may have no Rust, and need not build again what is built.
$(OUT)/built: Cargo.toml Cargo.lock $(shell find core gst-plugin -name '*.rs' -o -name Cargo.toml)
	$(call build,build)
