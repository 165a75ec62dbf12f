"""Whole verification of a long history, over `git verify-commit`, which checks the signature alone."""

import subprocess
import tempfile
import time
from pathlib import Path

from bench import history, report
from owsgit.ledger import verify
from owsgit.ledger.objects import Objects
from owsgit.services import KINDS

RESOURCES = 300
SAMPLE = 150
ROUNDS = 5
"""Ours and the baseline in turn; the round with the median ratio counts, as the machine's speed drifts."""


def main() -> None:
    count = 2_000 if report.quick() else 10_000
    with tempfile.TemporaryDirectory() as scratch:
        repository = Path(scratch, "repo")
        signers = history.make(repository, count, RESOURCES)
        tip = (repository / "refs/heads/main").read_text().strip()
        rounds = [
            (rate(repository, tip, count), verify_commit_rate(repository, Path(scratch), signers))
            for _ in range(ROUNDS)
        ]
    ours, theirs = sorted(rounds, key=lambda pair: pair[0] / pair[1])[ROUNDS // 2]
    report.line("verify_commits", ours, "commits/s", theirs, digits=1)


def rate(repository: Path, tip: str, count: int) -> float:
    objects = Objects([repository / "objects"])
    began = time.perf_counter()
    verify.walk(objects, KINDS, None, tip, lambda _: None)
    return (count + 1) / (time.perf_counter() - began)


def verify_commit_rate(repository: Path, scratch: Path, signers: list[history.Signer]) -> float:
    allowed = scratch / "allowed_signers"
    allowed.write_text("".join(f"{signer.name} {signer.public}\n" for signer in signers))
    listed = subprocess.run(
        ["git", "rev-list", "main"], cwd=repository, capture_output=True, text=True, check=True
    ).stdout.split()
    sample = listed[:: max(1, len(listed) // SAMPLE)][:SAMPLE]
    began = time.perf_counter()
    subprocess.run(
        ["git", "-c", "gpg.format=ssh", "-c", f"gpg.ssh.allowedSignersFile={allowed}", "verify-commit", *sample],
        cwd=repository,
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    return len(sample) / (time.perf_counter() - began)


if __name__ == "__main__":
    main()
