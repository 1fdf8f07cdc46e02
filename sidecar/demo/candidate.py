"""A candidate policy with one thing wrong, and what a replay of the play's own records says of it.

It is the kind of change that reads well in a review: a desk in Ireland should follow profiles live.
"""

import json
import shutil
import subprocess
from pathlib import Path

from sidecar.demo.stage import Stage
from sidecar.demo.world import SetUpError, sidecar_command

_RULE = "\tinput.subject.person.us_personnel == true\n}"
_MORE = f'{_RULE} else if {{\n\tbase.personnel == true\n\tinput.action.method == "Sync"\n}}'


def plant(policies: Path, into: Path) -> None:
    """A copy of the policies in which anybody at work may follow profiles, from Ireland too."""
    shutil.copytree(policies, into)
    residency, personnel = into / "sidecar" / "residency.rego", into / "data" / "personnel" / "data.json"
    source = residency.read_text(encoding="utf-8")
    if source.count(_RULE) != 1:
        raise SetUpError(f"{residency} is not what the candidate changes")
    residency.write_text(source.replace(_RULE, _MORE), encoding="utf-8")
    data = json.loads(personnel.read_text(encoding="utf-8"))
    data["locations"]["us_subjects"].append("IE")
    personnel.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")


def replay(stage: Stage, call_id: str) -> tuple[str, bool]:
    """What the replay says, and whether it found the call of this id, and nothing else, newly permitted."""
    candidate = stage.world.folder / "candidate"
    plant(stage.world.folder / "policies", candidate)
    pair = stage.world.certificates["reviewer"]
    command = sidecar_command(
        "policy", "replay", "--against", candidate, "--fail-on", "newly-permitted-non-us", "--json",
        "--store", f"localhost:{stage.world.ports['query']}", "--ca", stage.world.ca, "--cert", pair.cert,
        "--key", pair.key,
    )  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if not done.stdout:
        return f"the replay failed: {done.stderr.strip()[-200:]}", False
    found = json.loads(done.stdout)
    flips = [one for one in found["examples"] if one["newly_permitted_non_us"]]
    said = f"{found['replayed']} decisions replayed through a candidate: {len(flips)} newly permitted abroad"
    if flips:
        said += f", {flips[0]['person']} calling {flips[0]['method']}"
    planted = [one["call_id"] for one in flips] == [call_id] and found["newly_permitted_non_us"] == 1
    return said, planted and found["flips"]["newly_permitted"] == 1 and done.returncode == 1
