#!/usr/bin/env bash
# label_studio.sh UV PYTHON FOLDER: Label Studio in an environment of its own, for tests, with a
# database to copy: its migrations take longer than everything else. About 70 s of one core.
set -euo pipefail
uv=$1 python=$2 folder=$3
rm -rf "$folder"
mkdir -p "$folder/data"
"$uv" venv --quiet --python "$python" "$folder/venv"
"$uv" pip install --quiet --python "$folder/venv/bin/python" 'label-studio==1.23.2'
export LABEL_STUDIO_BASE_DATA_DIR="$PWD/$folder/data" SECRET_KEY=tests LATEST_VERSION_CHECK=false \
  COLLECT_ANALYTICS=false LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN=true
"$folder/venv/bin/label-studio" init tests --username test@example.org --password not-a-secret \
  --user-token 0123456789abcdef0123456789abcdef01234567 --no-browser --log-level ERROR > "$folder/log" 2>&1
touch "$folder/.installed"
