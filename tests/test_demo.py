"""`make demo` does what it says."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_demo_runs_to_its_end(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    subprocess.run(["git", "-c", "safe.directory=*", "clone", "-q", str(ROOT), str(copy)], check=True)
    for folder in ("demo", "example-infra-repo"):
        subprocess.run(["cp", "-r", str(ROOT / folder), str(copy)], check=True)
    environment = {name: value for name, value in os.environ.items() if name != "KEEP"}
    done = subprocess.run(
        [sys.executable, "-m", "demo"],
        cwd=copy,
        env={**environment, "PYTHONPATH": str(copy)},
        capture_output=True,
        text=True,
        timeout=150,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    assert "Done: everything did what it should" in done.stdout
    for refused in ("it is not signed", "denied by policies/deploy-functions.json"):
        assert refused in done.stdout
