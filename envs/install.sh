#!/bin/sh
# Makes the environment in the folder named by the first argument, from the versions in envs/constraints.txt.
#
# PyTorch's default Linux wheel is the CUDA build, several GB. On Linux without an NVIDIA GPU this script takes the CPU
# build instead: one that pip finds by itself, or through uv, which knows where PyTorch keeps it. TORCH=default lets pip
# choose whatever it likes.
set -eu
venv=${1:?usage: envs/install.sh FOLDER}
here=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
python=${PYTHON:-python3}
extras=${EXTRAS:-cluster,dev}

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "error: $("$python" --version) is too old: set PYTHON to Python 3.11 or newer (make setup PYTHON=python3.12)" >&2
    exit 1
}
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
# bytecode makes every later start of a job seconds faster
unset PYTHONDONTWRITEBYTECODE
pip="$venv/bin/python -m pip --disable-pip-version-check"
constraints="$here/envs/constraints.txt"

# torch first and alone: if a later step pulled it in, it would be the default build
torch=$(grep '^torch==' "$constraints")
if ! $pip show --quiet torch 2>/dev/null; then
    choose=${TORCH:-auto}
    [ "$(uname -s)" = Linux ] || choose=default
    if command -v nvidia-smi >/dev/null 2>&1; then choose=default; fi
    if [ "$choose" = auto ]; then
        # what would pip take? Only a "+cpu" version is the CPU build on Linux
        found=$($pip install --quiet --dry-run --no-deps --ignore-installed --report - "$torch" 2>/dev/null || true)
        case $found in *+cpu*) choose=default ;; *) choose=uv ;; esac
    fi
    if [ "$choose" = default ]; then
        $pip install --quiet -c "$constraints" "$torch"
    else
        $pip install --quiet "$(grep '^uv==' "$constraints")"
        UV_COMPILE_BYTECODE=1 "$venv/bin/uv" pip install --quiet --python "$venv/bin/python" --torch-backend cpu "$torch" || {
            echo "error: the CPU build of $torch could not be had: install it into $venv yourself, or run" >&2
            echo "       TORCH=default make setup   to take the CUDA build (several GB; it runs on CPUs too)" >&2
            exit 1
        }
    fi
fi
$pip install --quiet -c "$constraints" -e "$here[$extras]"
"$venv/bin/python" - <<'PY'
import torch
kind = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU"
print(f"environment ready: torch {torch.__version__} ({kind} build)")
PY
