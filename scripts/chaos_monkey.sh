#!/usr/bin/env bash
# Chaos under load, and the proof that nothing was lost: see `--help` and docs/CHAOS.md. It runs an exchange of its
# own on free ports in a temporary folder; with PINCEX_HOME it attacks the one that runs in that folder.
set -euo pipefail
if [ -n "${PINCEX_HOME:-}" ]; then
  PINCEX_HOME="$(realpath -m -- "$PINCEX_HOME")"
  export PINCEX_HOME
fi
cd "$(dirname "${BASH_SOURCE[0]}")/.."
exec .venv/bin/python -m tests.chaos "$@"
